"""Sub-voxel alignment: the neighbourhood of each point is registered to its counterpart by least squares.

A neighbourhood is a ball of voxels around a point. Gauss-Newton steps find the affine map of the neighbourhood into
the other scan with the least sum of squared differences of descriptors (Lucas and Kanade 1981). The linear part is
estimated together with the position, since ignoring it would bias the position.

Descriptors are not linear between voxels, and interpolation makes descriptors at equal sub-voxel offsets alike, which
biases positions towards whole voxels. Therefore one of the scans is always read at its voxels: the voxels around the
fixed point are compared with interpolated descriptors of the moving scan, and the voxels around the moving position
with interpolated descriptors of the fixed scan, both under the same map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.features import Level
from meddift.geometry import Grid, ball_offsets, sample, steps_of
from meddift.matching.descriptors import normal_products, unit
from meddift.system.threads import for_each

#: Points that are processed at a time: on the CPU so few that memory stays small, and so many that operations are
#: large, since threads that issue small ones wait for each other; on a GPU as many as need about this many numbers.
BATCH, DEVICE_NUMBERS = 96, 400_000_000
#: Gauss-Newton steps.
ROUNDS = 4
#: Spacing of the neighbours, their largest distance, and standard deviation of their Gaussian weights, mm.
SPACING_MM, REACH_MM, SIGMA_MM = 4.0, 12.0, 6.0
#: Weight of the prior on the linear part, relative to the weight of the data on the position. It matters in
#: homogeneous tissue, where the data do not determine the linear part.
STIFFNESS = 0.03
#: Lower bound of the misfit in estimates of uncertainty; smaller values are noise, or both scans are the same.
LEAST_MISFIT = 1e-4
#: Robust weights (Geman and McClure): a squared difference of this many times the median of the neighbourhood has a
#: weight of a quarter.
ROBUST = 2.0

#: Arrays of the size of the gathered descriptors that are held at a time: cell corners, gradients, products.
_COPIES = 24
#: Unknowns of a point: a shift in mm, and the three columns of the change of the linear part, times REACH_MM.
_UNKNOWNS = 12


@dataclass(frozen=True, eq=False)
class Aligned:
    """The result of aligning neighbourhoods.

    Attributes:
        positions: (N, 3) float64 on the moving scan, world RAS mm.
        misfit: (N,) float64, mean squared difference of the unit descriptors of a neighbourhood and its counterpart: 0
            for equal descriptors, 2 for orthogonal ones.
        standard_deviation_mm: (N,) float64, standard deviation of the position along its least determined direction,
            mm, from the normal equations and the misfit. Small on vessels, larger in homogeneous tissue. For ranking
            only: neighbouring descriptors have correlated noise, so the true error differs.
    """

    positions: NDArray[np.float64]
    misfit: NDArray[np.float64]
    standard_deviation_mm: NDArray[np.float64]


def align_neighbourhoods(
    fixed: Level,
    moving: Level,
    positions: NDArray[np.float64],
    found: NDArray[np.float64],
    linear: NDArray[np.float64],
    *,
    limit_mm: float,
    hold: float = 0.0,
) -> Aligned:
    """Refine positions by aligning the neighbourhoods of points.

    Args:
        fixed: A level of the fixed scan; its device is used.
        moving: The same level of the moving scan, on the same device.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64, initial positions on the moving scan, world RAS mm.
        linear: (N, 3, 3) float64, initial Jacobian of the map at each point, fixed to moving.
        limit_mm: Largest distance from the initial position, mm.
        hold: Weight of the prior on the position (the initial one), 1/mm^2: along a direction with a standard
            deviation of s mm, the position moves 1 / (1 + hold s^2) of the way that the data alone would move it.

    Returns:
        One row for each point.
    """
    count, device = len(positions), fixed.tensor.device
    aligned = Aligned(np.array(found, dtype=np.float64), np.full(count, np.nan), np.full(count, np.nan))
    size = BATCH
    if device.type != "cpu":
        read = max(len(_ball(level.grid)) * level.channels for level in (fixed, moving))
        size = max(1, DEVICE_NUMBERS // (_COPIES * read))

    def align(first: int) -> None:
        rows = slice(first, first + size)
        given, start, stretched = (torch.tensor(each[rows], device=device) for each in (positions, found, linear))
        place, misfit, loose = _align(fixed, moving, given, start, stretched, limit_mm, hold)
        told = torch.cat([place, misfit[:, None], loose[:, None]], dim=1).cpu().numpy()
        aligned.positions[rows], aligned.misfit[rows], aligned.standard_deviation_mm[rows] = (
            told[:, :3],
            told[:, 3],
            told[:, 4],
        )

    for_each(range(0, count, size), align, device=device.type)
    return aligned


def _align(
    fixed: Level,
    moving: Level,
    positions: torch.Tensor,
    found: torch.Tensor,
    linear: torch.Tensor,
    limit_mm: float,
    hold: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Align one batch of points: (N, 3) positions, (N,) misfit and (N,) standard deviation; see `Aligned`."""
    around, beyond = _Voxels.around(fixed, positions), _Voxels.around(moving, found)
    offsets = around.positions - positions[:, None]
    share = _weights(offsets)
    place, bent = found, linear
    misfit = loose = torch.full_like(found[:, 0], torch.nan)
    for number in range(ROUNDS):
        there = place[:, None] + offsets @ bent.mT
        equations = _normal_equations(around, moving, there, share, offsets, None)
        # The same map in the opposite direction: its derivative by the unknowns is multiplied by the inverse Jacobian.
        undone = torch.linalg.inv(bent)
        back = (beyond.positions - place[:, None]) @ undone.mT
        equations = equations.plus(
            _normal_equations(beyond, fixed, positions[:, None] + back, _weights(back), back, -undone)
        )
        free, step = _solve(equations, bent - linear, place - found, hold)
        if number == ROUNDS - 1:
            misfit, loose = equations.misfit, _standard_deviation(equations, free)
        place = found + _shortened(place + step[:, 0] - found, limit_mm)
        bent = bent + step[:, 1:].mT / REACH_MM
        # A Jacobian that compresses to a tenth of the volume or inverts orientation is implausible: reset it.
        bent = torch.where((torch.linalg.det(bent) > 0.1)[:, None, None], bent, linear)
    return place, misfit, loose


def _ball(grid: Grid) -> NDArray[np.int64]:
    """(K, 3) int64, offsets in voxels of the neighbours of the voxel closest to a point, about `SPACING_MM` apart."""
    # Points lie up to half a voxel diagonal from their closest voxel: enlarge the ball by that much.
    return ball_offsets(grid, REACH_MM + grid.voxel_diagonal / 2, step=steps_of(grid, SPACING_MM))


@dataclass(frozen=True, eq=False)
class _Voxels:
    """Voxels around points, with their descriptors.

    Attributes:
        positions: (N, K, 3) float64, world RAS mm.
        described: (N, K, C) float32, descriptors of length 1.
        exist: (N, K) bool, False outside the grid.
    """

    positions: torch.Tensor
    described: torch.Tensor
    exist: torch.Tensor

    @classmethod
    def around(cls, level: Level, points: torch.Tensor) -> Self:
        """The voxels of a ball around the voxel closest to each of (N, 3) points, world RAS mm."""
        grid = level.grid
        ball = torch.from_numpy(_ball(grid)).to(points)
        voxels = grid.world_to_index(points).round()[:, None] + ball
        exist = ((voxels >= 0) & (voxels < voxels.new_tensor(grid.shape))).all(dim=-1)
        index = voxels.reshape(-1, 3)
        described = unit(sample(level.tensor, index.float())).reshape(*voxels.shape[:2], -1)
        return cls(grid.index_to_world(index).reshape(voxels.shape), described, exist)


def _weights(offsets: torch.Tensor) -> torch.Tensor:
    """(N, K), Gaussian weights for (N, K, 3) offsets in mm; 0 beyond `REACH_MM`."""
    distance = offsets.norm(dim=-1)
    weight: torch.Tensor = torch.exp(-0.5 * (distance / SIGMA_MM).square()) * (distance <= REACH_MM)
    return weight


@dataclass(frozen=True, eq=False)
class _NormalEquations:
    """Normal equations of the unknowns, and the misfit of the map at which they were linearised.

    Attributes:
        system: (N, 12, 12) float64, the matrix.
        right: (N, 12) float64, the right-hand side.
        misfit: (N,) float64, mean squared difference.
    """

    system: torch.Tensor
    right: torch.Tensor
    misfit: torch.Tensor

    def plus(self, other: _NormalEquations) -> _NormalEquations:
        """The normal equations of both directions combined."""
        return _NormalEquations(self.system + other.system, self.right + other.right, (self.misfit + other.misfit) / 2)


def _normal_equations(
    voxels: _Voxels,
    other: Level,
    places: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor,
    turn: torch.Tensor | None,
) -> _NormalEquations:
    """Normal equations of one direction.

    Args:
        voxels: Voxels of one scan and their descriptors.
        other: The level of the other scan.
        places: (N, K, 3), positions of these voxels in the other scan under the current map, world RAS mm.
        weight: (N, K), weight of each voxel.
        offsets: (N, K, 3), offsets of the voxels from the fixed point, mm.
        turn: (N, 3, 3), derivative of `places` by a shift of the moving position; None = the identity.
    """
    count, size = places.shape[:2]
    counted = (weight * voxels.exist * other.grid.contains(places)).float()
    index = other.grid.world_to_index(places.reshape(-1, 3)).float()
    wanted = voxels.described.reshape(count * size, -1)
    square, pull, squared = normal_products(other.tensor, index, wanted)
    squared = squared.reshape(count, size)
    misfit = (squared * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1e-6)
    # Voxels without weight lie outside the neighbourhood or outside a scan: they do not count in the median.
    compared = squared.masked_fill(counted <= 0, torch.nan)
    usual = compared.nanmedian(dim=1, keepdim=True).values.nan_to_num().clamp(min=1e-6)
    counted = (counted / (1 + squared / (ROBUST * usual)).square())[:, None]
    basis = torch.nn.functional.pad(offsets / REACH_MM, (1, 0), value=1.0).float()
    pairs = (basis[..., :, None] * basis[..., None, :]).flatten(2)
    system = (square.reshape(count, size, 9).mT * counted) @ pairs
    right = (pull.reshape(count, size, 3).mT * counted) @ basis
    # Gradients are by voxel index; this matrix converts them to gradients by mm of the moving position.
    by_mm = torch.from_numpy(other.grid.inverse[:3, :3].copy()).to(places.device)
    matrix = by_mm.expand(count, 3, 3) if turn is None else by_mm @ turn
    system = torch.einsum("nijab,nip,njq->napbq", system.double().reshape(count, 3, 3, 4, 4), matrix, matrix)
    right = torch.einsum("nia,nip->nap", right.double(), matrix)
    return _NormalEquations(
        system.reshape(count, _UNKNOWNS, _UNKNOWNS), right.reshape(count, _UNKNOWNS), misfit.double()
    )


def _solve(
    equations: _NormalEquations, turned: torch.Tensor, moved: torch.Tensor, hold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One Gauss-Newton step.

    The prior on the position acts as an additional measurement with weight `hold` times the misfit, since the matrix
    divided by the misfit is the inverse covariance of the unknowns.

    Args:
        equations: Normal equations of both directions.
        turned: (N, 3, 3), difference of the linear part from its prior.
        moved: (N, 3), difference of the position from its prior, mm.
        hold: See `align_neighbourhoods`.

    Returns:
        (N, 12, 12), the matrix without the prior on the position; (N, 4, 3), the steps of the position and of the
        columns of the linear part.
    """
    count = len(turned)
    # Mean weight of the data on a shift, the unit of the prior weights.
    scale = equations.system.diagonal(dim1=1, dim2=2)[:, :3].mean(dim=1)[:, None] + 1e-9
    known = torch.zeros_like(scale).expand(-1, _UNKNOWNS).clone()
    known[:, :3] = 1
    held = turned.mT.reshape(count, -1) * REACH_MM
    misfit = equations.misfit.clamp(min=LEAST_MISFIT)[:, None]
    pulled = equations.right[:, :3] - hold * misfit * moved
    right = torch.cat([pulled, equations.right[:, 3:] - scale * STIFFNESS * held], dim=1)
    free = equations.system + torch.diag_embed(scale * ((1 - known) * STIFFNESS + 1e-3))
    step = torch.linalg.solve(free + torch.diag_embed(hold * misfit * known), right)
    return free, step.reshape(count, 4, 3)


def _standard_deviation(equations: _NormalEquations, free: torch.Tensor) -> torch.Tensor:
    """(N,), `Aligned.standard_deviation_mm` from a matrix without the prior on the position."""
    spread = torch.linalg.eigvalsh(torch.linalg.inv(free)[:, :3, :3])[:, -1]
    loose: torch.Tensor = (spread * equations.misfit.clamp(min=LEAST_MISFIT)).sqrt()
    return loose


def _shortened(vectors: torch.Tensor, limit: float) -> torch.Tensor:
    """Vectors, shortened to a limit where they are longer."""
    length = vectors.norm(dim=1, keepdim=True)
    shortened: torch.Tensor = vectors * (limit / length.clamp(min=1e-12)).clamp(max=1.0)
    return shortened
