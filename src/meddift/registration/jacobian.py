"""Jacobian determinant of a transform, folding, and standard deviation of its logarithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import DisplacementField, Grid, Transform
from meddift.volume import Volume

#: Range to which determinants are clipped before the logarithm, as in the evaluation of Learn2Reg.
CLIP = (1e-9, 1e9)


def jacobian_determinant(field: DisplacementField) -> Volume:
    """Jacobian determinant of a displacement field: 1 preserves volume, 2 doubles it, 0 or less folds.

    Central differences between neighbouring voxels, one-sided at the border.

    Args:
        field: The displacement field.

    Returns:
        (X, Y, Z) float64 on the grid of the field.
    """
    from meddift.registration.field import TensorField

    # In the precision of the input: differences of values rounded to float32 would be less accurate.
    exact = np.result_type(field.displacement, np.float32)
    return Volume(TensorField.of(field, "cpu", dtype=exact).determinant().numpy(), field.grid)


def folding(determinant: NDArray[np.floating]) -> float:
    """Share, 0 to 1, of determinants that are not above 0; NaN without determinants."""
    return float((determinant <= 0).mean()) if determinant.size else float("nan")


def sd_log_jacobian(determinant: NDArray[np.floating], *, offset: float = 0.0) -> float:
    """SDlogJ: standard deviation of the logarithm of determinants clipped to `CLIP`; NaN without determinants.

    Args:
        determinant: Determinants of any shape, as by `jacobian_determinant`.
        offset: Number that is added to them first: 0 in most papers, 3 in the evaluation of Learn2Reg
            (github.com/MDL-UzL/L2R). The two are not comparable.
    """
    if not determinant.size:
        return float("nan")
    return float(np.log(np.clip(np.asarray(determinant, dtype=np.float64) + offset, *CLIP)).std())


def sampled(transform: Transform, grid: Grid) -> DisplacementField:
    """Sample a transform at the voxel centres of a grid as a float32 displacement field."""
    displacement = np.empty((3, *grid.shape), dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        moved = transform.apply(world.reshape(-1, 3)).reshape(world.shape)
        displacement[:, i] = np.moveaxis(moved - world, -1, 0)
    return DisplacementField(displacement, grid)


def working_grid(grid: Grid) -> Grid:
    """A grid over the same field of view with voxels of at least 3 mm, fine enough for deformations of the body."""
    return grid.coarsened(3.0)


def read_on(volume: Volume, grid: Grid) -> Volume:
    """Resample a map to another grid by trilinear interpolation, plane by plane to limit memory; float32."""
    result = np.empty(grid.shape, dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        result[i] = volume.at(world.reshape(-1, 3)).reshape(world.shape[:2])
    return Volume(result, grid)
