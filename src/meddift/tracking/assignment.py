"""Which lesion of one scan is which of another: cost of each link, linear assignment, splits and merges.

Linear assignment on gated costs with dummies for lesions that went and came, as in Santoro-Fernandes et al. 2021
(Phys Med Biol 66) and Huff et al. 2023 (Phys Med Biol 68 175031); the costs are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.tracking.candidates import Candidate
from meddift.tracking.carried import Carried

Floats = NDArray[np.float64]

#: A link that costs more than this is none, mm.
LIMIT_MM = 12.0
#: What no overlap at all adds to a cost, and what a volume e times as large or small adds, mm.
OVERLAP_MM, VOLUME_MM = 3.0, 1.0
#: Volumes more different than e to this power are not held against a link any more.
_MOST_VOLUME = 3.0
#: Voxels closer than this to those of another lesion overlap with it, mm: about the error of the best matching.
NEAR_MM = 2.0
#: A lesion is part of another if so much of it lies where the other is expected (or the other way round).
PART = 0.5


@dataclass(frozen=True)
class LinkCost:
    """How well a lesion, as expected, fits one that was found.

    Attributes:
        cost_mm: All together; a link costs less than `LIMIT_MM`.
        distance_mm: Between the middles.
        gap_mm: From the middle of either to the closest voxel of the other.
        overlap: Dice coefficient with `NEAR_MM` of tolerance, 0 to 1; NaN for points.
        covered: Share of the lesion expected that lies on the one found; NaN for points.
        covers: Share of the one found that lies where the lesion is expected; NaN for points.
    """

    cost_mm: float
    distance_mm: float
    gap_mm: float
    overlap: float
    covered: float
    covers: float


def link_cost(expected: Carried, source: Candidate, found: Candidate) -> LinkCost | None:
    """Cost of a link in mm, or None where the place is not known.

    The distance counts as the mean of that between the middles and the gap: what is left of a large lesion may lie far
    from its middle, but not far from the lesion.
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
    """Pairs of rows and columns with the least sum, where leaving a pair apart costs `limit`.

    Args:
        costs: (R, C) float; NaN or infinite where there can be no link.
        limit: A row and a column stay without partner rather than be linked at this cost or above.

    Returns:
        Row and column of each link, by row.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = costs.shape
    allowed = np.isfinite(costs) & (costs < limit)
    if not allowed.any():
        return []
    never = limit * (rows + columns + 1) * 10
    square = np.full((rows + columns, rows + columns), never)
    square[:rows, :columns] = np.where(allowed, costs, never)
    # Each has a dummy of its own; dummies go with dummies for nothing.
    square[np.arange(rows), columns + np.arange(rows)] = limit / 2
    square[rows + np.arange(columns), np.arange(columns)] = limit / 2
    square[rows:, columns:] = 0.0
    first, second = linear_sum_assignment(square)
    return [(int(r), int(c)) for r, c in zip(first, second, strict=True) if r < rows and c < columns and allowed[r, c]]


def belongs(cost: LinkCost | None) -> bool:
    """Whether one lesion is part of the other: it lies where the other is expected, or the other way round."""
    return cost is not None and (cost.covers >= PART or cost.covered >= PART)


def parts_of(costs: Sequence[LinkCost | None], taken: set[int]) -> list[int]:
    """Candidates, not taken yet, that lie where a lesion is expected: it has split.

    Args:
        costs: Of one lesion to every candidate.
        taken: Candidates that are linked already.
    """
    return [j for j, cost in enumerate(costs) if j not in taken and cost is not None and cost.covers >= PART]


def _nearest(places: Floats, among: Floats) -> Floats:
    """(N,) distance of each place to the closest of others, mm."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(among).query(places)[0])
