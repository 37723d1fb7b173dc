"""Target registration error (TRE) of one case: distances in mm between found and true points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.geometry import Grid
from meddift.points import Points

Floats = NDArray[np.float64]


def target_errors(found: Points, truth: Points) -> Floats:
    """Distance of each found point from its true position.

    Args:
        found: N points on the moving scan, world RAS mm; missing where no match was found.
        truth: Their true positions in the same order, world RAS mm.

    Returns:
        (N,) float64, mm; NaN where no match was found.

    Raises:
        PointsError: if the numbers of points differ, or a true position is missing.
    """
    if len(found) != len(truth):
        raise PointsError(f"{len(found)} found points cannot be compared with {len(truth)} true ones")
    if truth.missing.any():
        label = truth.labels[int(truth.missing.argmax())]
        raise PointsError(f"the true place of point {label!r} is missing; leave out points without truth")
    return np.asarray(np.linalg.norm(found.positions - truth.positions, axis=1), dtype=np.float64)


def snapped_to_voxels(points: Points, grid: Grid) -> Points:
    """Move points to the centres of their voxels, as a method without subvoxel precision would give them.

    Args:
        points: Points on the moving scan, world RAS mm.
        grid: Grid of the moving scan.
    """
    return Points(grid.index_to_world(np.rint(grid.world_to_index(points.positions))), points.labels)
