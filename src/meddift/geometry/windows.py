"""Boxes and balls of voxels around points."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.geometry.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor


def steps_of(grid: Grid, length_mm: float) -> NDArray[np.int64]:
    """(3,) int64, a length in whole voxels along each axis, rounded, at least 1."""
    return np.asarray(np.maximum(1, np.rint(grid.in_voxels(length_mm))), dtype=np.int64)


def ball_offsets(grid: Grid, radius_mm: float, *, step: NDArray[np.int64] | int = 1) -> NDArray[np.int64]:
    """(K, 3) int64, offsets in voxels of a ball: every `step`-th along each axis, 0 included."""
    steps = np.broadcast_to(np.asarray(step, dtype=np.int64), (3,))
    sides = [np.arange(-n, n + 1) for n in np.floor(grid.in_voxels(radius_mm) / steps + 1e-6).astype(int)]
    ball = np.array(list(product(*sides)), dtype=np.int64) * steps
    return np.asarray(ball[np.linalg.norm(ball * grid.spacing, axis=1) <= radius_mm + 1e-6])


def box_within(grid: Grid, other: Grid) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The voxels of a grid whose centres lie in the field of view of another with the same axes.

    Args:
        grid: A resized and padded version of `other`.
        other: The grid of a scan.

    Returns:
        First voxel and shape of the box, for `Grid.cropped`. Along an axis where no centre lies inside, as for scans
        thinner than a voxel, the voxel closest to the middle of `other`.
    """
    start, shape = [], []
    middle = grid.world_to_index(other.center)
    for axis in range(3):
        line = np.tile(middle, (grid.shape[axis], 1))
        line[:, axis] = np.arange(grid.shape[axis])
        inside = np.flatnonzero(other.contains(grid.index_to_world(line)))
        if len(inside) == 0:
            inside = np.clip(np.rint(middle[axis : axis + 1]), 0, grid.shape[axis] - 1).astype(np.int64)
        start.append(int(inside[0]))
        shape.append(int(inside[-1] - inside[0] + 1))
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def windows_around(
    grid: Grid, positions: NDArray[np.float64], radius_mm: float
) -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """The smallest windows of one shape that contain all voxels within a radius, shifted to lie inside the grid.

    Args:
        grid: The grid.
        positions: (N, 3) float64, world RAS mm.
        radius_mm: Radius of the ball, mm.

    Returns:
        (N, 3) int64, the first voxel of each window, and their common shape.
    """
    reach = np.ceil(grid.in_voxels(radius_mm)).astype(np.int64)
    shape = np.minimum(2 * reach + 1, grid.shape)
    center = np.round(grid.world_to_index(positions)).astype(np.int64)
    start = np.clip(center - reach, 0, np.asarray(grid.shape) - shape)
    return start, (int(shape[0]), int(shape[1]), int(shape[2]))


def window_distances(grid: Grid, places: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Distances of the voxels of windows from one point in each window.

    Args:
        grid: The grid, whose axes are taken as orthogonal.
        places: (N, 3) float, position of the point in each window, voxels from its first voxel.
        shape: Shape of all windows, voxels.

    Returns:
        (N, n0, n1, n2) float32, mm, on the device of `places`.
    """
    import torch

    x, y, z = (
        ((torch.arange(n, dtype=torch.float64, device=places.device) - place[:, None]) * float(step)).square().float()
        for n, place, step in zip(shape, places.unbind(dim=1), grid.spacing, strict=True)
    )
    return (x[:, :, None, None] + y[:, None, :, None] + z[:, None, None]).sqrt_()
