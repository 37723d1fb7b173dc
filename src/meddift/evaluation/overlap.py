"""Overlap of label maps after a transform: Dice and the 95th percentile of the Hausdorff distance (MONAI)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError
from meddift.geometry import Grid, Transform
from meddift.volume import Volume

#: Planes of the fixed lattice that are worked on at a time.
_SLAB = 16


@dataclass(frozen=True)
class Overlap:
    """How well one label agrees.

    Attributes:
        label: Its number.
        dice: 0 to 1.
        hd95_mm: 95th percentile of the distances between both surfaces, the larger of the two directions, mm; None
            where the warped label is empty.
    """

    label: int
    dice: float
    hd95_mm: float | None


def warp_labels(labels: Volume, transform: Transform, grid: Grid) -> Volume:
    """A label map of the moving scan on the lattice of the fixed scan; nearest voxel, 0 outside the moving scan.

    Args:
        labels: (X, Y, Z) integers on the moving scan.
        transform: Takes fixed points to moving points.
        grid: Lattice of the fixed scan.
    """
    result: NDArray[np.int64] = np.zeros(grid.shape, dtype=np.int64)
    last = np.asarray(labels.grid.shape) - 1
    for start in range(0, grid.shape[0], _SLAB):
        stop = min(start + _SLAB, grid.shape[0])
        centers = grid.cropped([start, 0, 0], [stop - start, *grid.shape[1:]]).voxel_centers().reshape(-1, 3)
        index = np.rint(labels.grid.world_to_index(transform.apply(centers)))
        inside = (np.isfinite(index) & (index >= 0) & (index <= last)).all(axis=1)
        rows = index[inside].astype(np.int64)
        values = np.zeros(len(centers), dtype=np.int64)
        values[inside] = labels.data[rows[:, 0], rows[:, 1], rows[:, 2]]
        result[start:stop] = values.reshape(stop - start, *grid.shape[1:])
    return Volume(result, grid)


def measure_overlap(fixed: Volume, warped: Volume) -> tuple[Overlap, ...]:
    """Dice and HD95 of every label of the fixed map but 0.

    Args:
        fixed: (X, Y, Z) integers.
        warped: The moving map on the same lattice, see `warp_labels`.

    Returns:
        One row a label that the fixed map has, smallest first.

    Raises:
        GeometryError: if the two lie on different lattices.
    """
    if not fixed.grid.same_as(warped.grid):
        raise GeometryError(f"label maps on different lattices cannot be compared: {fixed.grid!r}, {warped.grid!r}")
    with warnings.catch_warnings():  # of MONAI's own parts that MONAI will change
        warnings.simplefilter("ignore")
        return tuple(_measure_label(fixed, warped, int(label)) for label in np.unique(fixed.data) if label != 0)


def _measure_label(fixed: Volume, warped: Volume, label: int) -> Overlap:
    """One label of two maps on the same lattice."""
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance

    one, other = (torch.from_numpy(np.asarray(v.data == label))[None, None].float() for v in (fixed, warped))
    dice = float(compute_dice(other, one)[0, 0])
    if not bool(other.any()):
        return Overlap(label, dice, None)
    spacing = [float(s) for s in fixed.grid.spacing]
    return Overlap(label, dice, float(compute_hausdorff_distance(other, one, percentile=95, spacing=spacing)[0, 0]))
