"""Measurement of time and memory of the stages of a process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from meddift.system.memory import resident_peak_bytes

_CLEAR = Path("/proc/self/clear_refs")


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
            peak = resident_peak_bytes() if _CLEAR.exists() else None
            if peak is not None:
                self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), peak)

    def as_dict(self) -> dict[str, Any]:
        """The measurements by stage, ready for JSON."""
        return {"seconds": self.seconds, "peak_bytes": self.peak_bytes}
