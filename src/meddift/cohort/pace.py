"""`Pace`: number of finished cases, cases per minute, and time left."""

from __future__ import annotations

import time


class Pace:
    """Counts finished scans and cases of a run; as text, a line of progress.

    Args:
        cases: Number of all cases of this run.
        scans: Number of scans to encode.
        over: Number of cases that an earlier run has finished.
        workers: Number of workers.
    """

    def __init__(self, cases: int, scans: int, *, over: int, workers: int) -> None:
        self._cases, self._scans, self._over, self._workers = cases, scans, over, workers
        self._done = self._failed = self._encoded = 0
        self._seconds = {"case": 0.0, "scan": 0.0}
        self._started = time.monotonic()

    def scan(self, seconds: float | None) -> None:
        """Count a scan that was encoded or has failed, and the seconds it took."""
        self._encoded += 1
        self._seconds["scan"] += seconds or 0.0

    def case(self, seconds: float | None, *, failed: bool) -> None:
        """Count a case that is done or has failed, and the seconds it took."""
        self._done += 1
        self._failed += failed
        self._seconds["case"] += seconds or 0.0

    @property
    def share(self) -> float:
        """Share of finished cases, 0 to 1."""
        return (self._over + self._done) / max(self._cases, 1)

    def left_s(self) -> float | None:
        """Estimated time left, s, from the mean times so far; None before the first case is finished."""
        if not self._done:
            return None
        case, scan = self._seconds["case"] / self._done, self._seconds["scan"] / max(self._encoded, 1)
        cases, scans = self._cases - self._over - self._done, max(self._scans - self._encoded, 0)
        return (cases * case + scans * scan) / self._workers

    def __str__(self) -> str:
        over = self._over + self._done
        words = [f"{over} of {self._cases} cases"]
        if self._encoded:
            words.append(f"{self._encoded} of {self._scans} scans encoded")
        if self._failed:
            words.append(f"{self._failed} failed")
        minutes = (time.monotonic() - self._started) / 60
        left = self.left_s()
        if left is not None and minutes > 0:
            words.append(f"{self._done / minutes:.3g} a minute")
            if over < self._cases:
                words.append(f"{duration(left)} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """A duration in s as text in a suitable unit: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
