"""How a transform stretches volume: its Jacobian determinant, folding, and how uneven it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import DisplacementField, Grid, Transform
from meddift.volume import Volume

#: Determinants below this are clipped before the logarithm, so that folds do not make SDlogJ infinite.
SMALLEST_DETERMINANT = 1e-3


def jacobian_determinant(field: DisplacementField) -> Volume:
    """Volume change by a displacement field: 1 keeps, 2 doubles, 0 or less folds.

    Central differences between neighbouring voxels, one-sided at the border.

    Args:
        field: Displacements, world RAS mm.

    Returns:
        (X, Y, Z) float32 on the lattice of the field.
    """
    slopes = np.empty((*field.grid.shape, 3, 3), dtype=np.float32)
    for axis in range(3):
        if field.grid.shape[axis] > 1:
            slopes[..., axis] = np.moveaxis(np.gradient(field.displacement, axis=axis + 1), 0, -1)
        else:
            slopes[..., axis] = 0
    matrix = slopes @ field.grid.inverse[:3, :3].astype(np.float32) + np.eye(3, dtype=np.float32)
    return Volume(np.linalg.det(matrix).astype(np.float32), field.grid)


def folding(determinant: NDArray[np.floating]) -> float:
    """Share, 0 to 1, of determinants that are not above 0."""
    return float((determinant <= 0).mean()) if determinant.size else 0.0


def sd_log_jacobian(determinant: NDArray[np.floating]) -> float:
    """Standard deviation of the logarithm of determinants, which are clipped at 0.001 (no 3 is added to them)."""
    if not determinant.size:
        return 0.0
    return float(np.log(np.clip(determinant, SMALLEST_DETERMINANT, None)).std())


def sampled(transform: Transform, grid: Grid) -> DisplacementField:
    """A transform as displacements at the voxels of a lattice; float32, plane by plane."""
    displacement = np.empty((3, *grid.shape), dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        moved = transform.apply(world.reshape(-1, 3)).reshape(world.shape)
        displacement[:, i] = np.moveaxis(moved - world, -1, 0)
    return DisplacementField(displacement, grid)


def working_lattice(grid: Grid) -> Grid:
    """A lattice over the same field of view, not finer than what deformations of a body need (3 mm)."""
    return grid.respaced(np.maximum(grid.spacing, 3.0).tolist())


def read_on(volume: Volume, grid: Grid) -> Volume:
    """A map on another lattice, float32: trilinear, plane by plane (all points at once would take a gigabyte)."""
    result = np.empty(grid.shape, dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        result[i] = volume.at(world.reshape(-1, 3)).reshape(world.shape[:2])
    return Volume(result, grid)
