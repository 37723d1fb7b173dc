"""The affine prior: what most matches of two scans agree on, and how the rest bends around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError
from meddift.geometry import AffineTransform
from meddift.matching import Found, SearchIndex, fit_robust_affine, search_maps

#: A match counts as mutual if matching back ends no farther from its start, mm.
MUTUAL_MM = 12.0


@dataclass(frozen=True, eq=False)
class MatchedPrior:
    """An affine, bent towards the matches it was fitted to.

    `apply` adds to the affine a weighted mean of what it misses at the matches nearby (Gaussian weights), so that
    breathing and posture need not be covered by the search radius. Far from any match it is the affine alone.

    Attributes:
        affine: Fixed to moving.
        anchors: (M, 3) float64, fixed points of the matches that agree, world RAS mm.
        residuals: (M, 3) float64, by how much the affine misses them, mm.
        width_mm: Standard deviation of the weights.
        matched: How many matches the affine was fitted to in all.
    """

    affine: AffineTransform
    anchors: NDArray[np.float64]
    residuals: NDArray[np.float64]
    width_mm: float = 20.0
    matched: int = 0

    def apply(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Map (N, 3) world RAS mm on the fixed scan to where they are expected on the moving scan."""
        world = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
        weight = _weights(world, self.anchors, self.width_mm)
        # The 0.2 stands for one unseen match that agrees with the affine: it fades the bending out.
        bending = weight @ self.residuals / (weight.sum(axis=1, keepdims=True) + 0.2)
        return np.asarray(self.affine.apply(world) + bending)

    def swapped(self) -> MatchedPrior:
        """The prior for matching back: the same matches, moving to fixed."""
        moving = self.affine.apply(self.anchors) + self.residuals
        inverse = self.affine.inverted()
        return MatchedPrior(inverse, moving, self.anchors - inverse.apply(moving), self.width_mm, self.matched)


def match_prior(
    fixed: SearchIndex, moving: SearchIndex, positions: NDArray[np.float64], *, seed: int = 0
) -> MatchedPrior:
    """Match points in both directions over the whole of both scans, and keep what agrees.

    Args:
        fixed: Semantic levels of the fixed scan, on a coarse lattice.
        moving: The same of the moving scan.
        positions: (N, 3) float64, points with texture on the fixed scan, world RAS mm.
        seed: Of the robust fit.

    Raises:
        NoCorrespondenceError: if the scans have no reliable correspondence.
    """
    if len(positions) < 8:
        raise NoCorrespondenceError(f"only {len(positions)} places of the fixed scan have any texture to match")
    found = _world(moving, search_maps(moving, fixed.describe(positions), rivals=False))
    back = _world(fixed, search_maps(fixed, moving.describe(found), rivals=False))
    mutual = np.linalg.norm(back - positions, axis=1) <= MUTUAL_MM
    start, end = positions[mutual], found[mutual]
    fit = fit_robust_affine(start, end, tolerance_mm=20.0, seed=seed)
    anchors, ends = start[fit.inliers], end[fit.inliers]
    residuals = ends - fit.transform.apply(anchors)
    keep = _agreeing(anchors, residuals)
    return MatchedPrior(fit.transform, anchors[keep], residuals[keep], matched=int(mutual.sum()))


def _world(index: SearchIndex, found: Found) -> NDArray[np.float64]:
    return index.lattice.index_to_world(found.voxels)


def _weights(positions: NDArray[np.float64], anchors: NDArray[np.float64], width_mm: float) -> NDArray[np.float64]:
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b would lose digits far from the origin; the differences are few enough.
    squared = ((positions[:, None] - anchors[None]) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-squared / (2 * width_mm**2)))


def _agreeing(
    anchors: NDArray[np.float64], residuals: NDArray[np.float64], limit_mm: float = 8.0
) -> NDArray[np.bool_]:
    """Which matches agree with the weighted mean of their neighbours; twice, so that the worst do not vote again."""
    keep = np.ones(len(anchors), dtype=bool)
    weight = _weights(anchors, anchors, 30.0)
    np.fill_diagonal(weight, 0.0)
    for limit in (1.5 * limit_mm, limit_mm):
        voting = weight * keep
        expected = voting @ residuals / (voting.sum(axis=1, keepdims=True) + 0.2)
        keep = np.linalg.norm(residuals - expected, axis=1) <= limit
    return keep
