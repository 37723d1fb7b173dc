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
from meddift.geometry import ball_offsets, sample, steps_of
from meddift.matching.descriptors import normal_products, unit
from meddift.system.threads import for_each

#: Points whose neighbourhoods are read at a time: what is gathered for them fits into a processor's cache.
BATCH = 16
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

#: Unknowns of a point: a shift, and three columns of the change of the linear part, times REACH_MM.
_UNKNOWNS = 12


@dataclass(frozen=True, eq=False)
class Aligned:
    """Where neighbourhoods fit best, and how well.

    Attributes:
        positions: (N, 3) float64 on the moving scan, world RAS mm.
        misfit: (N,) float64, mean squared difference of the unit descriptors of a neighbourhood and its counterpart: 0
            where they are equal, 2 where they have nothing in common.
        looseness_mm: (N,) float64, standard deviation of the position along its least determined direction, as the
            normal equations and the misfit give it: about 0.4 on vessels, above 1 in even tissue, very large where
            there is nothing to see. For ranking; the true error differs, as the noise of neighbouring descriptors is
            correlated.
    """

    positions: NDArray[np.float64]
    misfit: NDArray[np.float64]
    looseness_mm: NDArray[np.float64]


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
        fixed: Descriptors of the scan in which the points are given.
        moving: Descriptors of the other scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64, where they were found on the moving scan, world RAS mm.
        linear: (N, 3, 3) float64, how the fixed scan is stretched and turned there, as far as is known.
        limit_mm: No place moves farther than this.
        hold: Weight of the prior on the position (where it was found), 1/mm^2: along a direction with a standard
            deviation of s mm, the position moves 1 / (1 + hold s^2) of the way that the data alone would move it.

    Returns:
        One row a point.
    """
    count = len(positions)
    aligned = Aligned(np.array(found, dtype=np.float64), np.full(count, np.nan), np.full(count, np.nan))

    def align(first: int) -> None:
        rows = slice(first, first + BATCH)
        part = _align(fixed, moving, positions[rows], found[rows], linear[rows], limit_mm, hold)
        aligned.positions[rows], aligned.misfit[rows] = part.positions, part.misfit
        aligned.looseness_mm[rows] = part.looseness_mm

    for_each(range(0, count, BATCH), align)
    return aligned


def _align(
    fixed: Level,
    moving: Level,
    positions: NDArray[np.float64],
    found: NDArray[np.float64],
    linear: NDArray[np.float64],
    limit_mm: float,
    hold: float,
) -> Aligned:
    """Some points at a time; see `align_neighbourhoods`."""
    around, beyond = _Voxels.around(fixed, positions), _Voxels.around(moving, found)
    offsets = around.positions - positions[:, None]
    share = _weights(offsets)
    place, bent = found.copy(), linear.copy()
    misfit = loose = np.full(len(found), np.nan)
    for _ in range(ROUNDS):
        there = place[:, None] + np.einsum("nij,nkj->nki", bent, offsets)
        equations = _normal_equations(around, moving, there, share, offsets, None)
        # The same map the other way: what its unknowns do to a fixed place is what they do to a moving one, undone.
        undone = np.linalg.inv(bent)
        back = np.einsum("nij,nkj->nki", undone, beyond.positions - place[:, None])
        equations = equations.plus(
            _normal_equations(beyond, fixed, positions[:, None] + back, _weights(back), back, -undone)
        )
        step, loose = _solve(equations, bent - linear, place - found, hold)
        misfit = equations.misfit.numpy()
        place = found + _shortened(place + step[:, 0] - found, limit_mm)
        bent = bent + step[:, 1:].transpose(0, 2, 1) / REACH_MM
        # Nothing in a body is flattened to a tenth of its volume or turned inside out: begin again.
        bent = np.where((np.linalg.det(bent) > 0.1)[:, None, None], bent, linear)
    return Aligned(place, misfit, loose)


@dataclass(frozen=True, eq=False)
class _Voxels:
    """Voxels around points, and what is seen there.

    Attributes:
        positions: (N, K, 3) float64, world RAS mm.
        described: (N, K, C) float32, of length 1.
        exist: (N, K) bool, False beyond the grid.
    """

    positions: NDArray[np.float64]
    described: torch.Tensor
    exist: NDArray[np.bool_]

    @classmethod
    def around(cls, level: Level, points: NDArray[np.float64]) -> Self:
        """Every second voxel or so of a ball around the voxel that is closest to each point."""
        grid = level.grid
        # Points lie beside their voxels: some that lie half a voxel beyond the ball of one are inside that of another.
        reach = REACH_MM + grid.voxel_diagonal / 2
        ball = ball_offsets(grid, reach, step=steps_of(grid, SPACING_MM)).astype(np.float64)
        voxels = np.rint(grid.world_to_index(points))[:, None] + ball
        exist: NDArray[np.bool_] = np.asarray(((voxels >= 0) & (voxels < grid.shape)).all(axis=-1))
        index = torch.from_numpy(voxels.reshape(-1, 3)).float()
        described = unit(sample(torch.from_numpy(level.features), index)).reshape(*voxels.shape[:2], -1)
        return cls(grid.index_to_world(voxels.reshape(-1, 3)).reshape(voxels.shape), described, exist)


def _weights(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K), Gaussian weights of places that lie (N, K, 3) mm away; 0 beyond the reach."""
    distance = np.linalg.norm(offsets, axis=-1)
    return np.asarray(np.exp(-0.5 * (distance / SIGMA_MM) ** 2) * (distance <= REACH_MM))


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
    places: NDArray[np.float64],
    weight: NDArray[np.float64],
    offsets: NDArray[np.float64],
    turn: NDArray[np.floating] | None,
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
    counted = torch.from_numpy(weight * voxels.exist * other.grid.contains(places)).float()
    index = torch.from_numpy(other.grid.world_to_index(places.reshape(-1, 3))).float()
    wanted = voxels.described.reshape(count * size, -1)
    square, pull, squared = normal_products(torch.from_numpy(other.features), index, wanted)
    squared = squared.reshape(count, size)
    misfit = (squared * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1e-6)
    # Of what is compared: voxels without weight lie beyond the neighbourhood, or beyond a scan.
    compared = squared.masked_fill(counted <= 0, torch.nan)
    usual = compared.nanmedian(dim=1, keepdim=True).values.nan_to_num().clamp(min=1e-6)
    counted = (counted / (1 + squared / (ROBUST * usual)).square())[:, None]
    basis = torch.from_numpy(np.insert(offsets / REACH_MM, 0, 1.0, axis=-1)).float()
    pairs = (basis[..., :, None] * basis[..., None, :]).flatten(2)
    system = (square.reshape(count, size, 9).mT * counted) @ pairs
    right = (pull.reshape(count, size, 3).mT * counted) @ basis
    # Slopes were by index: by mm of the moving place they are these times a matrix.
    by_mm = other.grid.inverse[:3, :3] if turn is None else other.grid.inverse[:3, :3] @ turn
    matrix = torch.from_numpy(np.broadcast_to(by_mm, (count, 3, 3)).copy())
    system = torch.einsum("nijab,nip,njq->napbq", system.double().reshape(count, 3, 3, 4, 4), matrix, matrix)
    right = torch.einsum("nia,nip->nap", right.double(), matrix)
    return _NormalEquations(
        system.reshape(count, _UNKNOWNS, _UNKNOWNS), right.reshape(count, _UNKNOWNS), misfit.double()
    )


def _solve(
    equations: _NormalEquations, turned: NDArray[np.float64], moved: NDArray[np.float64], hold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One Gauss-Newton step.

    The prior on the position counts as one more measurement: its weight is `hold` times the misfit, since the system
    divided by the misfit is the inverse covariance of the unknowns.

    Args:
        equations: Of both directions.
        turned: (N, 3, 3), by how much the linear part differs from its prior.
        moved: (N, 3), by how much the position differs from its prior, mm.
        hold: See `align_neighbourhoods`.

    Returns:
        (N, 4, 3): the step of the position and of the linear part; and (N,), see `Aligned.looseness_mm`.
    """
    count = len(turned)
    # Mean weight of the data on a shift: what is added is measured by it.
    scale = equations.system.diagonal(dim1=1, dim2=2)[:, :3].mean(dim=1)[:, None] + 1e-9
    stiff = torch.cat([torch.zeros(3), torch.full((_UNKNOWNS - 3,), STIFFNESS)]).double()
    held = torch.from_numpy(turned.transpose(0, 2, 1).reshape(count, -1) * REACH_MM)
    misfit = equations.misfit.clamp(min=LEAST_MISFIT)[:, None]
    pulled = equations.right[:, :3] - hold * misfit * torch.from_numpy(moved)
    right = torch.cat([pulled, equations.right[:, 3:] - scale * STIFFNESS * held], dim=1)
    free = equations.system + torch.diag_embed(scale * (stiff + 1e-3))
    known = torch.cat([torch.ones(3), torch.zeros(_UNKNOWNS - 3)]).double()
    step = torch.linalg.solve(free + torch.diag_embed(hold * misfit * known), right)
    spread = torch.linalg.eigvalsh(torch.linalg.inv(free)[:, :3, :3])[:, -1]
    return step.numpy().reshape(count, 4, 3), (spread * misfit[:, 0]).sqrt().numpy()


def _shortened(vectors: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Vectors no longer than a limit."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * np.minimum(1.0, limit / np.maximum(length, 1e-12)))
