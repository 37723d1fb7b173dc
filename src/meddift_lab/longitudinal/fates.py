"""The courses of simulated lesions: size and number of parts at each time point, independent of the anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Fate = Literal["stable", "grown", "shrunken", "gone", "new", "split", "merging", "outside"]

#: Possible courses of a lesion. Two "merging" lesions are neighbours that become one.
FATES: tuple[Fate, ...] = ("stable", "grown", "shrunken", "gone", "new", "split", "merging", "outside")
#: Distance between the centres of neighbouring lesions, mm.
CLOSE_MM = 13.0


@dataclass(frozen=True)
class Course:
    """The course of one lesion over time.

    Attributes:
        fate: Kind of course, one of `FATES`.
        radii_mm: Radius at each time point, mm; None where the lesion is absent.
        split_at: First time point at which it consists of two parts; None = never.
        merged_at: First time point at which it is merged with its neighbour; None = never.
        neighbour: Index of the lesion at a distance of `CLOSE_MM`, or None.
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
    """Random courses that contain every fate at least once.

    Args:
        generator: Source of randomness.
        times: Number of time points.
        outside: Whether one lesion lies outside the field of view of a later scan.
        radius_mm: Smallest and largest radius.
        more: Number of further lesions that are stable, grow or shrink.

    Returns:
        One course for each lesion.
    """
    low, high = radius_mm

    def radius(least: float = low, most: float = high) -> float:
        return float(np.exp(generator.uniform(np.log(least), np.log(most))))

    def steady(factor: float, start: float) -> tuple[float | None, ...]:
        """Radii from `start` to `factor * start` with a constant ratio between time points, mm."""
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
    for other in (first + 1, first):  # neighbours that do not merge
        courses.append(Course("stable", steady(1.0, float(generator.uniform(4.0, 5.0))), neighbour=other))
    first = len(courses)
    courses.append(Course("stable", steady(1.0, float(generator.uniform(4.0, 5.0))), neighbour=first + 1))
    gone = tuple(4.5 if k < times - 1 else None for k in range(times))
    courses.append(Course("gone", gone, neighbour=first))  # disappears beside a stable neighbour
    if outside:
        courses.append(Course("outside", steady(1.0, radius(low, 8.0))))
    for _ in range(more):
        factor = float(generator.choice([1.0, 1.6, 1 / 1.6]))
        fate: Fate = "stable" if factor == 1.0 else "grown" if factor > 1 else "shrunken"
        courses.append(Course(fate, steady(factor, radius())))
    return courses


def largest(courses: Sequence[Course]) -> float:
    """The largest radius of any lesion at any time point, mm."""
    return max(radius for course in courses for radius in course.radii_mm if radius is not None)
