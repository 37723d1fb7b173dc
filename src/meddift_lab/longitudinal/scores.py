"""Scores of lesion tracking against the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from meddift.tracking.candidates import Candidates
from meddift.tracking.observations import Course, Observation
from meddift.tracking.recist import assess
from meddift.tracking.result import FollowUp
from meddift.tracking.summary import visits
from meddift_lab.longitudinal.patient import LongitudinalPatient

#: Number of the largest lesions at baseline that are taken as RECIST target lesions.
TARGETS = 5


@dataclass(frozen=True)
class Scores:
    """Counts over lesions and time points; counts of several patients can be added.

    Attributes:
        present: Number of pairs of a lesion and a time point after its first appearance at which it is present.
        partners: Of `present`, how many were matched to exactly the right labels.
        links_true: Number of pairs of labels in two scans that belong to one lesion in the ground truth.
        links_found: Number of pairs of labels in two scans that the result assigns to one lesion.
        links_right: Number of pairs that are in both.
        existing: Number of pairs of a lesion and a time point after its first appearance at which it exists, in the
            field of view or outside.
        called_gone: Of `existing`, how many were reported as disappeared.
        gone: Number of states "disappeared" in the result.
        states: Number of compared states.
        states_right: Of `states`, how many are right.
        joined: Number of states "split" or "merged" in the ground truth.
        joined_found: Of `joined`, how many have the right labels and the right state.
        sizes: Number of compared longest diameters.
        sizes_mm: Sum of their absolute differences, mm.
        categories: Number of time points at which RECIST categories are compared.
        categories_right: Of `categories`, how many equal the category that follows from the true links.
    """

    present: int = 0
    partners: int = 0
    links_true: int = 0
    links_found: int = 0
    links_right: int = 0
    existing: int = 0
    called_gone: int = 0
    gone: int = 0
    states: int = 0
    states_right: int = 0
    joined: int = 0
    joined_found: int = 0
    sizes: int = 0
    sizes_mm: float = 0.0
    categories: int = 0
    categories_right: int = 0

    def __add__(self, other: Scores) -> Scores:
        """The sums of both."""
        return Scores(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Scores)})

    def as_dict(self) -> dict[str, Any]:
        """Counts and ratios, ready for JSON; a ratio with denominator 0 is None."""

        def share(part: float, whole: float) -> float | None:
            return part / whole if whole else None

        return {
            **asdict(self),
            "correct_partner": share(self.partners, self.present),
            "links_f1": share(2 * self.links_right, self.links_true + self.links_found),
            "wrong_disappeared": share(self.called_gone, self.existing),
            "state_right": share(self.states_right, self.states),
            "splits_and_merges_found": share(self.joined_found, self.joined),
            "diameter_error_mm": share(self.sizes_mm, self.sizes),
            "category_right": share(self.categories_right, self.categories),
        }


def score(patient: LongitudinalPatient, found: FollowUp) -> tuple[Scores, list[str]]:
    """Compare a tracking result with the ground truth.

    Args:
        patient: The scans and the ground truth.
        found: The tracking result.

    Returns:
        The counts, and one sentence for each error.
    """
    times = range(len(patient.scans))
    identity = _identities(patient, found)
    counts = dict.fromkeys((f.name for f in fields(Scores)), 0.0)
    wrong = []
    for i, own in enumerate(patient.labels):
        seen = [k for k in times if own[k]]
        first = seen[0]
        for k in range(first + 1, len(own)):
            row = found.course.rows.get((identity[i], k)) if identity[i] else None
            got = set() if row is None else {int(x) for x in found.labels(row).split("+") if x}
            state = patient.states[i, k]
            right_parts, right_state = got == set(own[k]), row is not None and row.state == state
            if own[k]:
                counts["present"] += 1
                counts["partners"] += right_parts
            if state != "disappeared":
                counts["existing"] += 1
                counts["called_gone"] += row is not None and row.state == "disappeared"
            if state in ("split", "merged"):
                counts["joined"] += 1
                counts["joined_found"] += right_parts and right_state
            counts["states"] += 1
            counts["states_right"] += right_state
            if own[k] and right_parts and row is not None:
                counts["sizes"] += row.carries_sizes
                counts["sizes_mm"] += _size_error(found, row, own[k], k)
            if not (right_parts and right_state):
                now = "nothing" if row is None else f"{row.state} {found.labels(row)} ({row.verdict}: {row.reason})"
                truth = f"{state} {'+'.join(map(str, own[k]))}"
                wrong.append(f"{patient.name} lesion {i} {patient.fates[i]} at {k}: {truth}; found {now}")
        if first > 0:
            counts["states"] += 1
            row = found.course.rows.get((identity[i], first)) if identity[i] else None
            right = row is not None and row.state == "new"
            counts["states_right"] += right
            if not right:
                now = "nothing" if row is None else f"{row.state} ({row.reason})"
                wrong.append(f"{patient.name} lesion {i} new at {first}: found {now}")
    counts["gone"] = sum(row.state == "disappeared" for row in found.course.rows.values())
    truth_links = _true_links(patient)
    found_links = _found_links(found)
    counts["links_true"], counts["links_found"] = len(truth_links), len(found_links)
    counts["links_right"] = len(truth_links & found_links)
    for k, right in enumerate(_categories(patient, found), start=1):
        counts["categories"] += 1
        counts["categories_right"] += right
        if not right:
            wrong.append(f"{patient.name}: another RECIST category at {k}")
    return Scores(**{name: value if name == "sizes_mm" else int(value) for name, value in counts.items()}), wrong  # type: ignore[arg-type]


def _identities(patient: LongitudinalPatient, found: FollowUp) -> list[str]:
    """The lesion in the result that corresponds to each true lesion, by its label at its first appearance."""
    result = []
    for own in patient.labels:
        first = next(k for k, labels in enumerate(own) if labels)
        name = ""
        for row in found.at(first):
            if str(own[first][0]) in found.labels(row).split("+"):
                name = row.lesion
        result.append(name)
    return result


def _true_links(patient: LongitudinalPatient) -> set[tuple[int, int, int, int]]:
    return _links([[tuple(labels) for labels in own] for own in patient.labels])


def _found_links(found: FollowUp) -> set[tuple[int, int, int, int]]:
    times = range(len(found.time_points))
    rows = [[found.course.rows.get((name, k)) for k in times] for name in found.lesions]
    return _links(
        [[() if r is None else tuple(int(x) for x in found.labels(r).split("+") if x) for r in row] for row in rows]
    )


def _links(lesions: Sequence[Sequence[tuple[int, ...]]]) -> set[tuple[int, int, int, int]]:
    """All pairs of parts of one lesion at two time points: (earlier time point, label, later time point, label)."""
    return {
        (s, a, k, b)
        for own in lesions
        for s in range(len(own))
        for k in range(s + 1, len(own))
        for a in own[s]
        for b in own[k]
    }


def _size_error(found: FollowUp, row: Observation, labels: Sequence[int], k: int) -> float:
    """Absolute difference between reported and true longest diameter, mm; 0 if none is reported or measurable."""
    sizes, scan = found.sizes(row), found.time_points[k].lesions
    if sizes is None or isinstance(scan, str):
        return 0.0
    true = sum(c.measures.long_mm for c in scan.items if c.measures is not None and int(c.label) in labels)
    return abs(sizes.long_mm - true)


def _categories(patient: LongitudinalPatient, found: FollowUp) -> list[bool]:
    """Whether the RECIST category of each later time point equals that from true links, for the largest lesions."""
    first = found.scans[0]
    assert isinstance(first, Candidates)
    at_baseline = [i for i, own in enumerate(patient.labels) if own[0]]
    size = {
        i: next(c.measures.long_mm for c in first.items if c.label == str(patient.labels[i][0][0]) and c.measures)
        for i in at_baseline
    }
    chosen = sorted(at_baseline, key=lambda i: -size[i])[:TARGETS]
    identity = _identities(patient, found)
    kinds = {identity[i]: ("target", "") for i in chosen}
    truth = _true_course(patient, found.scans, identity)
    answers = [assess(visits(course, found.scans, kinds, {})) for course in (truth, found.course)]
    return [a.overall == b.overall for a, b in zip(answers[0][1:], answers[1][1:], strict=True)]


def _true_course(patient: LongitudinalPatient, scans: Sequence[Candidates | str], identity: Sequence[str]) -> Course:
    """The ground truth in the form of a result; lesions that appear later get unique names."""
    course = Course()
    names = [
        name if own[0] else str(10_000 + i) for i, (name, own) in enumerate(zip(identity, patient.labels, strict=True))
    ]
    for i, own in enumerate(patient.labels):
        for k, labels in enumerate(own):
            state = patient.states.get((i, k))
            scan = scans[k]
            if state is None or isinstance(scan, str):
                continue
            parts = tuple(j for j, item in enumerate(scan.items) if int(item.label) in labels)
            others = tuple(
                names[n] for n, other in enumerate(patient.labels) if n != i and labels and set(other[k]) & set(labels)
            )
            place = np.asarray(patient.centers[i, k])
            course.add(Observation(names[i], k, state, parts, place, "ok", "", (), others))  # type: ignore[arg-type]
    return course
