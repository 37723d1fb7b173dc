"""Carrying images and label maps through a transform."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid, Transform
from meddift.volume import Volume


def warp_volume(volume: Volume, transform: Transform, grid: Grid, *, fill: float | None = None) -> Volume:
    """An image as it looks from the other scan: at every voxel of `grid` what lies where the transform takes it.

    Args:
        volume: (X, Y, Z) image in the world that `transform` leads to.
        transform: Takes points of the world of `grid` to points of the world of `volume`. To bring the moving scan
            onto the fixed one, that is the transform of a registration itself; for the other way its inverse.
        grid: Where values are wanted.
        fill: What stands where `volume` shows nothing; None = its least value (air, in CT).

    Returns:
        Volume on `grid`, of the type of `volume`: trilinear, rounded for integers.
    """
    value = float(volume.data.min()) if fill is None else fill
    return _warped(volume, transform, grid, order=1, fill=value)


def warp_labels(volume: Volume, transform: Transform, grid: Grid, *, fill: int = 0) -> Volume:
    """A label map as it looks from the other scan; every label stays what it is (nearest neighbour).

    Args:
        volume: (X, Y, Z) of integers, or of floats that are whole numbers.
        transform: As for `warp_volume`.
        grid: Where labels are wanted.
        fill: What stands where `volume` shows nothing.
    """
    return _warped(volume, transform, grid, order=0, fill=float(fill))


def _warped(volume: Volume, transform: Transform, grid: Grid, *, order: int, fill: float) -> Volume:
    from scipy import ndimage

    result: NDArray[Any] = np.empty(grid.shape, dtype=volume.data.dtype)
    data = volume.data.astype(np.float32) if order else volume.data
    for i, centres in enumerate(grid.planes()):
        moved = transform.apply(centres.reshape(-1, 3))
        index = volume.grid.world_to_index(moved)
        if order:
            values = ndimage.map_coordinates(data, index.T, order=1, mode="nearest")
        else:
            nearest = np.clip(np.rint(index), 0, np.asarray(volume.grid.shape) - 1).astype(np.int64)
            values = data[tuple(nearest.T)]
        values = np.where(volume.grid.contains(moved), values, fill)
        if np.issubdtype(result.dtype, np.integer):
            values = np.rint(values)
        result[i] = values.reshape(grid.shape[1:])
    return Volume(result, grid)
