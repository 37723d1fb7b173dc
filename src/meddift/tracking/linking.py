"""Linking the candidates of a scan to known lesions: partners, parts of split lesions, merged lesions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meddift.tracking.assignment import LIMIT_MM, assign, belongs, link_cost, parts_of
from meddift.tracking.candidates import Candidate, Candidates
from meddift.tracking.carried import Carrier
from meddift.tracking.observations import Course, Decision, Link, Observation
from meddift.tracking.routes import ways_to

#: A candidate whose position in the previous scan is uncertain is a new lesion only if no lesion without partner lies
#: within this distance, mm.
LONE_MM = 25.0


class Linking:
    """The links between the lesions known so far and the candidates of one time point.

    Attributes:
        links: Lesion -> numbers of its candidates, after `link`.
        shared: Lesion -> the lesions that have merged with it.
        back: Lesions that were linked only by mapping candidates back to an earlier scan.
        open: Lesions without a decision by a person.
    """

    def __init__(
        self,
        course: Course,
        scans: Sequence[Candidates | str],
        carrier: Carrier,
        names: Sequence[str],
        k: int,
        decisions: Sequence[Decision],
    ) -> None:
        self.course, self.scans, self.carrier, self.names, self.k = course, scans, carrier, names, k
        self.decisions = decisions
        here = scans[k]
        self.failure = here if isinstance(here, str) else ""
        self.found: tuple[Candidate, ...] = () if isinstance(here, str) else here.items
        self.given = not isinstance(here, str) and here.given
        self.label = {item.label: j for j, item in enumerate(self.found)}
        self.links: dict[str, list[int]] = {}
        self.settled: dict[str, Decision] = {}

    def link(self) -> bool:
        """Link all lesions; returns False if no lesions were given for this scan."""
        self._keep_decisions()
        self.open = [name for name in self.course.order if name not in self.settled]
        self.ways = ways_to(self.course, self.scans, self.carrier, self.k, self.open, self.found)
        if not self.given:
            return False
        self._assign()
        self._split()
        self.shared = self._merge()
        self.back = self._back()
        return True

    @property
    def taken(self) -> set[int]:
        """Numbers of the candidates that are linked."""
        return {j for parts in self.links.values() for j in parts}

    def _keep_decisions(self) -> None:
        """Link what a person has confirmed or corrected."""
        for decision in self.decisions:
            if decision.review not in ("confirmed", "corrected"):
                continue
            parts = tuple(self.label[label] for label in decision.labels if label in self.label)
            if len(parts) < len(decision.labels):
                continue  # the mask has changed, which is reported when the table is read
            self.settled[decision.lesion] = decision
            place = self.found[parts[0]].center if parts else np.full(3, np.nan)
            self.links[decision.lesion] = list(parts)
            links = tuple(
                Link("person", row.timepoint, _label(self.scans, row), self.found[j].label)
                for j in parts
                for row in self.course.seen(decision.lesion, self.k)[-1:]
            )
            others = tuple(
                sorted(
                    d.lesion
                    for d in self.decisions
                    if d.lesion != decision.lesion and parts and set(d.labels) & set(decision.labels)
                )
            )
            self.course.add(
                Observation(
                    decision.lesion,
                    self.k,
                    decision.state,
                    parts,
                    place,
                    "ok",
                    "said by a person",
                    links,
                    others,
                    decision.review,
                )
            )

    def _forbidden(self, name: str, j: int) -> bool:
        return any(
            d.review == "rejected" and d.lesion == name and self.found[j].label in d.labels for d in self.decisions
        )

    def _cost(self, name: str, j: int) -> float:
        """Cost of a link over both routes, reliable ones only if there are any: between their mean and minimum, mm."""
        if self._forbidden(name, j):
            return np.inf
        ways = [way for way in self.ways[name] if way.costs[j] is not None]
        sure = [way for way in ways if way.verdict == "ok"] or ways
        costs = [min(cost.cost_mm, 2 * LIMIT_MM) for way in sure if (cost := way.costs[j]) is not None]
        return float((np.mean(costs) + min(costs)) / 2) if costs else np.inf

    def _assign(self) -> None:
        taken = self.taken
        table = np.array(
            [[np.inf if j in taken else self._cost(name, j) for j in range(len(self.found))] for name in self.open]
        ).reshape(len(self.open), len(self.found))
        self.table = table
        for row, j in assign(table):
            self.links[self.open[row]] = [j]
        self.alone: dict[str, dict[str, int]] = {}
        for route in ("baseline", "previous"):
            single = np.full(table.shape, np.inf)
            for row, name in enumerate(self.open):
                for way in self.ways[name]:
                    if way.route == route:
                        single[row] = [
                            np.inf if cost is None or self._forbidden(name, j) else cost.cost_mm
                            for j, cost in enumerate(way.costs)
                        ]
            self.alone[route] = {self.open[row]: j for row, j in assign(single)}

    def _split(self) -> None:
        """Add unlinked candidates that lie where a linked lesion is expected, as further parts of this lesion."""
        wanted: dict[int, tuple[float, str]] = {}
        for name in self.open:
            if name not in self.links:
                continue
            for way in self.ways[name]:
                for j in parts_of(way.costs, self.taken):
                    cost = way.costs[j]
                    if cost is not None and not self._forbidden(name, j):
                        wanted[j] = max(wanted.get(j, (0.0, "")), (cost.covers, name))
                if way.parts > 1:
                    row = self.open.index(name)
                    for j in range(len(self.found)):
                        if j not in self.taken and self.table[row, j] < LIMIT_MM:
                            wanted.setdefault(j, (0.0, name))
        for j, (_, name) in wanted.items():
            self.links[name].append(j)

    def _merge(self) -> dict[str, tuple[str, ...]]:
        """Merge lesions without partner with the lesion on whose candidate they are expected."""
        joined: dict[int, set[str]] = {}
        for name in self.open:
            if name in self.links:
                continue
            best: tuple[float, int] | None = None
            for way in self.ways[name]:
                for j, cost in enumerate(way.costs):
                    fits = cost is not None and cost.covered >= 0.5 and not self._forbidden(name, j)
                    if fits and cost is not None and j in self.taken and (best is None or cost.covered > best[0]):
                        best = cost.covered, j
            if best is not None:
                owners = {other for other, parts in self.links.items() if best[1] in parts}
                joined.setdefault(best[1], set()).update(owners | {name})
        for j, members in joined.items():
            for name in members:
                self.links.setdefault(name, [j])
        return {
            name: tuple(sorted((other for other in members if other != name), key=int))
            for members in joined.values()
            for name in members
        }

    def _back(self) -> set[str]:
        """Link unlinked candidates by mapping them back to the last scan that has lesions."""
        self.origin: dict[int, tuple[int, str, str, str, bool]] = {}
        loose = [j for j in range(len(self.found)) if j not in self.taken]
        before = [s for s in range(self.k) if isinstance(here := self.scans[s], Candidates) and here.given]
        if not loose or not before:
            return set()
        source = before[-1]
        carried = self.carrier.carry(self.k, source, [self.found[j] for j in loose])
        there = self.scans[source]
        assert isinstance(there, Candidates)
        rows = [
            (name, row.parts[0])
            for name in self.open
            if (row := self.course.rows.get((name, source))) is not None and row.parts
        ]
        free = [(name, part) for name, part in rows if name not in self.links]
        costs = np.full((len(loose), len(free)), np.inf)
        for i, j in enumerate(loose):
            for n, (name, part) in enumerate(free):
                cost = link_cost(carried[i], self.found[j], there.items[part])
                if cost is not None and not self._forbidden(name, j):
                    costs[i, n] = cost.cost_mm
        back = set()
        for i, n in assign(costs):
            self.links[free[n][0]] = [loose[i]]
            back.add(free[n][0])
        for j, expected in zip(loose, carried, strict=True):
            if j in self.taken:
                continue
            owner, best = "", None
            for name, part in rows:
                cost = link_cost(expected, self.found[j], there.items[part])
                if belongs(cost) and name in self.links and not self._forbidden(name, j):
                    owner, best = name, cost
            if owner and best is not None and best.covered >= 0.5:
                self.links[owner].append(j)
                continue
            open_ones = [there.items[part] for name, part in rows if name not in self.links]
            away = [np.linalg.norm(expected.center - item.center) - item.radius_mm for item in open_ones]
            self.origin[j] = source, expected.verdict, expected.reason, owner, all(d > LONE_MM for d in away)
        return back


def _label(scans: Sequence[Candidates | str], row: Observation) -> str:
    here = scans[row.timepoint]
    return "+".join(here.items[j].label for j in row.parts) if isinstance(here, Candidates) else ""
