"""How well lesions were followed, against the truth."""

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

#: So many of the largest lesions at baseline are taken as targets of RECIST.
TARGETS = 5


@dataclass(frozen=True)
class Scores:
    """Counts over lesions and time points; they add up over patients.

    Attributes:
        present: Lesions seen first and at a later time point, counted once a later time point.
        partners: Of these, those whose partners in the later scan are exactly the right ones.
        links_true: Pairs of labels of two scans that are one lesion in truth.
        links_found: Those that were found to be one lesion.
        links_right: Those that are both.
        called_gone: Lesions that are there but were called disappeared.
        gone: Lesions called disappeared.
        states: Rows whose state is compared.
        states_right: Those whose state is right.
        joined: Splits and merges in truth.
        joined_found: Those with the right parts and the right state.
        sizes: Longest diameters compared.
        sizes_mm: Sum of their absolute differences, mm.
        categories: Time points with a RECIST category.
        categories_right: Those whose category is as from true links.
    """

    present: int = 0
    partners: int = 0
    links_true: int = 0
    links_found: int = 0
    links_right: int = 0
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
        """Over both."""
        return Scores(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Scores)})

    def as_dict(self) -> dict[str, Any]:
        """Counts and shares, ready for JSON; a share of nothing is None."""

        def share(part: float, whole: float) -> float | None:
            return part / whole if whole else None

        return {
            **asdict(self),
            "correct_partner": share(self.partners, self.present),
            "links_f1": share(2 * self.links_right, self.links_true + self.links_found),
            "wrong_disappeared": share(self.called_gone, self.present),
            "state_right": share(self.states_right, self.states),
            "splits_and_merges_found": share(self.joined_found, self.joined),
            "diameter_error_mm": share(self.sizes_mm, self.sizes),
            "category_right": share(self.categories_right, self.categories),
        }


def score(patient: LongitudinalPatient, found: FollowUp) -> tuple[Scores, list[str]]:
    """Compare with the truth.

    Returns:
        The counts, and one sentence for each lesion and time point that is wrong.
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
    """Which lesion of the answer each true lesion is, by its label where it is first seen."""
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
    """Earlier time point, its label, later time point, its label: of every two parts of one lesion."""
    return {
        (s, a, k, b)
        for own in lesions
        for s in range(len(own))
        for k in range(s + 1, len(own))
        for a in own[s]
        for b in own[k]
    }


def _size_error(found: FollowUp, row: Observation, labels: Sequence[int], k: int) -> float:
    """Between the longest diameter told and that of the true masks, mm; 0 where another lesion has the size."""
    sizes, scan = found.sizes(row), found.time_points[k].lesions
    if sizes is None or isinstance(scan, str):
        return 0.0
    true = sum(c.measures.long_mm for c in scan.items if c.measures is not None and int(c.label) in labels)
    return abs(sizes.long_mm - true)


def _categories(patient: LongitudinalPatient, found: FollowUp) -> list[bool]:
    """Whether the RECIST category of each later time point is as from true links, for the largest lesions."""
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
    """The truth in the form of an answer; lesions first seen later get numbers that no other has."""
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
