"""`Schedule`: the next task, so that each scan is encoded once and no case waits without need."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from meddift.cohort.cases import Case


class Schedule:
    """Scans and cases that are left. Cases whose scans are encoded come first, then the next scan in order.

    Args:
        cases: Cases to be done, in order.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self._ready: deque[Case] = deque(case for case in cases if not case.scans)
        self._scans: deque[str] = deque(dict.fromkeys(scan for case in cases for scan in case.scans))
        self._waiting: dict[str, list[Case]] = {scan: [] for scan in self._scans}
        self._lacking: dict[str, int] = {}
        self._left: dict[str, int] = dict.fromkeys(self._scans, 0)
        for case in cases:
            self._lacking[case.name] = len(case.scans)
            for scan in case.scans:
                self._waiting[scan].append(case)
                self._left[scan] += 1

    def next(self) -> Case | str | None:
        """The next case to do, or the path of the next scan to encode; None if no task is ready."""
        if self._ready:
            return self._ready.popleft()
        while self._scans:
            scan = self._scans.popleft()
            if self._left[scan]:  # otherwise all its cases have failed because of another scan
                return scan
        return None

    def again(self, work: Case | str) -> None:
        """Put a task back, to be done before all others."""
        if isinstance(work, str):
            self._scans.appendleft(work)
        else:
            self._ready.appendleft(work)

    def encoded(self, scan: str) -> None:
        """Note that a scan was encoded."""
        for case in self._waiting.pop(scan):
            self._lacking[case.name] -= 1
            if not self._lacking[case.name]:
                self._ready.append(case)

    def lost(self, scan: str) -> list[Case]:
        """Note that a scan cannot be encoded, and return the cases that need it and have not failed yet."""
        lost = []
        for case in self._waiting.pop(scan):
            if self._lacking[case.name] > 0:
                self._lacking[case.name] = -1  # never ready, even if its other scans are encoded
                lost.append(case)
        return lost

    def finished(self, case: Case) -> list[str]:
        """Note that a case has ended, and return the scans that no case needs any more."""
        over = []
        for scan in case.scans:
            self._left[scan] -= 1
            if not self._left[scan]:
                over.append(scan)
        return over
