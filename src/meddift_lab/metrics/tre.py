"""Target registration error (TRE) of one case: distances in mm between found and true points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.geometry import Grid
from meddift.points import Points

Floats = NDArray[np.float64]

#: Distances for which the share of points found within them is told, mm.
WITHIN_MM = (2.0, 5.0, 10.0)


def target_errors(found: Points, truth: Points) -> Floats:
    """Distance of each found point from its true place.

    Args:
        found: N points on the moving scan, world RAS mm; missing where there was no answer.
        truth: Their true places in the same order, world RAS mm.

    Returns:
        (N,) float64, mm; NaN where there was no answer.

    Raises:
        PointsError: if the numbers of points differ, or a true place is missing.
    """
    if len(found) != len(truth):
        raise PointsError(f"{len(found)} found points cannot be compared with {len(truth)} true ones")
    if truth.missing.any():
        label = truth.labels[int(truth.missing.argmax())]
        raise PointsError(f"the true place of point {label!r} is missing; leave out points without truth")
    return np.asarray(np.linalg.norm(found.positions - truth.positions, axis=1), dtype=np.float64)


def snapped_to_voxels(points: Points, grid: Grid) -> Points:
    """The centres of the voxels in which points lie: what a method gives that answers in whole voxels.

    Args:
        points: World RAS mm.
        grid: Lattice of the moving scan.
    """
    return Points(grid.index_to_world(np.rint(grid.world_to_index(points.positions))), points.labels)


@dataclass(frozen=True)
class PointErrors:
    """TRE of one case, as the challenges report it.

    Attributes:
        n: Number of points with a true place.
        unanswered: How many of them got no answer.
        mean: mm, over the answers; None if there is none.
        median: mm, likewise.
        p95: mm, likewise; 95th percentile, linear between neighbours.
        max: mm, likewise.
        within: Distance in mm -> share, 0 to 1, of all `n` points found within it: no answer is not found.
    """

    n: int
    unanswered: int
    mean: float | None
    median: float | None
    p95: float | None
    max: float | None
    within: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, distances: NDArray[np.floating]) -> PointErrors:
        """Sum up (N,) distances in mm, N at least 1; NaN where there was no answer.

        Raises:
            PointsError: if there is no point at all.
        """
        n = len(distances)
        if n == 0:
            raise PointsError("there are no points to measure errors at")
        answered = distances[~np.isnan(distances)]
        within = tuple((limit, float((answered <= limit).sum() / n)) for limit in WITHIN_MM)
        if len(answered) == 0:
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

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV: one number each, named with its unit."""
        return {
            "n": self.n,
            "unanswered": self.unanswered,
            "mean_mm": self.mean,
            "median_mm": self.median,
            "p95_mm": self.p95,
            "max_mm": self.max,
            **{f"within_{limit:g}mm": share for limit, share in self.within},
        }
