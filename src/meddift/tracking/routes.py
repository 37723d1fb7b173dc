"""Routes: lesions mapped to a scan from the scan in which they were first seen, and from the last before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from meddift.tracking.assignment import LinkCost, link_cost
from meddift.tracking.candidates import Candidate, Candidates
from meddift.tracking.carried import Carrier
from meddift.tracking.observations import Course


@dataclass(frozen=True, eq=False)
class Way:
    """One lesion mapped from one earlier scan.

    Attributes:
        route: "baseline" from the scan in which it was first seen, "previous" from that in which it was last seen, if
            another one.
        source: Number of the earlier time point.
        labels: Its labels in the earlier scan.
        parts: Number of its parts in the earlier scan.
        center: (3,) float64, expected position, world RAS mm; NaN if outside.
        verdict: Reliability of the expected position.
        reason: Why the verdict is not "ok"; else "".
        costs: Cost of the link to each candidate of the scan; None where there is none.
    """

    route: Literal["baseline", "previous"]
    source: int
    labels: str
    parts: int
    center: NDArray[np.float64]
    verdict: str
    reason: str
    costs: tuple[LinkCost | None, ...]


def ways_to(
    course: Course,
    scans: Sequence[Candidates | str],
    carrier: Carrier,
    k: int,
    lesions: Sequence[str],
    found: Sequence[Candidate],
) -> dict[str, list[Way]]:
    """Map lesions to a time point from the first and from the last scan in which each was seen.

    All lesions of one source scan are mapped together.

    Args:
        course: All observations so far.
        scans: The lesions of each scan, or the reason why it could not be used.
        carrier: Maps lesions from one scan to another.
        k: Number of the time point.
        lesions: Identities of the lesions.
        found: Candidates of the time point.

    Returns:
        Lesion -> its routes.
    """
    wanted: dict[str, list[tuple[Literal["baseline", "previous"], int]]] = {}
    sources: dict[int, list[int]] = {}
    for name in lesions:
        seen = course.seen(name, k)
        routes: list[tuple[Literal["baseline", "previous"], int]] = []
        if seen:
            routes.append(("baseline", seen[0].timepoint))
        if len(seen) > 1:
            routes.append(("previous", seen[-1].timepoint))
        wanted[name] = routes
        for _, source in routes:
            parts = course.rows[name, source].parts
            sources.setdefault(source, []).extend(part for part in parts if part not in sources.get(source, []))
    carried = {}
    # The latest scan first: its field serves as the prior of fields from earlier scans.
    for source, numbers in sorted(sources.items(), reverse=True):
        items = _items(scans[source])
        answers = carrier.carry(source, k, [items[part] for part in numbers])
        carried[source] = dict(zip(numbers, answers, strict=True))
    ways: dict[str, list[Way]] = {}
    for name, routes in wanted.items():
        ways[name] = []
        for route, source in routes:
            items, parts = _items(scans[source]), course.rows[name, source].parts
            # The largest part determines the position of the lesion.
            largest = max(parts, key=lambda part: (items[part].radius_mm, -part))
            expected = carried[source][largest]
            costs = [
                _best([link_cost(carried[source][part], items[part], candidate) for part in parts])
                for candidate in found
            ]
            labels = "+".join(items[part].label for part in parts)
            ways[name].append(
                Way(
                    route, source, labels, len(parts), expected.center, expected.verdict, expected.reason, tuple(costs)
                )
            )
    return ways


def _items(scan: Candidates | str) -> tuple[Candidate, ...]:
    return () if isinstance(scan, str) else scan.items


def _best(costs: Sequence[LinkCost | None]) -> LinkCost | None:
    """The smallest cost among several parts, with the largest cover among them."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    best = min(known, key=lambda cost: cost.cost_mm)
    return replace(
        best,
        covers=max(cost.covers for cost in known),
        covered=max(cost.covered for cost in known),
    )
