"""A smooth random world that can be scanned on any grid, before and after any known transform."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from meddift.geometry import Grid
from meddift.volume import Volume

#: Edge of the world's own voxels, mm, and their number along each axis.
_SPACING, _COUNT = 2.0, 84


@cache
def _world(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    total = np.zeros((_COUNT,) * 3)
    for width, weight in ((1.2, 0.6), (2.5, 1.0), (5.0, 1.2)):
        smooth = ndimage.gaussian_filter(generator.standard_normal(total.shape), width)
        total += weight * smooth / smooth.std()
    return ndimage.spline_filter(250 * total / total.std(), order=3)


def scan(grid: Grid, transform=None, *, seed: int = 0) -> Volume:
    """The world in HU on a grid: cubic splines at every voxel centre, so that no voxel is resampled twice.

    Args:
        grid: Within 84 mm of the origin along each axis.
        transform: Takes positions of the grid's world to the textured world; None takes them as they are.
        seed: Which world.
    """
    positions = grid.voxel_centers().reshape(-1, 3)
    if transform is not None:
        positions = transform.apply(positions)
    index = positions / _SPACING + (_COUNT - 1) / 2
    values = ndimage.map_coordinates(_world(seed), index.T, order=3, prefilter=False, mode="nearest")
    return Volume(values.reshape(grid.shape).astype(np.float32), grid)


def lattice(shape, spacing=(2.0, 2.0, 2.0), center=(0.0, 0.0, 0.0), turn=None) -> Grid:
    """A grid around a place."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else np.asarray(turn)) * np.asarray(spacing)
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)
