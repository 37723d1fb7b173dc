"""What a run has taken."""

from __future__ import annotations

import sys


def peak_memory_bytes() -> int | None:
    """The most memory that this process has held so far, bytes; None where the system does not tell.

    On a graphics card, its memory is added if torch was used there.
    """
    peak = _host_peak()
    torch = sys.modules.get("torch")
    if peak is not None and torch is not None and torch.cuda.is_available():
        peak += int(torch.cuda.max_memory_allocated())
    return peak


def _host_peak() -> int | None:
    """Peak resident set size."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    return peak if sys.platform == "darwin" else peak * 1024
