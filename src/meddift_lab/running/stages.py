"""Measurement of time and memory of the stages of a process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Stages:
    """Wall time in seconds, and on Linux the peak resident memory, of each stage of this process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a block; times of blocks with the same name are added."""
        # Writing 5 to clear_refs resets the recorded peak (see proc(5)), so that each stage has its own.
        with suppress(OSError):
            _CLEAR.write_text("5")
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            peak = _peak_bytes()
            if peak is not None:
                self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), peak)

    def as_dict(self) -> dict[str, Any]:
        """The measurements by stage, ready for JSON."""
        return {"seconds": self.seconds, "peak_bytes": self.peak_bytes}


def _peak_bytes() -> int | None:
    """Peak resident memory since the last reset, bytes; None where the system does not provide it."""
    if sys.platform != "linux":
        return None
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
