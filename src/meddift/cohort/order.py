"""In which order cases are done, so that each scan is needed for a short time; and parts for several machines."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from meddift.cohort.cases import Case


def by_shared_scans(cases: Sequence[Case]) -> list[Case]:
    """Cases ordered so that those with a scan in common stand together.

    Scan by scan, beginning with the first of the table: all cases of a scan, then those of the scans met on the way.

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
    """One of several equal parts that together are the whole; few scans are in two of them.

    Args:
        ordered: What `by_shared_scans` returns.
        number: Which, from 1.
        count: How many.
    """
    return list(ordered[len(ordered) * (number - 1) // count : len(ordered) * number // count])
