"""Bringing descriptors into agreement between voxels: Gauss-Newton on control points of a smooth displacement.

The difference of two descriptors is linear in a small displacement, so the best one is the solution of a linear
system; its data part is bounded by one that is diagonal in the control points (their weights at a voxel sum to one),
which makes each step cheap and never an overshoot. Large differences count little (Geman and McClure).
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
    """Where descriptors are compared.

    Attributes:
        grid: A grid in the fixed scan.
        rows: (N,) int64, the voxels that count, in the order of the flattened grid.
        described: (N, C) float32, the fixed descriptors there, of length 1.
        weight: (N,) float32, how much each counts.
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
    """Improve the displacement beyond an affine.

    Args:
        places: Where fixed descriptors are compared, and what they are.
        moving: Descriptors of the moving scan.
        moving_shown: (X, Y, Z, 1), 1 where the moving scan counts, else 0.
        affine: Fixed to moving.
        control: Control points; `T(x) = affine(x) + spline(x)`.
        coefficients: (a, b, c, 3) float32 to begin with, world RAS mm.
        smoothness: Penalty on the coefficients.
        steps: Number of Gauss-Newton steps.

    Returns:
        (a, b, c, 3) float32.
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
    """(N, 6) and (N, 3): what each place asks of the displacement, world mm."""
    # Slopes are by index; by mm they are these times a matrix, and products of two are by its products.
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
    # Half of the places differ by less than the scale: they count nearly in full.
    scale = misfit.median().clamp(min=1e-6)
    robust = (1 + misfit / (2 * scale)).square().reciprocal_()[:, None]
    return hessian * robust, slope * robust


def _solve(
    hessian: torch.Tensor, slope: torch.Tensor, coefficients: torch.Tensor, smoothness: Smoothness
) -> torch.Tensor:
    """The step: (diag(hessian) + smoothness) step = slope - smoothness(coefficients)."""
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
