"""Matching points under a displacement field: each is mapped by the field, then its neighbourhood is aligned."""

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

#: Largest correction of the position given by the field, mm.
LIMIT_MM = 4.0
#: Weight of the position given by the field, 1/mm^2; `hold` of `align_neighbourhoods`.
HOLD = 2.0
#: Uncertainty of the surface of the sliding mask, mm: both groups are tried for points closer to it.
SURFACE_MM = 8.0
#: A point outside the mask is assigned to the lung if its misfit there is smaller by this factor.
PREFERRED = 0.95
#: If the misfits of both groups differ by less than this factor, the assignment of a point is uncertain.
DECIDED = 1.5
#: Radius in which rivals are searched, mm.
RIVALS_MM = 20.0


#: A level of the network is used in verdicts only if it agrees with at least this share of the landmarks.
LEAST_SHARE = 0.7


@dataclass(frozen=True)
class Usual:
    """Typical values of correct matches between two scans, measured at landmarks.

    Attributes:
        similarity: Median similarity over all levels; NaN where unknown.
        shares: Name of each semantic level -> share of the landmarks at which this level alone prefers the position
            found.
    """

    similarity: float
    shares: dict[str, float]

    @property
    def earned(self) -> tuple[str, ...]:
        """Names of the semantic levels that are used in verdicts."""
        return tuple(name for name, share in self.shares.items() if share >= LEAST_SHARE)


def align_under(
    field: Field,
    sides: tuple[Side, Side],
    positions: NDArray[np.float64],
    *,
    confidence: bool,
    group: NDArray[np.int64] | None = None,
) -> Located:
    """Match points that the field maps into the moving scan.

    Args:
        field: Fixed to moving.
        sides: The fixed and the moving scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        confidence: Whether to align back; otherwise `inverse_error_mm` is NaN.
        group: (N,) int64, the sliding group of each point; None = that of `Field.group_of`.

    Returns:
        One row for each point; `margin` is NaN, see `semantic_margin`.
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
        # Only changes towards the lung are made: vessels near the hilum resemble the tissue outside of it.
        other = _aligned(field, fixed, moving, positions[rows], 1 - group[rows])
        apart = np.linalg.norm(other.expected - found.expected[rows], axis=1)
        # Misfits below `LEAST_MISFIT` are noise, as in homogeneous tissue.
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
    # The inverse of the field at the positions found, and the inverse of its Jacobian there.
    start, undone = np.empty((count, 3)), np.empty((count, 3, 3))
    for number, part in enumerate(field.parts):
        rows = group == number
        if isinstance(part, NumericalInverse):  # its inverse is known exactly
            start[rows] = part.inverted().apply(found.positions[rows])
        else:
            start[rows] = invert_points(part, field.affine, found.positions[rows], start=positions[rows])
        undone[rows] = np.linalg.inv(local_linear(part, start[rows]))
    back = align_neighbourhoods(moving, fixed, found.positions, start, undone, limit_mm=LIMIT_MM, hold=HOLD)
    return replace(found, inverse_error_mm=np.linalg.norm(back.positions - positions, axis=1))


def under_support(field: Field, positions: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Support and uncertainty of the field at points.

    Args:
        field: Fixed to moving.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.

    Returns:
        (N,) bool, whether neighbours agree with the field, and (N,) float64, its expected error in mm; True and NaN
        if nothing was matched densely.
    """
    if field.support is None:
        return np.ones(len(positions), dtype=bool), np.full(len(positions), np.nan)
    at = torch.from_numpy(positions)
    supported, uncertainty = field.support.supported_at(at), field.support.uncertainty_at(at).double()
    return supported.cpu().numpy(), uncertainty.cpu().numpy()


def _aligned(
    field: Field, fixed: Level, moving: Level, positions: NDArray[np.float64], group: NDArray[np.int64]
) -> Located:
    """Map points by the field of their group, then align their neighbourhoods."""
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
    """(N,) bool, whether points lie within `SURFACE_MM` of the sliding surface, so that their group is uncertain."""
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
    """How much some levels prefer the positions found over rivals nearby.

    Args:
        field: Fixed to moving.
        indexes: Indexes of the fixed and the moving scan with these levels.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64 on the moving scan, world RAS mm.

    Returns:
        (N,) float64, difference in similarity to the best rival; negative where a rival is preferred.
    """
    near = locate_nearby(*indexes, positions, found, field.transform, radius_mm=RIVALS_MM, support_mm=0.0)
    away = np.linalg.norm(near.positions - found, axis=1)
    return np.where(away <= RIVALS_MM / 2, near.margin, -np.abs(near.margin))


def similarity_at(
    sides: tuple[Side, Side], positions: NDArray[np.float64], found: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Similarity of points to the positions found.

    Args:
        sides: The fixed and the moving scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64 on the moving scan, world RAS mm.

    Returns:
        (N,) float64, weighted mean cosine over all levels.
    """
    fixed, moving = (side.every for side in sides)
    total = torch.zeros(len(positions), dtype=torch.float64, device=moving.device)
    for level, one, other in zip(moving.levels, fixed.describe(positions), moving.describe(found), strict=True):
        total += level.share * (one * other).sum(dim=1).double()
    return total.cpu().numpy()
