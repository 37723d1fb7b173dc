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
from meddift.registration.smoothness import Buffers, Smoothness, conjugate_gradient
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
        group: (N,) int64, the sliding group of each voxel, from 0 on.
    """

    grid: Grid
    rows: torch.Tensor
    described: torch.Tensor
    weight: torch.Tensor
    group: torch.Tensor


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
    """Refine the coefficients of `T(x) = affine(x) + spline(x)`, a spline for each sliding group.

    Args:
        places: Voxels of the fixed scan with their descriptors.
        moving: Descriptors of the moving scan.
        moving_shown: (X, Y, Z, 1), 1 where the moving scan may be matched, else 0.
        affine: The affine part, fixed to moving.
        control: The control points of the splines.
        coefficients: (G, a, b, c, 3) float32, initial coefficients of G groups, world RAS mm.
        smoothness: Penalty on the coefficients.
        steps: Number of Gauss-Newton steps.

    Returns:
        (G, a, b, c, 3) float32, the refined coefficients, world RAS mm. Those of a group without voxels become smooth.
    """
    on_places = control.on(places.grid)
    base = affine.apply(places.grid.index_to_world(_indices(places)))
    share = places.grid.voxel_volume / control.grid.voxel_volume
    groups = len(coefficients)
    # One row for each voxel of the grid and group; those without a place stay zero in all steps.
    own = places.rows * groups + places.group
    spread = base.new_zeros((places.grid.size * groups, 9), dtype=torch.float32)
    for _ in range(steps):
        # All groups at once: their components are channels of one array.
        side = coefficients.movedim(0, 3).flatten(3)
        shift = on_places.expand(side).reshape(-1, 3).index_select(0, own)
        spread.index_copy_(0, own, _normal_equations(places, moving, moving_shown, base, shift, groups))
        system = on_places.collect(spread.reshape(*places.grid.shape, groups * 9)) * share
        system = system.reshape(*system.shape[:3], groups, 9).permute(3, 4, 0, 1, 2).contiguous()
        step = _solve(system[:, :6], system[:, 6:], coefficients.movedim(-1, 1).contiguous(), smoothness)
        coefficients = coefficients + step.movedim(1, -1)
    return coefficients


def _indices(places: Places) -> torch.Tensor:
    return torch.stack(unravel(places.rows, places.grid.shape), dim=-1).double()


def _normal_equations(
    places: Places, moving: FeatureMap, shown: FeatureMap, base: torch.Tensor, shift: torch.Tensor, groups: int
) -> torch.Tensor:
    """(N, 9), the normal equations of each voxel, in world mm: six entries of the matrix, three of the right side."""
    # Gradients are by voxel index; these matrices convert gradients and their products to world mm.
    turn = moving.grid.inverse[:3, :3]
    inverse = constant(shift, turn)
    by_mm = constant(shift, np.stack([np.outer(turn[:, i], turn[:, j]).ravel() for i, j in _TRIANGLE], axis=1))
    system = shift.new_empty((len(shift), 9))
    misfit = shift.new_empty(len(shift))

    def ask(rows: slice) -> None:
        world = base[rows] + shift[rows]
        index = moving.grid.world_to_index(world)
        square, pull, misfit[rows] = normal_products(moving.values, index, places.described[rows], moving.whitening)
        weight = (places.weight[rows] * shown.at(world)[:, 0])[:, None]
        torch.mul(square.permute(1, 2, 0).reshape(9, -1).T @ by_mm, weight, out=system[rows, :6])
        torch.mul(pull @ inverse, weight, out=system[rows, 6:])

    if shift.device.type == "cpu":
        for_each(chunks(len(shift), size=PLACES), ask)
    else:
        for rows in chunks(len(shift), size=DEVICE_CHUNK):
            ask(rows)
    # Half of the voxels of each group have a misfit below its scale and keep a weight near 1.
    each = [misfit.masked_fill(places.group != number, torch.nan).nanmedian() for number in range(groups)]
    scale = torch.stack(each).nan_to_num().clamp(min=1e-6).index_select(0, places.group)
    return system.mul_((1 + misfit / (2 * scale)).square().reciprocal_()[:, None])


def _solve(full: torch.Tensor, slope: torch.Tensor, known: torch.Tensor, smoothness: Smoothness) -> torch.Tensor:
    """Solve (diag(full) + smoothness) step = slope - smoothness(known) for the step.

    Args:
        full: (G, 6, a, b, c) float32, upper triangle of the (3, 3) matrix of each control point.
        slope: (G, 3, a, b, c) float32.
        known: (G, 3, a, b, c) float32, the coefficients so far.
        smoothness: Penalty on the coefficients.

    Returns:
        (G, 3, a, b, c) float32.
    """
    buffers = Buffers()

    def operator(values: torch.Tensor) -> torch.Tensor:
        result = smoothness.gradient(values, buffers)
        for entry, (i, j) in zip(full.unbind(dim=1), _TRIANGLE, strict=True):
            result[:, i].addcmul_(entry, values[:, j])
            if i != j:
                result[:, j].addcmul_(entry, values[:, i])
        return result

    precondition = smoothness.preconditioner((full[:, 0:1] + full[:, 3:4] + full[:, 5:6]) / 3)
    right = slope - smoothness.gradient(known)
    return conjugate_gradient(operator, right, precondition, iterations=ITERATIONS)
