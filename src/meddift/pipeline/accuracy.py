"""Accuracy of matches against known true positions: target registration errors, and points without a counterpart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.geometry import Grid
from meddift.matching.matches import Matches
from meddift.points import Points

#: Distances, mm, for which the share of points found within them is reported.
WITHIN_MM = (2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Errors:
    """Summary of target registration errors (TRE): distances between found and true positions.

    Attributes:
        n: Number of points with a true position.
        unanswered: Number of those for which no position was found.
        mean: Mean error over the points that were found, mm; None if none was.
        median: Median error over the same points, mm; None if none was found.
        p95: 95th percentile over the same points, mm, interpolated linearly; None if none was found.
        max: Largest error over the same points, mm; None if none was found.
        within: Pairs of a distance in mm and the share, 0 to 1, of all `n` points found within it. A point that was
            not found counts as not within; the share is None where `n` is 0.
    """

    n: int
    unanswered: int
    mean: float | None
    median: float | None
    p95: float | None
    max: float | None
    within: tuple[tuple[float, float | None], ...]

    @classmethod
    def of(cls, distances: NDArray[np.floating]) -> Errors:
        """Summarise errors.

        Args:
            distances: (N,) float, mm; NaN where a point was not found.
        """
        answered = distances[~np.isnan(distances)]
        n = len(distances)
        within = tuple((limit, float((answered <= limit).sum() / n) if n else None) for limit in WITHIN_MM)
        if not len(answered):
            return cls(n, n, None, None, None, None, within)
        return cls(
            n=n,
            unanswered=n - len(answered),
            mean=float(answered.mean()),
            median=float(np.median(answered)),
            p95=float(np.percentile(answered, 95)),
            max=float(answered.max()),
            within=within,
        )

    @property
    def within_5mm(self) -> float | None:
        """Share of all points found within 5 mm; None without points."""
        return dict(self.within)[5.0]

    def as_dict(self) -> dict[str, Any]:
        """The summary ready for JSON; lengths in mm."""
        return {
            "n": self.n,
            "unanswered": self.unanswered,
            "mean": self.mean,
            "median": self.median,
            "p95": self.p95,
            "max": self.max,
            **{f"within_{limit:g}mm": share for limit, share in self.within},
        }


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Matches compared with true positions.

    Attributes:
        all: Errors of the points whose true position lies inside the moving scan.
        ok: Errors of those among them with the verdict "ok".
        distances: (N,) float64, mm, one for each point; NaN where it was not found or its true position is unknown.
        absent: Number of points whose true position lies outside the moving scan, where they have no counterpart.
        absent_called_ok: Number of those that received the verdict "ok" nevertheless.
    """

    all: Errors
    ok: Errors
    distances: NDArray[np.float64]
    absent: int
    absent_called_ok: int

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON: `tre_mm` over all points with a known position, `tre_ok_mm`, and `truth_outside_moving`."""
        outside = {"n": self.absent, "called_ok": self.absent_called_ok}
        return {"tre_mm": self.all.as_dict(), "tre_ok_mm": self.ok.as_dict(), "truth_outside_moving": outside}


def measure_accuracy(matches: Matches, truth: Points, moving: Grid) -> Accuracy:
    """Compare matches with true positions.

    Args:
        matches: The matches.
        truth: True positions on the moving scan, world RAS mm, in the order of the matches (see `align_truth`).
            Points without a position are unknown and do not count.
        moving: Grid of the moving scan.

    Raises:
        PointsError: if the numbers of points differ.
    """
    if len(truth) != len(matches):
        raise PointsError(f"{len(matches)} matches cannot be compared with {len(truth)} true points")
    distances = np.linalg.norm(matches.moving.positions - truth.positions, axis=1)
    inside = moving.contains(truth.positions)
    absent = ~inside & ~truth.missing
    return Accuracy(
        all=Errors.of(distances[inside]),
        ok=Errors.of(distances[inside & matches.ok]),
        distances=distances,
        absent=int(absent.sum()),
        absent_called_ok=int((absent & matches.ok).sum()),
    )


def align_truth(points: Points, truth: Points) -> Points:
    """Put true points into the order of the points that were matched.

    They are assigned by label where all labels are unique and the truth has each of them; row by row where the
    numbers of points agree and the two sets share no label (as with files written by different programs).

    Args:
        points: N points on the fixed scan.
        truth: Points on the moving scan, world RAS mm.

    Returns:
        N points: the true position of each of `points`.

    Raises:
        PointsError: if neither rule applies, so that the assignment is ambiguous.
    """
    row = {label: i for i, label in enumerate(truth.labels)}
    if len(row) == len(truth) and len(set(points.labels)) == len(points) and row.keys() >= set(points.labels):
        return truth.subset([row[label] for label in points.labels])
    same_order = points.labels == truth.labels or not row.keys() & set(points.labels)
    if len(points) == len(truth) and same_order:
        return Points(truth.positions, points.labels)
    lacking = [label for label in points.labels if label not in row]
    if lacking:
        what = f"it has none labelled {', '.join(repr(label) for label in lacking[:5])}"
        what += ", ..." if len(lacking) > 5 else ""
    else:
        what = "its labels are not unique"
    raise PointsError(
        f"the {len(truth)} true points do not belong to the {len(points)} points: {what}. Give both the same labels, "
        f"or one true point for each point in the same order"
    )
