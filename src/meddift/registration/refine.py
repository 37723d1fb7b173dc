"""Refinement of a displacement to sub-voxel accuracy: Gauss-Newton steps on the control points of a spline.

The difference of descriptors is linearised in the displacement, which gives a linear system for each step. Its data
term is replaced by an upper bound that is diagonal in the control points (their weights at a voxel sum to one), which
makes steps cheap and prevents overshooting. Large differences have small weights (Geman and McClure).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from meddift.geometry import AffineTransform, Grid
from meddift.geometry.sampling import DEVICE_CHUNK, chunks, constant
from meddift.matching.descriptors import normal_products
from meddift.matching.index import unravel
from meddift.registration.feature_map import FeatureMap
from meddift.registration.smoothness import Smoothness, conjugate_gradient
from meddift.registration.spline import ControlGrid
from meddift.system.threads import for_each

#: Upper triangle of a symmetric (3, 3) matrix, row by row.
_TRIANGLE = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
#: Places that a processor works on at a time: what is read for them stays in its cache.
PLACES = 32_768
#: Of conjugate gradients, in each Gauss-Newton step.
ITERATIONS = 8


@dataclass(frozen=True, eq=False)
class Places:
    """The voxels of the fixed scan at which descriptors are compared.

    Attributes:
        grid: A grid in the fixed scan.
        rows: (N,) int64, flat indices of the voxels.
        described: (N, C) float32, descriptors of the fixed scan at these voxels, of length 1.
        weight: (N,) float32, weight of each voxel.
    """

    grid: Grid
    rows: torch.Tensor
    described: torch.Tensor
    weight: torch.Tensor


def refine(
    places: Places,
    moving: FeatureMap,
    moving_shown: FeatureMap,
    affine: AffineTransform,
    control: ControlGrid,
    coefficients: torch.Tensor,
    smoothness: Smoothness,
    *,
    steps: int,
) -> torch.Tensor:
    """Refine the coefficients of `T(x) = affine(x) + spline(x)`.

    Args:
        places: Voxels of the fixed scan with their descriptors.
        moving: Descriptors of the moving scan.
        moving_shown: (X, Y, Z, 1), 1 where the moving scan may be matched, else 0.
        affine: The affine part, fixed to moving.
        control: The control points of the spline.
        coefficients: (a, b, c, 3) float32, initial coefficients, world RAS mm.
        smoothness: Penalty on the coefficients.
        steps: Number of Gauss-Newton steps.

    Returns:
        (a, b, c, 3) float32, the refined coefficients, world RAS mm.
    """
    on_places = control.on(places.grid)
    base = affine.apply(places.grid.index_to_world(_indices(places)))
    share = places.grid.voxel_volume / control.grid.voxel_volume
    for _ in range(steps):
        shift = on_places.expand(coefficients).reshape(-1, 3)[places.rows]
        hessian, slope = _normal_equations(places, moving, moving_shown, base, shift)
        system = _collected(on_places, places, torch.cat([hessian, slope], dim=1)) * share
        step = _solve(system[..., :6], system[..., 6:], coefficients, smoothness)
        coefficients = coefficients + step
    return coefficients


def _indices(places: Places) -> torch.Tensor:
    return torch.stack(unravel(places.rows, places.grid.shape), dim=-1).double()


def _collected(control: ControlGrid, places: Places, values: torch.Tensor) -> torch.Tensor:
    dense = values.new_zeros((places.grid.size, values.shape[1]))
    dense[places.rows] = values
    return control.collect(dense.reshape(*places.grid.shape, -1))


def _normal_equations(
    places: Places, moving: FeatureMap, shown: FeatureMap, base: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 6) upper triangle and (N, 3) right-hand side of the normal equations of each voxel, in world mm."""
    # Gradients are by voxel index; these matrices convert gradients and their products to world mm.
    turn = moving.grid.inverse[:3, :3]
    inverse = constant(shift, turn)
    by_mm = constant(shift, np.stack([np.outer(turn[:, i], turn[:, j]).ravel() for i, j in _TRIANGLE], axis=1))
    hessian, slope = shift.new_empty((len(shift), 6)), shift.new_empty((len(shift), 3))
    misfit = shift.new_empty(len(shift))

    def ask(rows: slice) -> None:
        world = base[rows] + shift[rows]
        index = moving.grid.world_to_index(world)
        square, pull, misfit[rows] = normal_products(moving.values, index, places.described[rows], moving.whitening)
        weight = (places.weight[rows] * shown.at(world)[:, 0])[:, None]
        hessian[rows] = (square.permute(1, 2, 0).reshape(9, -1).T @ by_mm) * weight
        slope[rows] = pull @ inverse * weight

    if shift.device.type == "cpu":
        for_each(chunks(len(shift), size=PLACES), ask)
    else:
        for rows in chunks(len(shift), size=DEVICE_CHUNK):
            ask(rows)
    # Half of the voxels have a misfit below the scale and keep a weight near 1.
    scale = misfit.median().clamp(min=1e-6)
    robust = (1 + misfit / (2 * scale)).square().reciprocal_()[:, None]
    return hessian * robust, slope * robust


def _solve(
    hessian: torch.Tensor, slope: torch.Tensor, coefficients: torch.Tensor, smoothness: Smoothness
) -> torch.Tensor:
    """Solve (diag(hessian) + smoothness) step = slope - smoothness(coefficients) for the step."""
    full, slope, known = (values.movedim(-1, 0).contiguous() for values in (hessian, slope, coefficients))

    def operator(values: torch.Tensor) -> torch.Tensor:
        result = smoothness.gradient(values)
        for entry, (i, j) in zip(full, _TRIANGLE, strict=True):
            result[i].addcmul_(entry, values[j])
            if i != j:
                result[j].addcmul_(entry, values[i])
        return result

    precondition = smoothness.preconditioner((full[0] + full[3] + full[5]) / 3)
    right = slope - smoothness.gradient(known)
    return conjugate_gradient(operator, right, precondition, iterations=ITERATIONS).movedim(0, -1)
