"""Observations: the state of one lesion at one time point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: State of a lesion at a time point. "split": in several parts; "merged": one mass together with other lesions;
#: "outside": its position is outside the field of view; "uncertain": undetermined.
State = Literal["baseline", "matched", "new", "disappeared", "split", "merged", "outside", "uncertain"]
#: Decision of a person about a row.
Review = Literal["proposed", "confirmed", "corrected", "rejected"]
#: How a lesion was linked: mapped from the first scan in which it was seen ("baseline") or from the last before this
#: one ("previous"), mapped back from this scan ("back"), or by a person.
Route = Literal["baseline", "previous", "back", "person"]


@dataclass(frozen=True)
class Link:
    """A link from a lesion of an earlier scan to a candidate of this one.

    Attributes:
        route: How the lesion was linked.
        source: Number of the earlier time point.
        source_label: Label of the lesion in the earlier scan.
        label: Label of the candidate in this scan.
        cost_mm: Cost of the link, mm; NaN if a person made it.
        distance_mm: Distance between expected position and centre of the candidate, mm, or NaN.
        overlap: Dice coefficient of expected lesion and candidate with a tolerance of 2 mm, or NaN.
    """

    route: Route
    source: int
    source_label: str
    label: str
    cost_mm: float = float("nan")
    distance_mm: float = float("nan")
    overlap: float = float("nan")


@dataclass(frozen=True, eq=False)
class Observation:
    """One lesion at one time point.

    Attributes:
        lesion: Identity of the lesion: a whole number as text, the same at all time points.
        timepoint: Number of the time point, in order of time from 0.
        state: State of the lesion.
        parts: Numbers of the candidates that the lesion consists of; empty if it is absent.
        place: (3,) float64, its centre or expected position, world RAS mm; NaN if unknown.
        verdict: Reliability of the position: "ok", "uncertain" or "outside".
        reason: Reason for state and verdict, in words.
        links: Links to earlier scans.
        shared_with: Other lesions that consist of the same parts (merged); sizes count for the first by number.
        review: Decision of a person.
    """

    lesion: str
    timepoint: int
    state: State
    parts: tuple[int, ...]
    place: NDArray[np.float64]
    verdict: str
    reason: str
    links: tuple[Link, ...] = ()
    shared_with: tuple[str, ...] = ()
    review: Review = "proposed"

    @property
    def carries_sizes(self) -> bool:
        """Whether the sizes of its parts count for this lesion; of merged lesions they count for one only."""
        return bool(self.parts) and all(int(self.lesion) < int(other) for other in self.shared_with)


@dataclass(frozen=True)
class Decision:
    """The decision of a person about one lesion at one time point.

    Attributes:
        lesion: Identity of the lesion.
        timepoint: Number of the time point.
        labels: Its labels in that scan; empty if it is absent.
        state: State in the reviewed table.
        review: "confirmed" and "corrected" rows are kept; "rejected" forbids the link; "proposed" only keeps the
            number of the lesion.
    """

    lesion: str
    timepoint: int
    labels: tuple[str, ...]
    state: State
    review: Review


@dataclass
class Course:
    """All observations of a patient, collected while lesions are followed.

    Attributes:
        rows: (lesion, time point) -> observation.
        order: Lesions in the order of their first appearance.
        reserved: Numbers that must not be given to new lesions.
    """

    rows: dict[tuple[str, int], Observation] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    reserved: set[str] = field(default_factory=set)

    def add(self, row: Observation) -> None:
        """Add an observation; it replaces an earlier one of the same lesion and time point."""
        if row.lesion not in self.order:
            self.order.append(row.lesion)
        self.rows[row.lesion, row.timepoint] = row

    def seen(self, lesion: str, before: int) -> list[Observation]:
        """Observations with parts of a lesion before a time point, in order of time."""
        found = [self.rows.get((lesion, k)) for k in range(before)]
        return [row for row in found if row is not None and row.parts]

    def next_name(self) -> str:
        """A number for a new lesion: one more than the largest that is used or reserved."""
        return str(max((int(name) for name in (*self.order, *self.reserved)), default=0) + 1)
