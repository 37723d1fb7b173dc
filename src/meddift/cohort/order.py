"""Order of cases, so that each scan is kept for a short time only, and shards for several machines."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from meddift.cohort.cases import Case


def by_shared_scans(cases: Sequence[Case]) -> list[Case]:
    """Order cases so that those with a common scan follow each other.

    This is a breadth-first search over scans that begins with the first case of the table: all cases of a scan, then
    all cases of the other scans of these.

    Args:
        cases: In the order of the table.
    """
    of_scan: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        for scan in case.scans:
            of_scan.setdefault(scan, []).append(number)
    ordered: list[Case] = []
    taken = [False] * len(cases)
    queued: set[str] = set()
    for start, case in enumerate(cases):
        if taken[start]:
            continue
        if not case.scans:
            taken[start] = True
            ordered.append(case)
        queue = deque(case.scans[:1])
        queued.update(queue)
        while queue:
            for number in of_scan[queue.popleft()]:
                if not taken[number]:
                    taken[number] = True
                    ordered.append(cases[number])
                    new = [scan for scan in cases[number].scans if scan not in queued]
                    queue.extend(new)
                    queued.update(new)
    return ordered


def part(ordered: Sequence[Case], number: int, count: int) -> list[Case]:
    """One of `count` consecutive parts of nearly equal size; few scans occur in two parts.

    Args:
        ordered: Cases in the order of `by_shared_scans`.
        number: Number of the part, counted from 1.
        count: Number of parts.
    """
    return list(ordered[len(ordered) * (number - 1) // count : len(ordered) * number // count])
