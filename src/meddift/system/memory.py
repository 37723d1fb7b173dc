"""How much memory is left, so that a scan which does not fit is refused before it is read."""

from __future__ import annotations

import os
from pathlib import Path

from meddift.errors import MemoryLimitError


def available_memory() -> int | None:
    """Bytes that this process can still take without swapping, or None where the system does not say.

    The smaller of what the machine has left (`MemAvailable`) and what the container is still allowed
    (control group version 2).
    """
    amounts = [_machine_memory(), _container_memory()]
    known = [amount for amount in amounts if amount is not None]
    return min(known) if known else None


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


def _machine_memory() -> int | None:
    """Memory that the whole machine has left, bytes."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, macOS not this value
        return None


def _container_memory() -> int | None:
    """Memory that the control group of this process has left, bytes."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        reclaimable = 0
        for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith("inactive_file "):
                reclaimable = int(line.split()[1])
        return None if limit == "max" else max(int(limit) - used + reclaimable, 0)
    except (OSError, ValueError):
        return None
