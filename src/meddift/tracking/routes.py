"""The ways by which lesions come to a scan: from where they were first seen, and from where they were last seen."""

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
    """One lesion, carried from one earlier scan.

    Attributes:
        route: "baseline" from where it was first seen, "previous" from where it was last seen, if that is another.
        source: Number of the earlier time point.
        labels: What the lesion is called there.
        parts: Of how many parts it is made there.
        center: (3,) where it is expected, world RAS mm; NaN outside.
        verdict: How sure that is.
        reason: Why it is not "ok".
        costs: One for each candidate of the scan; None where there is none.
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
    """Carry lesions to time point k from the first and from the last scan in which each was seen.

    Every source scan is asked once, for all lesions that come from it.
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
    # The latest first: from there it is a short way, and the field by which a longer one is begun.
    for source, numbers in sorted(sources.items(), reverse=True):
        items = _items(scans[source])
        answers = carrier.carry(source, k, [items[part] for part in numbers])
        carried[source] = dict(zip(numbers, answers, strict=True))
    ways: dict[str, list[Way]] = {}
    for name, routes in wanted.items():
        ways[name] = []
        for route, source in routes:
            items, parts = _items(scans[source]), course.rows[name, source].parts
            # The largest part stands for the place of the whole.
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
    """The cheapest of several parts, with the best cover that any of them gives."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    best = min(known, key=lambda cost: cost.cost_mm)
    return replace(
        best,
        covers=max(cost.covers for cost in known),
        covered=max(cost.covered for cost in known),
    )
