"""Memory that is available, memory that was used, and refusal of work that does not fit before it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from meddift.errors import MemoryLimitError
from meddift.system.memory_limits import batch_memory, container_memory, process_memory

Result = TypeVar("Result")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take without swapping, or None where the system does not say.

    The least of what the machine has left, what the control groups of this process are still allowed (containers,
    Slurm), what Slurm gave to the job, and what the limits of the process itself leave (`ulimit -v`).

    Args:
        root: Where /proc and /sys lie, for tests.
    """
    amounts = (_machine_memory(root), container_memory(root), batch_memory(root), process_memory(root))
    known = [amount for amount in amounts if amount is not None]
    return max(min(known), 0) if known else None


def require_memory(needed: int, purpose: str) -> None:
    """Refuse work that does not fit.

    Args:
        needed: Bytes.
        purpose: What the memory is for, as it shall stand in the message: "reading scan.nii.gz".

    Raises:
        MemoryLimitError: if `needed` exceeds what is available; says both numbers.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryLimitError(
            f"{purpose} needs about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available. "
            "Close other programs, use a machine with more memory, or crop or downsample the scan first."
        )


@contextmanager
def memory_for(purpose: str) -> Iterator[None]:
    """Turn errors of a full main or graphics memory within the block into a MemoryLimitError that says what to do.

    Args:
        purpose: What the memory is for, as it shall stand in the message: "encoding scan.nii.gz".

    Raises:
        MemoryLimitError: if memory is used up.
    """
    try:
        yield
    except MemoryLimitError:
        raise
    except (MemoryError, RuntimeError) as error:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(error, torch.OutOfMemoryError):
            raise MemoryLimitError(
                f"{purpose} needs more memory than the graphics card has left ({_card_memory(torch)}). Close other "
                'programs that use the card, take another one (device "cuda:1"), or compute on the processor '
                '(device "cpu").'
            ) from error
        # PyTorch says it of main memory in an error without a class of its own.
        if isinstance(error, MemoryError) or "allocate memory" in str(error) or "not enough memory" in str(error):
            raise MemoryLimitError(
                f"{purpose} needs more memory than is left. Close other programs, use a machine with more memory, or "
                "crop or downsample the scan first."
            ) from error
        raise


def unless_card_is_full(work: Callable[[], Result]) -> Result | None:
    """Do some work; None if the memory of a graphics card did not suffice, with all that the work held freed.

    Args:
        work: Called without arguments.

    Returns:
        The result of `work`, or None.
    """
    try:
        return work()
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
    # Outside of the handler, because the error keeps the tensors of all frames that it passed through alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def card_memory(device: str) -> int:
    """Bytes that this process can still take on a graphics card.

    Args:
        device: "cuda:N".
    """
    import torch

    # What PyTorch has taken from the card and does not use is free to this process.
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def _card_memory(torch: Any) -> str:
    """What a graphics card has left, in words."""
    try:
        free, total = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError):  # no card that PyTorch can ask
        return "how much that is cannot be told"
    return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB"


def peak_memory_bytes() -> int | None:
    """The most memory that this process has held so far, bytes; None where the system does not tell.

    The peak memory of a graphics card is added if torch was used there.
    """
    peak = resident_peak_bytes()
    torch = sys.modules.get("torch")
    if peak is not None and torch is not None and torch.cuda.is_available():
        peak += int(torch.cuda.max_memory_allocated())
    return peak


def _machine_memory(root: Path) -> int | None:
    """Memory that the whole machine has left, bytes."""
    try:
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    import psutil

    try:  # macOS, Windows, and kernels before 3.14
        return int(psutil.virtual_memory().available)
    except (psutil.Error, OSError, RuntimeError):
        return None


def resident_peak_bytes() -> int | None:
    """The most main memory that this process has held so far, bytes; None where the system does not tell.

    On Linux it is counted from the start of the program, or since a 5 was last written to /proc/self/clear_refs.
    """
    if sys.platform == "linux":
        # Not from getrusage(2): there a program begins with the peak of the process that started it.
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0)) or None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    return peak if sys.platform == "darwin" else peak * 1024
