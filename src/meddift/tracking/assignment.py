"""Assigning the lesions of one scan to those of another: cost of each link, linear assignment, splits and merges.

Linear assignment on gated costs, with dummies for lesions that disappear and appear, as in Santoro-Fernandes et al.
2021 (Phys Med Biol 66) and Huff et al. 2023 (Phys Med Biol 68 175031); the costs are different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.tracking.candidates import Candidate
from meddift.tracking.carried import Carried

Floats = NDArray[np.float64]

#: Largest cost of a link, mm.
LIMIT_MM = 12.0
#: Cost of having no overlap, and cost of a ratio of volumes of e, mm.
OVERLAP_MM, VOLUME_MM = 3.0, 1.0
#: Largest absolute logarithm of the ratio of volumes that is counted.
_MOST_VOLUME = 3.0
#: Voxels closer than this to those of another lesion count as overlapping, mm: about the error of matching.
NEAR_MM = 2.0
#: A lesion is part of another if at least this share of it lies where the other is expected, or vice versa.
PART = 0.5


@dataclass(frozen=True)
class LinkCost:
    """The cost of linking a lesion, at its expected position, to a candidate.

    Attributes:
        cost_mm: Total cost, mm; a link costs less than `LIMIT_MM`.
        distance_mm: Distance between the centres, mm.
        gap_mm: Distance from either centre to the closest voxel of the other lesion, mm.
        overlap: Dice coefficient with a tolerance of `NEAR_MM`, 0 to 1; NaN for points.
        covered: Share of the expected lesion that lies on the candidate; NaN for points.
        covers: Share of the candidate that lies on the expected lesion; NaN for points.
    """

    cost_mm: float
    distance_mm: float
    gap_mm: float
    overlap: float
    covered: float
    covers: float


def link_cost(expected: Carried, source: Candidate, found: Candidate) -> LinkCost | None:
    """Compute the cost of a link.

    The distance term is the mean of the distance between the centres and the gap, since the remainder of a large
    lesion may lie far from its former centre, but not far from the lesion.

    Args:
        expected: The lesion at its expected position in the scan.
        source: The same lesion in the scan in which it was marked.
        found: A candidate of the scan.

    Returns:
        The cost; None if the expected position is unknown.
    """
    if expected.verdict == "outside" or np.isnan(expected.center).any():
        return None
    distance = float(np.linalg.norm(expected.center - found.center))
    covered = covers = overlap = float("nan")
    gap = distance
    if len(found.cloud):
        gap = min(gap, float(_nearest(expected.center[None], found.cloud)[0]))
    if len(expected.cloud):
        gap = min(gap, float(_nearest(found.center[None], expected.cloud)[0]))
    cost = (distance + gap) / 2
    if len(found.cloud) and len(expected.cloud):
        if gap > 2 * LIMIT_MM:
            covered = covers = 0.0
        else:
            covered = float((_nearest(expected.cloud, found.cloud) <= NEAR_MM).mean())
            covers = float((_nearest(found.cloud, expected.cloud) <= NEAR_MM).mean())
        first, second = source.volume_mm3, found.volume_mm3
        overlap = (covered * first + covers * second) / (first + second)
        cost += OVERLAP_MM * (1 - overlap) + VOLUME_MM * min(abs(float(np.log(second / first))), _MOST_VOLUME)
    return LinkCost(cost, distance, gap, overlap, covered, covers)


def assign(costs: Floats, *, limit: float = LIMIT_MM) -> list[tuple[int, int]]:
    """Find the set of links with the smallest total cost, where leaving a row and a column unlinked costs `limit`.

    Args:
        costs: (R, C) float, mm; NaN or infinite where no link is possible.
        limit: Links of this cost or more are not made, mm.

    Returns:
        (row, column) of each link, ordered by row.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = costs.shape
    allowed = np.isfinite(costs) & (costs < limit)
    if not allowed.any():
        return []
    never = limit * (rows + columns + 1) * 10
    square = np.full((rows + columns, rows + columns), never)
    square[:rows, :columns] = np.where(allowed, costs, never)
    # Each row and column has its own dummy; linking two dummies costs nothing.
    square[np.arange(rows), columns + np.arange(rows)] = limit / 2
    square[rows + np.arange(columns), np.arange(columns)] = limit / 2
    square[rows:, columns:] = 0.0
    first, second = linear_sum_assignment(square)
    return [(int(r), int(c)) for r, c in zip(first, second, strict=True) if r < rows and c < columns and allowed[r, c]]


def belongs(cost: LinkCost | None) -> bool:
    """Whether one lesion is part of the other: at least the share `PART` of either lies on the other."""
    return cost is not None and (cost.covers >= PART or cost.covered >= PART)


def parts_of(costs: Sequence[LinkCost | None], taken: set[int]) -> list[int]:
    """Further candidates that are parts of a lesion, which has split.

    Args:
        costs: Cost of linking the lesion to each candidate.
        taken: Numbers of the candidates that are linked already.

    Returns:
        Numbers of candidates.
    """
    return [j for j, cost in enumerate(costs) if j not in taken and cost is not None and cost.covers >= PART]


def _nearest(places: Floats, among: Floats) -> Floats:
    """(N,) distance of each of (N, 3) points to the closest of (M, 3) others, mm."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(among).query(places)[0])
