"""Between voxels: the neighbourhood of each point is registered to its counterpart by least squares, both ways.

A neighbourhood is a ball of voxels around a point. Of all affine maps of the neighbourhood into the other scan, the
one is found with the least sum of squared differences of descriptors (Lucas and Kanade 1981, by Gauss-Newton steps).
Rotation and stretching are estimated along with the position: leaving them out would shift the position.

Descriptors are not linear between voxels, and interpolation makes descriptors at equal sub-voxel offsets alike, which
pulls positions towards whole voxels. So one scan is always read at its voxels: the voxels around the fixed point are
compared with interpolated places of the moving scan, and the voxels around the moving place with interpolated places
of the fixed scan, by the same map.
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

#: Points whose neighbourhoods are read at a time: on a processor, what is gathered for them fits into its cache; on a
#: graphics card as many as take about so many numbers.
BATCH, DEVICE_NUMBERS = 16, 400_000_000
#: Gauss-Newton steps.
ROUNDS = 4
#: Neighbours lie about so far apart and at most so far away, mm, and count as a Gaussian of their distance, mm.
SPACING_MM, REACH_MM, SIGMA_MM = 4.0, 12.0, 6.0
#: Weight of the prior on the linear part, relative to the weight of the data on the position: it decides where tissue
#: is even and the data leave the linear part open.
STIFFNESS = 0.03
#: A misfit below this is chance, or both scans are the same file.
LEAST_MISFIT = 1e-4
#: Robust weights (Geman and McClure): a squared difference of this many times the median of the neighbourhood has a
#: weight of a quarter.
ROBUST = 2.0

#: Copies of what is read around a point that are held at a time: corners of cells, slopes, products.
_COPIES = 24
#: Unknowns of a point: a shift, and three columns of the change of the linear part, times REACH_MM.
_UNKNOWNS = 12


@dataclass(frozen=True, eq=False)
class Aligned:
    """Where neighbourhoods fit best, and how well.

    Attributes:
        positions: (N, 3) float64 on the moving scan, world RAS mm.
        misfit: (N,) float64, mean squared difference of the unit descriptors of a neighbourhood and its counterpart: 0
            where they are equal, 2 where they have nothing in common.
        standard_deviation_mm: (N,) float64, of the position along its least determined direction, as the normal
            equations and the misfit give it: about 0.4 on vessels, above 1 in even tissue, very large where there is
            nothing to see. For ranking; the true error differs, as the noise of neighbouring descriptors is
            correlated.
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
    """Move places to where the neighbourhoods of points fit best.

    Args:
        fixed: Descriptors of the scan in which the points are given; computed is where they are.
        moving: Descriptors of the other scan, on the same device.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64, where they were found on the moving scan, world RAS mm.
        linear: (N, 3, 3) float64, how the fixed scan is stretched and turned there, as far as is known.
        limit_mm: No place moves farther than this.
        hold: Weight of the prior on the position (where it was found), 1/mm^2: along a direction with a standard
            deviation of s mm, the position moves 1 / (1 + hold s^2) of the way that the data alone would move it.

    Returns:
        One row a point.
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
    """Some points at a time: (N, 3) positions, (N,) misfit and (N,) standard deviation; see `Aligned`."""
    around, beyond = _Voxels.around(fixed, positions), _Voxels.around(moving, found)
    offsets = around.positions - positions[:, None]
    share = _weights(offsets)
    place, bent = found, linear
    misfit = loose = torch.full_like(found[:, 0], torch.nan)
    for number in range(ROUNDS):
        there = place[:, None] + offsets @ bent.mT
        equations = _normal_equations(around, moving, there, share, offsets, None)
        # The same map the other way: what its unknowns do to a fixed place is what they do to a moving one, undone.
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
        # Nothing in a body is flattened to a tenth of its volume or turned inside out: begin again.
        bent = torch.where((torch.linalg.det(bent) > 0.1)[:, None, None], bent, linear)
    return place, misfit, loose


def _ball(grid: Grid) -> NDArray[np.int64]:
    """(K, 3), every second voxel or so around the voxel that is closest to a point."""
    # Points lie beside their voxels: some that lie half a voxel beyond the ball of one are inside that of another.
    return ball_offsets(grid, REACH_MM + grid.voxel_diagonal / 2, step=steps_of(grid, SPACING_MM))


@dataclass(frozen=True, eq=False)
class _Voxels:
    """Voxels around points, and what is seen there.

    Attributes:
        positions: (N, K, 3) float64, world RAS mm.
        described: (N, K, C) float32, of length 1.
        exist: (N, K) bool, False beyond the grid.
    """

    positions: torch.Tensor
    described: torch.Tensor
    exist: torch.Tensor

    @classmethod
    def around(cls, level: Level, points: torch.Tensor) -> Self:
        """Voxels of a ball around the voxel that is closest to each point."""
        grid = level.grid
        ball = torch.from_numpy(_ball(grid)).to(points)
        voxels = grid.world_to_index(points).round()[:, None] + ball
        exist = ((voxels >= 0) & (voxels < voxels.new_tensor(grid.shape))).all(dim=-1)
        index = voxels.reshape(-1, 3)
        described = unit(sample(level.tensor, index.float())).reshape(*voxels.shape[:2], -1)
        return cls(grid.index_to_world(index).reshape(voxels.shape), described, exist)


def _weights(offsets: torch.Tensor) -> torch.Tensor:
    """(N, K), Gaussian weights of places that lie (N, K, 3) mm away; 0 beyond the reach."""
    distance = offsets.norm(dim=-1)
    weight: torch.Tensor = torch.exp(-0.5 * (distance / SIGMA_MM).square()) * (distance <= REACH_MM)
    return weight


@dataclass(frozen=True, eq=False)
class _NormalEquations:
    """Normal equations of the unknowns, and the misfit at which they were set up.

    Attributes:
        system: (N, 12, 12) float64.
        right: (N, 12) float64.
        misfit: (N,) float64, mean squared difference.
    """

    system: torch.Tensor
    right: torch.Tensor
    misfit: torch.Tensor

    def plus(self, other: _NormalEquations) -> _NormalEquations:
        """Of both directions together."""
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
        other: Descriptors of the other scan.
        places: (N, K, 3), where the present map puts these voxels in the other scan, world RAS mm.
        weight: (N, K), how much each place counts.
        offsets: (N, K, 3), where the places lie in the neighbourhood of the fixed point, mm.
        turn: (N, 3, 3), what a shift of the moving place does to `places`; None = it shifts them alike.
    """
    count, size = places.shape[:2]
    counted = (weight * voxels.exist * other.grid.contains(places)).float()
    index = other.grid.world_to_index(places.reshape(-1, 3)).float()
    wanted = voxels.described.reshape(count * size, -1)
    square, pull, squared = normal_products(other.tensor, index, wanted)
    squared = squared.reshape(count, size)
    misfit = (squared * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1e-6)
    # Of what is compared: voxels without weight lie beyond the neighbourhood, or beyond a scan.
    compared = squared.masked_fill(counted <= 0, torch.nan)
    usual = compared.nanmedian(dim=1, keepdim=True).values.nan_to_num().clamp(min=1e-6)
    counted = (counted / (1 + squared / (ROBUST * usual)).square())[:, None]
    basis = torch.nn.functional.pad(offsets / REACH_MM, (1, 0), value=1.0).float()
    pairs = (basis[..., :, None] * basis[..., None, :]).flatten(2)
    system = (square.reshape(count, size, 9).mT * counted) @ pairs
    right = (pull.reshape(count, size, 3).mT * counted) @ basis
    # Slopes were by index: by mm of the moving place they are these times a matrix.
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

    The prior on the position counts as one more measurement: its weight is `hold` times the misfit, since the system
    divided by the misfit is the inverse covariance of the unknowns.

    Args:
        equations: Of both directions.
        turned: (N, 3, 3), by how much the linear part differs from its prior.
        moved: (N, 3), by how much the position differs from its prior, mm.
        hold: See `align_neighbourhoods`.

    Returns:
        (N, 12, 12): the system without the prior on the position; (N, 4, 3): the step of the position and of the
        linear part.
    """
    count = len(turned)
    # Mean weight of the data on a shift: what is added is measured by it.
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
    """(N,), see `Aligned.standard_deviation_mm`, of a system without the prior on the position."""
    spread = torch.linalg.eigvalsh(torch.linalg.inv(free)[:, :3, :3])[:, -1]
    loose: torch.Tensor = (spread * equations.misfit.clamp(min=LEAST_MISFIT)).sqrt()
    return loose


def _shortened(vectors: torch.Tensor, limit: float) -> torch.Tensor:
    """Vectors no longer than a limit."""
    length = vectors.norm(dim=1, keepdim=True)
    shortened: torch.Tensor = vectors * (limit / length.clamp(min=1e-12)).clamp(max=1.0)
    return shortened
