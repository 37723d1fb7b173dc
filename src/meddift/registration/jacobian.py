"""How a transform stretches volume: its Jacobian determinant, folding, and how uneven it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import DisplacementField, Grid, Transform
from meddift.volume import Volume

#: Determinants are clipped to these before the logarithm is taken, as the evaluation of Learn2Reg does.
CLIP = (1e-9, 1e9)


def jacobian_determinant(field: DisplacementField) -> Volume:
    """Volume change by a displacement field: 1 keeps, 2 doubles, 0 or less folds.

    Central differences between neighbouring voxels, one-sided at the border.

    Args:
        field: Displacements, world RAS mm.

    Returns:
        (X, Y, Z) float64 on the grid of the field.
    """
    from meddift.registration.field import TensorField

    # As exact as it was given: differences of values that were rounded to float32 would not be.
    exact = np.result_type(field.displacement, np.float32)
    return Volume(TensorField.of(field, "cpu", dtype=exact).determinant().numpy(), field.grid)


def folding(determinant: NDArray[np.floating]) -> float:
    """Share, 0 to 1, of determinants that are not above 0; NaN where there is none."""
    return float((determinant <= 0).mean()) if determinant.size else float("nan")


def sd_log_jacobian(determinant: NDArray[np.floating], *, offset: float = 0.0) -> float:
    """SDlogJ: standard deviation of the logarithm of determinants, clipped to 1e-9..1e9; NaN where there is none.

    Args:
        determinant: As of `jacobian_determinant`, any shape.
        offset: What is added to them first: 0 is what most papers mean by SDlogJ, 3 what the evaluation of Learn2Reg
            computes (github.com/MDL-UzL/L2R). The two must not be compared with each other.
    """
    if not determinant.size:
        return float("nan")
    return float(np.log(np.clip(np.asarray(determinant, dtype=np.float64) + offset, *CLIP)).std())


def sampled(transform: Transform, grid: Grid) -> DisplacementField:
    """A transform as displacements at the voxels of a grid; float32, plane by plane."""
    displacement = np.empty((3, *grid.shape), dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        moved = transform.apply(world.reshape(-1, 3)).reshape(world.shape)
        displacement[:, i] = np.moveaxis(moved - world, -1, 0)
    return DisplacementField(displacement, grid)


def working_grid(grid: Grid) -> Grid:
    """A grid over the same field of view, not finer than what deformations of a body need (3 mm)."""
    return grid.coarsened(3.0)


def read_on(volume: Volume, grid: Grid) -> Volume:
    """A map on another grid, float32: trilinear, plane by plane (all points at once would take a gigabyte)."""
    result = np.empty(grid.shape, dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        result[i] = volume.at(world.reshape(-1, 3)).reshape(world.shape[:2])
    return Volume(result, grid)
