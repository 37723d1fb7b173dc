"""Between voxels: the neighbourhood of each point is laid over its counterpart by least squares, both ways at once.

A neighbourhood is a ball of voxels around a point. A small affine map takes it to the other scan; of all such maps the
one is found at which descriptors differ least (Lucas and Kanade 1981, by Gauss-Newton steps). Stretching and turning
are found along with the place, because a neighbourhood that is laid on askew is laid on beside the point.

Descriptors are not linear between voxels, and what interpolation adds is alike at all places that lie alike between
voxels. So one scan is always read on its voxels: the voxels around the fixed point are compared with places between
moving voxels, and the voxels around the moving place with places between fixed ones, by the same map.
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
#: How stiff the linear part is, relative to what descriptors ask of the place: it keeps what even tissue leaves open.
STIFFNESS = 0.03
#: Descriptors that agree better than this do so by chance, or because both scans are the same file.
LEAST_MISFIT = 1e-4
#: Differences of this many times the median of a neighbourhood count a quarter (Geman and McClure).
ROBUST = 2.0

#: Unknowns of a point: a shift, and how the ends of the neighbourhood's three axes move.
_UNKNOWNS = 12


@dataclass(frozen=True, eq=False)
class Aligned:
    """Where neighbourhoods fit best, and how well.

    Attributes:
        positions: (N, 3) float64 on the moving scan, world RAS mm.
        misfit: (N,) float64, mean squared difference of the unit descriptors of a neighbourhood and its counterpart: 0
            where they are equal, 2 where they have nothing in common.
        looseness_mm: (N,) float64, by how much the place may slide in its loosest direction before the fit gets worse
            by what it lacks anyway: about 0.4 on vessels, above 1 in even tissue, very large where there is nothing to
            see. A measure, not an error: neighbouring descriptors share their noise.
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
        hold: How strongly places are held where they were found, 1/mm^2: along a direction in which the fit leaves a
            looseness of s mm, a place goes 1 / (1 + hold s^2) of the way. With 0 the fit alone decides.

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
    share = _share(offsets)
    place, bent = found.copy(), linear.copy()
    misfit = loose = np.full(len(found), np.nan)
    for _ in range(ROUNDS):
        there = place[:, None] + np.einsum("nij,nkj->nki", bent, offsets)
        asked = _asked(around, moving, there, share, offsets, None)
        # The same map the other way: what its unknowns do to a fixed place is what they do to a moving one, undone.
        undone = np.linalg.inv(bent)
        back = np.einsum("nij,nkj->nki", undone, beyond.positions - place[:, None])
        asked = asked.and_also(_asked(beyond, fixed, positions[:, None] + back, _share(back), back, -undone))
        step, loose = _solve(asked, bent - linear, place - found, hold)
        misfit = asked.misfit.numpy()
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
        exist: (N, K) bool, False beyond the lattice.
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


def _share(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K), how much places count that lie (N, K, 3) mm away."""
    distance = np.linalg.norm(offsets, axis=-1)
    return np.asarray(np.exp(-0.5 * (distance / SIGMA_MM) ** 2) * (distance <= REACH_MM))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What descriptors ask of the unknowns: normal equations, and how large the differences behind them are.

    Attributes:
        system: (N, 12, 12) float64.
        right: (N, 12) float64.
        misfit: (N,) float64, mean squared difference.
    """

    system: torch.Tensor
    right: torch.Tensor
    misfit: torch.Tensor

    def and_also(self, other: _Asked) -> _Asked:
        """Of both directions together."""
        return _Asked(self.system + other.system, self.right + other.right, (self.misfit + other.misfit) / 2)


def _asked(
    voxels: _Voxels,
    other: Level,
    places: NDArray[np.float64],
    weight: NDArray[np.float64],
    offsets: NDArray[np.float64],
    turn: NDArray[np.floating] | None,
) -> _Asked:
    """What one direction asks.

    Args:
        voxels: What is wanted.
        other: Descriptors of the scan in which it is looked for.
        places: (N, K, 3), where it is looked for now, world RAS mm.
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
    return _Asked(system.reshape(count, _UNKNOWNS, _UNKNOWNS), right.reshape(count, _UNKNOWNS), misfit.double())


def _solve(
    asked: _Asked, turned: NDArray[np.float64], moved: NDArray[np.float64], hold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 4, 3): the step, place and linear part held back towards what was known before; and (N,), the looseness.

    What was known of the place counts as one more measurement: its weight is `hold` times the misfit, since a system
    divided by the misfit is the inverse of the covariance of what it determines.
    """
    count = len(turned)
    # What descriptors ask of a shift, on average over its directions: the measure of all that is added.
    scale = asked.system.diagonal(dim1=1, dim2=2)[:, :3].mean(dim=1)[:, None] + 1e-9
    stiff = torch.cat([torch.zeros(3), torch.full((_UNKNOWNS - 3,), STIFFNESS)]).double()
    held = torch.from_numpy(turned.transpose(0, 2, 1).reshape(count, -1) * REACH_MM)
    misfit = asked.misfit.clamp(min=LEAST_MISFIT)[:, None]
    pulled = asked.right[:, :3] - hold * misfit * torch.from_numpy(moved)
    right = torch.cat([pulled, asked.right[:, 3:] - scale * STIFFNESS * held], dim=1)
    free = asked.system + torch.diag_embed(scale * (stiff + 1e-3))
    known = torch.cat([torch.ones(3), torch.zeros(_UNKNOWNS - 3)]).double()
    step = torch.linalg.solve(free + torch.diag_embed(hold * misfit * known), right)
    spread = torch.linalg.eigvalsh(torch.linalg.inv(free)[:, :3, :3])[:, -1]
    return step.numpy().reshape(count, 4, 3), (spread * misfit[:, 0]).sqrt().numpy()


def _shortened(vectors: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Vectors no longer than a limit."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * np.minimum(1.0, limit / np.maximum(length, 1e-12)))
