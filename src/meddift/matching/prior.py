"""The matched prior: an affine fitted robustly to matches of two scans, corrected locally by their residuals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError
from meddift.geometry import AffineTransform, Transform
from meddift.geometry.inverse import NumericalInverse
from meddift.geometry.sampling import chunks, constant, is_tensor
from meddift.matching.index import SearchIndex
from meddift.matching.locate import locate_nearby
from meddift.matching.maps import search_maps
from meddift.matching.robust import fit_robust_affine

if TYPE_CHECKING:
    from torch import Tensor

#: Largest inverse-consistency error of a match that is used, mm.
MUTUAL_MM = 8.0
#: Radius around the original point that is searched when matching back, mm.
RETURN_MM = 30.0
#: Radius around the first prior that is searched in the second round, mm.
AGAIN_MM = 20.0
#: Smallest number of matches that agree with their neighbours.
LEAST_ANCHORS = 12
#: Distance of the neighbours that are compared together with each point, mm.
SUPPORT_MM = 8.0
#: Number of weights (point times match) that are held at a time, on the CPU and on a GPU.
WEIGHTS_AT_ONCE, DEVICE_WEIGHTS_AT_ONCE = 1_000_000, 50_000_000


@dataclass(frozen=True, eq=False)
class MatchedPrior:
    """An affine that is corrected by the residuals of the matches it was fitted to.

    `apply` adds to the affine a Gaussian-weighted mean of the residuals of matches nearby, so that the search radius
    need not cover breathing and posture. Far from all matches it is the affine alone.

    Attributes:
        affine: Fixed to moving.
        anchors: (M, 3) float64, fixed points of the matches that agree with their neighbours, world RAS mm.
        residuals: (M, 3) float64, matched position minus affine prediction, mm.
        width_mm: Standard deviation of the Gaussian weights, mm.
        matched: Number of matches to which the affine was fitted.
        similarity: Median similarity of the matches with the semantic levels, typical of correct matches.
        asked: Number of points that were matched.
    """

    affine: AffineTransform
    anchors: NDArray[np.float64]
    residuals: NDArray[np.float64]
    width_mm: float = 20.0
    matched: int = 0
    similarity: float = float("nan")
    asked: int = 0

    def __repr__(self) -> str:
        """The affine, and the number of matches that correct it."""
        return f"MatchedPrior({self.affine!r}, bent by {len(self.anchors)} matches)"

    @overload
    def apply(self, positions: Tensor) -> Tensor: ...
    @overload
    def apply(self, positions: ArrayLike) -> NDArray[np.float64]: ...
    def apply(self, positions: Any) -> Any:
        """Map (N, 3) points on the fixed scan, world RAS mm, to their expected positions on the moving scan."""
        world: Any = positions if is_tensor(positions) else np.asarray(positions, dtype=np.float64)
        flat = world.reshape(-1, 3)
        moved: Any = self.affine.apply(flat)
        anchors: Any = self.anchors
        residuals: Any = self.residuals
        at_once = WEIGHTS_AT_ONCE
        if is_tensor(flat):
            anchors, residuals = constant(flat, anchors), constant(flat, residuals)
            at_once = WEIGHTS_AT_ONCE if flat.device.type == "cpu" else DEVICE_WEIGHTS_AT_ONCE
        for rows in chunks(len(flat), size=max(1, at_once // max(1, len(anchors)))):
            weight = _weights(flat[rows], anchors, self.width_mm)
            # The 0.2 acts as the weight of a match without residual, so that the correction fades with distance.
            moved[rows] += weight @ residuals / (weight.sum(1)[:, None] + 0.2)
        return moved.reshape(world.shape)

    @property
    def matches(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(M, 3) fixed points and (M, 3) moving points of the agreeing matches, float64, world RAS mm."""
        return self.anchors, self.affine.apply(self.anchors) + self.residuals

    @property
    def share(self) -> float:
        """Share of the points whose matches agree with their neighbours, 0 to 1."""
        return len(self.anchors) / self.asked if self.asked else 0.0

    def inverted(self) -> NumericalInverse:
        """The inverse of this map, computed numerically for each point."""
        return NumericalInverse(self, self.affine)


def match_prior(
    fixed: SearchIndex, moving: SearchIndex, positions: NDArray[np.float64], *, seed: int = 0
) -> MatchedPrior:
    """Fit a prior: match points over the whole moving scan, then again near the positions that this predicts.

    Args:
        fixed: Index of the fixed scan with semantic levels on a coarse grid.
        moving: Index of the moving scan with the same levels.
        positions: (N, 3) float64, landmarks on the fixed scan, world RAS mm.
        seed: Seed of the robust fit.

    Raises:
        NoCorrespondenceError: if the scans have no reliable correspondence.
    """
    if len(positions) < 8:
        raise NoCorrespondenceError(f"only {len(positions)} places of the fixed scan have any texture to match")
    straight = AffineTransform.identity()
    found = search_maps(moving, fixed.describe(positions), rivals=False)
    world = moving.grid.index_to_world(found.voxels)
    mutual = _returns(fixed, moving, positions, world, straight, radius_mm=RETURN_MM, support_mm=0.0)
    fit = fit_robust_affine(positions[mutual], world[mutual], tolerance_mm=20.0, seed=seed)
    anchors, ends = positions[mutual][fit.inliers], world[mutual][fit.inliers]
    first = _bent(fit.transform, anchors, ends, matched=int(mutual.sum()))
    # A search near the predicted positions finds many more correct matches than a global one.
    near = locate_nearby(
        fixed, moving, positions, first.apply(positions), first, radius_mm=AGAIN_MM, support_mm=SUPPORT_MM
    )
    mutual = ~near.at_border
    mutual &= _returns(
        fixed, moving, positions, near.positions, first.inverted(), radius_mm=AGAIN_MM, support_mm=SUPPORT_MM
    )
    similarity = float(np.median(near.similarity[mutual])) if mutual.any() else float("nan")
    first = replace(first, similarity=similarity)
    if mutual.sum() >= len(first.anchors):
        fit = fit_robust_affine(positions[mutual], near.positions[mutual], tolerance_mm=20.0, seed=seed)
        bent = _bent(fit.transform, positions[mutual], near.positions[mutual], matched=int(mutual.sum()))
        first = replace(bent, similarity=similarity)
    # Unrelated scans agree by chance at some points, but not at this many.
    needed = max(LEAST_ANCHORS, len(positions) // 10)
    if len(first.anchors) < needed:
        raise NoCorrespondenceError(
            f"only {len(first.anchors)} of {len(positions)} places are matched in agreement with their neighbours "
            f"({needed} are needed): the scans have no reliable correspondence"
        )
    return replace(first, asked=len(positions))


def _returns(
    fixed: SearchIndex,
    moving: SearchIndex,
    positions: NDArray[np.float64],
    found: NDArray[np.float64],
    back: Transform,
    *,
    radius_mm: float,
    support_mm: float,
) -> NDArray[np.bool_]:
    """(N,) bool, whether matching back, within a radius of the original point, ends within `MUTUAL_MM` of it."""
    returned = locate_nearby(moving, fixed, found, positions, back, radius_mm=radius_mm, support_mm=support_mm)
    return np.asarray(np.linalg.norm(returned.positions - positions, axis=1) <= MUTUAL_MM)


def _bent(
    affine: AffineTransform, anchors: NDArray[np.float64], ends: NDArray[np.float64], *, matched: int
) -> MatchedPrior:
    """The prior of an affine and the residuals of those matches that agree with their neighbours."""
    residuals = ends - affine.apply(anchors)
    keep = _agreeing(anchors, residuals)
    return MatchedPrior(affine, anchors[keep], residuals[keep], matched=matched)


def _weights(positions: Any, anchors: Any, width_mm: float) -> Any:
    """(N, M), Gaussian weights of M anchors at N positions; arrays or tensors."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b would lose precision far from the origin.
    squared = (positions[:, 0, None] - anchors[None, :, 0]) ** 2
    for axis in (1, 2):
        squared += (positions[:, axis, None] - anchors[None, :, axis]) ** 2
    squared /= -2 * width_mm**2
    return squared.exp_() if is_tensor(squared) else np.exp(squared, out=squared)


def _agreeing(
    anchors: NDArray[np.float64], residuals: NDArray[np.float64], limit_mm: float = 8.0
) -> NDArray[np.bool_]:
    """(M,) bool, matches whose residual agrees with the weighted mean of their neighbours' residuals.

    Two passes: matches that disagree in the first do not count in the second.
    """
    keep = np.ones(len(anchors), dtype=bool)
    weight = _weights(anchors, anchors, 30.0)
    np.fill_diagonal(weight, 0.0)
    for limit in (1.5 * limit_mm, limit_mm):
        voting = weight * keep
        expected = voting @ residuals / (voting.sum(axis=1, keepdims=True) + 0.2)
        keep = np.linalg.norm(residuals - expected, axis=1) <= limit
    return keep
