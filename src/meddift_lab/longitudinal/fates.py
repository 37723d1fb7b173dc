"""What becomes of lesions: sizes and parts at every time point, decided before any anatomy is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Fate = Literal["stable", "grown", "shrunken", "gone", "new", "split", "merging", "outside"]

#: Lesions of one patient: kind by kind. Two "merging" are neighbours that become one; "close" ones stay two.
FATES: tuple[Fate, ...] = ("stable", "grown", "shrunken", "gone", "new", "split", "merging", "outside")
#: How far apart neighbours lie, mm.
CLOSE_MM = 13.0


@dataclass(frozen=True)
class Course:
    """One lesion through time.

    Attributes:
        fate: In one word.
        radii_mm: One for each time point; None where it is not there.
        split_at: From which time point on it is in two parts; None = never.
        merged_at: From which time point on it is one with its neighbour; None = never.
        neighbour: Number of the lesion `CLOSE_MM` from it, or None.
    """

    fate: Fate
    radii_mm: tuple[float | None, ...]
    split_at: int | None = None
    merged_at: int | None = None
    neighbour: int | None = None


def random_courses(
    generator: np.random.Generator,
    *,
    times: int,
    outside: bool = True,
    radius_mm: tuple[float, float] = (4.0, 15.0),
    more: int = 4,
) -> list[Course]:
    """Lesions with every fate.

    Args:
        generator: Source of chance.
        times: Number of time points.
        outside: Whether one lies where a later scan does not reach.
        radius_mm: Smallest and largest radius.
        more: Further lesions that stay, grow or shrink.
    """
    low, high = radius_mm

    def radius(least: float = low, most: float = high) -> float:
        return float(np.exp(generator.uniform(np.log(least), np.log(most))))

    def steady(factor: float, start: float) -> tuple[float | None, ...]:
        """From `start` to `factor` times that, evenly."""
        return tuple(float(np.clip(start * factor ** (k / (times - 1)), low, high)) for k in range(times))

    courses = [
        Course("stable", steady(1.0, radius())),
        Course("grown", steady(generator.uniform(1.5, 2.2), radius(low, high / 2))),
        Course("shrunken", steady(1 / generator.uniform(1.5, 2.2), radius(2 * low, high))),
    ]
    at = int(generator.integers(1, times))
    courses.append(Course("gone", tuple(r if k < at else None for k, r in enumerate(steady(1.0, radius())))))
    at = int(generator.integers(1, times))
    courses.append(Course("new", tuple(r if k >= at else None for k, r in enumerate(steady(1.0, radius(low, 10.0))))))
    courses.append(
        Course("split", steady(1.0, radius(9.0, max(high, 10.0))), split_at=int(generator.integers(1, times)))
    )
    at = int(generator.integers(1, times))
    first = len(courses)
    for other in (first + 1, first):
        radii = tuple(float(generator.uniform(4.0, 5.0)) if k < at else 8.0 for k in range(times))
        courses.append(Course("merging", radii, merged_at=at, neighbour=other))
    first = len(courses)
    for other in (first + 1, first):  # neighbours that stay two
        courses.append(Course("stable", steady(1.0, float(generator.uniform(4.0, 5.0))), neighbour=other))
    first = len(courses)
    courses.append(Course("stable", steady(1.0, float(generator.uniform(4.0, 5.0))), neighbour=first + 1))
    gone = tuple(4.5 if k < times - 1 else None for k in range(times))
    courses.append(Course("gone", gone, neighbour=first))  # a small one that vanishes beside one that stays
    if outside:
        courses.append(Course("outside", steady(1.0, radius(low, 8.0))))
    for _ in range(more):
        factor = float(generator.choice([1.0, 1.6, 1 / 1.6]))
        fate: Fate = "stable" if factor == 1.0 else "grown" if factor > 1 else "shrunken"
        courses.append(Course(fate, steady(factor, radius())))
    return courses


def largest(courses: Sequence[Course]) -> float:
    """The largest radius of any, mm."""
    return max(radius for course in courses for radius in course.radii_mm if radius is not None)
