"""What is known about one lesion at one time point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: How a lesion stands at a time point; "split": seen here in several parts; "merged": seen here as one with others;
#: "outside": its place is not in this field of view; "uncertain": cannot be said.
State = Literal["baseline", "matched", "new", "disappeared", "split", "merged", "outside", "uncertain"]
#: What a person has said about a row.
Review = Literal["proposed", "confirmed", "corrected", "rejected"]
#: From which scan a lesion was carried: the first in which it was seen, the last before this one, or this one back.
Route = Literal["baseline", "previous", "back", "person"]


@dataclass(frozen=True)
class Link:
    """From a lesion of an earlier scan to what was found in this one.

    Attributes:
        route: Which way it was found.
        source: Number of the earlier time point.
        source_label: What the lesion is called there.
        label: What it is called here.
        cost_mm: Cost of the link, or NaN where a person made it.
        distance_mm: Between the place expected and the middle found, or NaN.
        overlap: Dice coefficient of expected and found, 2 mm tolerance, or NaN.
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
        lesion: Its identity: a whole number as text, the same through time.
        timepoint: Number of the time point, in order of time.
        state: How it stands.
        parts: Numbers of the candidates that it is made of; empty where none is.
        place: (3,) float64, its middle, or where it would be; world RAS mm, NaN where that is not known.
        verdict: How sure that is: "ok", "uncertain" or "outside".
        reason: Why, in words.
        links: Where it comes from.
        shared_with: Other lesions with the same parts (merged); the first by number carries the sizes.
        review: What a person has said.
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
        """Whether sizes of its parts count for it: of merged lesions only one counts."""
        return bool(self.parts) and all(int(self.lesion) < int(other) for other in self.shared_with)


@dataclass(frozen=True)
class Decision:
    """What a person has said about one lesion at one time point.

    Attributes:
        lesion: Its identity.
        timepoint: Number of the time point.
        labels: What it is called there; empty where it is not there.
        state: As in the reviewed table.
        review: "confirmed" or "corrected" are kept as they are; "rejected" forbids the link; "proposed" says nothing
            but the number of the lesion.
    """

    lesion: str
    timepoint: int
    labels: tuple[str, ...]
    state: State
    review: Review


@dataclass
class Course:
    """All observations, while they are being made.

    Attributes:
        rows: (lesion, time point) -> observation.
        order: Lesions in the order in which they were first seen.
        reserved: Numbers that are not given to lesions found anew.
    """

    rows: dict[tuple[str, int], Observation] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    reserved: set[str] = field(default_factory=set)

    def add(self, row: Observation) -> None:
        """Write down an observation; a later one of the same lesion and time point takes its place."""
        if row.lesion not in self.order:
            self.order.append(row.lesion)
        self.rows[row.lesion, row.timepoint] = row

    def seen(self, lesion: str, before: int) -> list[Observation]:
        """Time points at which a lesion was there, in order."""
        found = [self.rows.get((lesion, k)) for k in range(before)]
        return [row for row in found if row is not None and row.parts]

    def next_name(self) -> str:
        """A number that no lesion has yet."""
        return str(max((int(name) for name in (*self.order, *self.reserved)), default=0) + 1)
