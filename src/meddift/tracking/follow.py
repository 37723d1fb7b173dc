"""Following lesions from scan to scan: every scan against the first and against the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from meddift.tracking.assignment import NEAR_MM
from meddift.tracking.candidates import Candidates
from meddift.tracking.carried import Carrier
from meddift.tracking.linking import Linking
from meddift.tracking.observations import Course, Decision, Link, Observation, State

#: A lesion without partner is not called disappeared while an unlinked candidate would fit at this cost, mm.
RIVAL_MM = 20.0


def follow(
    scans: Sequence[Candidates | str],
    carrier: Carrier,
    *,
    names: Sequence[str],
    decisions: Sequence[Decision] = (),
) -> Course:
    """Determine the state of each lesion at every time point.

    Args:
        scans: In order of time the lesions of each scan, or the reason why it could not be used. The first scan must
            be usable.
        carrier: Maps lesions from one scan to another.
        names: Names of the time points, for the reasons.
        decisions: Rows of a table that a person has edited: confirmed and corrected rows are kept, and lesions keep
            their numbers.

    Returns:
        One observation for each lesion and time point from its first appearance on.
    """
    course = Course(reserved={decision.lesion for decision in decisions})
    first = scans[0]
    assert isinstance(first, Candidates)
    for number, name in zip(range(len(first)), names_at_baseline(first), strict=True):
        item = first.items[number]
        course.add(Observation(name, 0, "baseline", (number,), item.center, "ok", "", ()))
    for k in range(1, len(scans)):
        _Step(course, scans, carrier, names, k, [d for d in decisions if d.timepoint == k]).run()
    for decision in decisions:
        row = course.rows.get((decision.lesion, decision.timepoint))
        here = scans[decision.timepoint]
        if row is None or isinstance(here, str):
            continue
        same = {here.items[j].label for j in row.parts} == set(decision.labels)
        # A row that was rejected as a whole (a finding that is not a lesion) stays rejected when it is found again.
        if same and (decision.timepoint == 0 or decision.review == "rejected"):
            course.rows[decision.lesion, decision.timepoint] = replace(row, review=decision.review)
    return course


def names_at_baseline(first: Candidates) -> list[str]:
    """Names of the lesions at baseline: their labels if all are numbers, else 1, 2, 3, ..."""
    labels = [item.label for item in first.items]
    if all(label.isdecimal() and int(label) > 0 and str(int(label)) == label for label in labels):
        return labels
    return [str(number + 1) for number in range(len(labels))]


class _Step(Linking):
    """The work for one time point: the state of all lesions known so far, and new lesions."""

    def run(self) -> None:
        """Add the observations of this time point."""
        if self.failure:
            for name in list(self.course.order):
                nowhere = np.full(3, np.nan)
                self._add(name, "uncertain", (), nowhere, "uncertain", f"the scan could not be used: {self.failure}")
            return
        if not self.link():
            for name in self.open:
                self._locate_only(name)
            return
        for name in self.open:
            if name in self.links:
                self._matched(name, self.shared.get(name, ()), from_back=name in self.back)
            else:
                self._missing(name)
        self._newcomers()

    def _add(
        self,
        name: str,
        state: State,
        parts: Sequence[int],
        place: np.ndarray,
        verdict: str,
        reason: str,
        links: Sequence[Link] = (),
        shared: Sequence[str] = (),
    ) -> None:
        self.course.add(
            Observation(name, self.k, state, tuple(parts), place, verdict, reason, tuple(links), tuple(shared))
        )

    def _matched(self, name: str, shared: Sequence[str], *, from_back: bool) -> None:
        parts = self.links[name]
        here = self.names[self.k]
        links, sure, doubts = [], False, []
        for way in self.ways[name]:
            sure |= way.verdict == "ok" and any(way.costs[j] is not None for j in parts)
            for j in parts:
                cost = way.costs[j]
                if cost is not None:
                    links.append(
                        Link(way.route, way.source, way.labels, self.found[j].label, cost.cost_mm, cost.distance_mm,
                             cost.overlap)
                    )  # fmt: skip
        if from_back:
            doubts.append(f"found only by looking from {here} back")
        elif not sure:
            doubts += sorted({way.reason for way in self.ways[name] if way.reason})[:1] or ["its place is not sure"]
        partners = {route: alone[name] for route, alone in self.alone.items() if name in alone}
        if len(set(partners.values())) > 1:
            both = " and ".join(
                f"{self._source_of(name, route)} leads to {self.found[j].label}" for route, j in partners.items()
            )
            doubts.append(f"the two ways disagree: {both}")
        told: list[str] = []
        state: State = "matched"
        if shared:
            state = "merged"
            told.append(f"one with lesion {', '.join(shared)}")
        elif len(parts) > 1:
            state = "split"
            told.append(f"in {len(parts)} parts")
        missed = [k for k in range(self.k) if (row := self.course.rows.get((name, k))) and row.state == "disappeared"]
        if missed and missed[-1] > self.course.seen(name, self.k)[-1].timepoint:
            told.append(f"there again after {self.names[missed[-1]]}")
        weights = [max(self.found[j].volume_mm3, 1.0) if self.found[j].measures else 1.0 for j in parts]
        place = np.average([self.found[j].center for j in parts], axis=0, weights=weights)
        self._add(
            name, state, parts, place, "uncertain" if doubts else "ok", "; ".join([*told, *doubts]), links, shared
        )

    def _source_of(self, name: str, route: str) -> str:
        return next((self.names[way.source] for way in self.ways[name] if way.route == route), route)

    def _missing(self, name: str) -> None:
        """Add a lesion without partner: disappeared, outside the field of view, or uncertain."""
        ways, here = self.ways[name], self.names[self.k]
        sure = [way for way in ways if way.verdict == "ok"]
        row = self.open.index(name)
        if not ways:
            self._add(name, "uncertain", (), np.full(3, np.nan), "uncertain", "it was seen in no scan that was read")
            return
        if not sure:
            unsure = [way for way in ways if way.verdict == "uncertain"]
            way = (unsure or ways)[0]
            state: State = "uncertain" if unsure else "outside"
            fallback = (
                "its place was not found for sure" if unsure else f"its place is not in the field of view of {here}"
            )
            self._add(name, state, (), way.center, way.verdict, way.reason or fallback)
            return
        way = sure[-1]
        at = [j for w in sure for j, cost in enumerate(w.costs) if cost is not None and cost.gap_mm <= NEAR_MM]
        rivals = [j for j in range(len(self.found)) if j not in self.taken and self.table[row, j] < RIVAL_MM]
        if at:
            labels = ", ".join(sorted({self.found[j].label for j in at}))
            reason = f"at its place in {here} lies {labels}, which is another lesion"
            self._add(name, "uncertain", (), way.center, "uncertain", reason)
        elif rivals:
            labels = ", ".join(sorted({self.found[j].label for j in rivals}))
            reason = f"nothing lies at its place in {here}, but {labels} nearby has no partner either"
            self._add(name, "uncertain", (), way.center, "uncertain", reason)
        else:
            reason = f"its place was found in {here}, and no lesion was marked there"
            self._add(name, "disappeared", (), way.center, "ok", reason)

    def _locate_only(self, name: str) -> None:
        """Add a lesion in a scan without given lesions: only its expected position."""
        ways = self.ways[name]
        best = next((way for way in ways if way.verdict == "ok"), None)
        reason = f"only located: no lesions were given for {self.names[self.k]}"
        if best is not None:
            self._add(name, "matched", (), best.center, "ok", reason)
        elif ways:
            unsure = [way for way in ways if way.verdict == "uncertain"]
            way = (unsure or ways)[0]
            state: State = "uncertain" if unsure else "outside"
            self._add(name, state, (), way.center, way.verdict, "; ".join(x for x in (way.reason, reason) if x))
        else:
            self._add(name, "uncertain", (), np.full(3, np.nan), "uncertain", reason)

    def _known_name(self, j: int) -> str:
        """The number that a new lesion has in the edited table; "" if it is not there."""
        label = self.found[j].label
        known = [d.lesion for d in self.decisions if label in d.labels and d.lesion not in self.course.order]
        return known[0] if known else ""

    def _newcomers(self) -> None:
        for j in range(len(self.found)):
            if j in self.taken:
                continue
            name = self._known_name(j) or self.course.next_name()
            place = self.found[j].center
            if j not in self.origin:
                self._add(name, "new", (j,), place, "ok", "")
                continue
            source, verdict, why, owner, lone = self.origin[j]
            before = self.names[source]
            if verdict == "outside":
                reason = f"its place is not in the field of view of {before}"
                self._add(name, "new", (j,), place, "outside", reason)
            elif verdict == "ok" and not owner:
                self._add(name, "new", (j,), place, "ok", f"no lesion was marked at its place in {before}")
            elif owner:
                reason = f"its place in {before} is that of lesion {owner}"
                self._add(name, "uncertain", (j,), place, "uncertain", reason)
            else:
                reason = f"its place was not found for sure in {before}" + (f": {why}" if why else "")
                if lone:
                    reason += ", but no lesion without partner lies anywhere near"
                self._add(name, "new" if lone else "uncertain", (j,), place, "uncertain", reason)
