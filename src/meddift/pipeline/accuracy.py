"""How far found points are from the truth, and what about those that have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.geometry import Grid
from meddift.matching.matches import Matches
from meddift.points import Points

#: Distances for which the share of points found within them is told, mm.
WITHIN_MM = (2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Errors:
    """Target registration error (TRE): distances between found and true points, as the challenges report them.

    Attributes:
        n: Number of points with a true place.
        unanswered: How many of them got no answer.
        mean: mm, over the points that got an answer; None if none did.
        median: mm, likewise.
        p95: mm, likewise; 95th percentile, linear between neighbours.
        max: mm, likewise.
        within: Distance in mm -> share, 0 to 1, of all `n` points found within it (a point without an answer was not);
            None without points.
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
        """Sum up (N,) distances in mm; NaN where a point got no answer."""
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
        """For JSON; lengths in mm."""
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
    """Matches against the truth.

    Attributes:
        all: Over the points whose truth lies inside the moving scan.
        ok: Over those of them with the verdict "ok".
        distances: (N,) float64, mm, one a point; NaN without an answer, or where the truth is unknown.
        absent: Number of points whose true place lies outside the moving scan: they have no counterpart there.
        absent_called_ok: How many of those got the verdict "ok" all the same.
    """

    all: Errors
    ok: Errors
    distances: NDArray[np.float64]
    absent: int
    absent_called_ok: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `tre_mm` over all points with a known place, `tre_ok_mm`, and `truth_outside_moving`."""
        outside = {"n": self.absent, "called_ok": self.absent_called_ok}
        return {"tre_mm": self.all.as_dict(), "tre_ok_mm": self.ok.as_dict(), "truth_outside_moving": outside}


def measure_accuracy(matches: Matches, truth: Points, moving: Grid) -> Accuracy:
    """Compare matches with where the points really are.

    Args:
        matches: What was found.
        truth: True places on the moving scan, world RAS mm, in the order of the matches (see `align_truth`).
            A missing one is not known and does not count.
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
    """The true points in the order of the points that were looked for.

    By label where all labels are different and the truth has every one; row by row where the numbers agree and the
    two have no label in common (as between files of other programs).

    Raises:
        PointsError: if neither holds: then it cannot be told which true point belongs to which.
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
