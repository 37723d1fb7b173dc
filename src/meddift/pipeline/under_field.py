"""Points under a field: each is put where the field has it, then its neighbourhood is aligned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.features import Level
from meddift.features.extraction import MIND
from meddift.geometry.inverse import NumericalInverse, invert_points
from meddift.matching import SearchIndex
from meddift.matching.align import LEAST_MISFIT, align_neighbourhoods
from meddift.matching.locate import Located, local_linear, locate_nearby
from meddift.pipeline.direction import Side
from meddift.registration.fitted import Field

#: No point moves farther from where the field has it, mm.
LIMIT_MM = 4.0
#: How strongly points are held by the field, 1/mm^2, see `align_neighbourhoods`.
HOLD = 2.0
#: Masks of what slides are right to about this much, mm: closer to their surface either side is tried.
SURFACE_MM = 8.0
#: What lies outside the mask is taken for a part of the lung if the misfit of its neighbourhood becomes less than
#: this much of what it was.
PREFERRED = 0.95
#: Misfits on both sides that differ by less than this factor do not tell to which side a point belongs.
DECIDED = 1.5
#: Rivals are looked for within this distance, mm.
RIVALS_MM = 20.0


#: A level of the network that would put fewer of the places with texture where they were found has no say in verdicts.
LEAST_SHARE = 0.7


@dataclass(frozen=True)
class Usual:
    """What right matches of two scans look like.

    Attributes:
        similarity: Median, of all levels; NaN where none is known.
        shares: For each semantic level the share of the places that it alone would put where they were found.
    """

    similarity: float
    shares: dict[str, float]

    @property
    def earned(self) -> tuple[str, ...]:
        """The semantic levels that have a say in verdicts."""
        return tuple(name for name, share in self.shares.items() if share >= LEAST_SHARE)


def align_under(
    field: Field,
    sides: tuple[Side, Side],
    positions: NDArray[np.float64],
    *,
    confidence: bool,
    group: NDArray[np.int64] | None = None,
) -> Located:
    """Find points that the field takes into the moving scan.

    Args:
        field: Fixed to moving.
        sides: The fixed and the moving scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        confidence: Whether to align back; else `inverse_error_mm` is NaN. `margin` always is, see `semantic_margin`.
        group: (N,) int64, to which part of the field each point belongs; None = as `Field.group_of` says.
    """
    count = len(positions)
    fixed, moving = (side.scan.level(MIND) for side in sides)
    group = field.group_of(positions) if group is None else group.copy()
    found = _aligned(field, fixed, moving, positions, group)
    if not count:
        return found
    doubtful = np.zeros(count)
    rows = np.flatnonzero(_near_the_surface(field, positions, group))
    if len(rows):
        # A vessel at the root of the lung looks like what lies outside; what looks like lung is lung.
        other = _aligned(field, fixed, moving, positions[rows], 1 - group[rows])
        apart = np.linalg.norm(other.expected - found.expected[rows], axis=1)
        # Below the least there is nothing but chance, as where both scans are even.
        ratio = np.maximum(other.misfit, LEAST_MISFIT) / np.maximum(found.misfit[rows], LEAST_MISFIT)
        doubtful[rows] = np.where(np.maximum(ratio, 1 / ratio) < DECIDED, apart, 0.0)
        better = np.flatnonzero((ratio < PREFERRED) & (group[rows] == 0))
        found.put(rows[better], other.rows(better))
        group[rows[better]] = 1
    similarity = similarity_at(sides, positions, found.positions)
    found = replace(found, similarity=similarity, first_similarity=similarity)
    supported, uncertainty = under_support(field, positions)
    found = replace(found, supported=supported, uncertainty_mm=np.maximum(uncertainty, doubtful))
    if not confidence:
        return found
    # Where the field has them on the way back, and how it is bent there.
    start, undone = np.empty((count, 3)), np.empty((count, 3, 3))
    for number, part in enumerate(field.parts):
        rows = group == number
        if isinstance(part, NumericalInverse):  # what it is the inverse of is known
            start[rows] = part.inverted().apply(found.positions[rows])
        else:
            start[rows] = invert_points(part, field.affine, found.positions[rows], start=positions[rows])
        undone[rows] = np.linalg.inv(local_linear(part, start[rows]))
    back = align_neighbourhoods(moving, fixed, found.positions, start, undone, limit_mm=LIMIT_MM, hold=HOLD)
    return replace(found, inverse_error_mm=np.linalg.norm(back.positions - positions, axis=1))


def under_support(field: Field, positions: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(N,) bool, whether neighbours agree with the field at (N, 3) fixed world RAS mm, and (N,) how far off it may be.

    Where nothing was matched densely: True, and NaN.
    """
    if field.support is None:
        return np.ones(len(positions), dtype=bool), np.full(len(positions), np.nan)
    at = torch.from_numpy(positions)
    supported, uncertainty = field.support.supported_at(at), field.support.uncertainty_at(at).double()
    return supported.cpu().numpy(), uncertainty.cpu().numpy()


def _aligned(
    field: Field, fixed: Level, moving: Level, positions: NDArray[np.float64], group: NDArray[np.int64]
) -> Located:
    """Points put where the part of the field of their group has them, then aligned."""
    expected, linear = np.empty((len(positions), 3)), np.empty((len(positions), 3, 3))
    for number, part in enumerate(field.parts):
        rows = group == number
        expected[rows], linear[rows] = part.apply(positions[rows]), local_linear(part, positions[rows])
    aligned = align_neighbourhoods(fixed, moving, positions, expected, linear, limit_mm=LIMIT_MM, hold=HOLD)
    return replace(
        Located.empty(len(positions)),
        positions=aligned.positions,
        expected=expected,
        misfit=aligned.misfit,
        standard_deviation_mm=aligned.standard_deviation_mm,
    )


def _near_the_surface(field: Field, positions: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) bool, whether the surface along which something slides may as well run on the other side of a point."""
    near = np.zeros(len(positions), dtype=bool)
    if field.sliding is None:
        return near
    for direction in product((-1, 0, 1), repeat=3):
        length = np.linalg.norm(direction)
        if length:
            near |= field.group_of(positions + np.array(direction) / length * SURFACE_MM) != group
    return near


def semantic_margin(
    field: Field,
    indexes: tuple[SearchIndex, SearchIndex],
    positions: NDArray[np.float64],
    found: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N,) float64, by how much some levels prefer the places found to others nearby; below 0 if they do not.

    Args:
        field: Fixed to moving.
        indexes: These levels of the fixed and of the moving scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64 on the moving scan, world RAS mm.
    """
    near = locate_nearby(*indexes, positions, found, field.transform, radius_mm=RIVALS_MM, support_mm=0.0)
    away = np.linalg.norm(near.positions - found, axis=1)
    return np.where(away <= RIVALS_MM / 2, near.margin, -np.abs(near.margin))


def similarity_at(
    sides: tuple[Side, Side], positions: NDArray[np.float64], found: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) float64, mean cosine of all levels between fixed points and their places on the moving scan."""
    fixed, moving = (side.every for side in sides)
    total = torch.zeros(len(positions), dtype=torch.float64, device=moving.device)
    for level, one, other in zip(moving.levels, fixed.describe(positions), moving.describe(found), strict=True):
        total += level.share * (one * other).sum(dim=1).double()
    return total.cpu().numpy()
