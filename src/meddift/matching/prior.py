"""The affine prior: what most matches of two scans agree on, and how the rest bends around it."""

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

#: A match counts as mutual if matching back ends no farther from its start, mm.
MUTUAL_MM = 8.0
#: How far around its start a point is looked for when matching back from somewhere in the other scan, mm.
RETURN_MM = 30.0
#: How far from the first prior points are looked for once more, mm.
AGAIN_MM = 20.0
#: Matches that have to agree with their neighbours, at least.
LEAST_ANCHORS = 12
#: Distance of the neighbours that are compared along with each point, mm.
SUPPORT_MM = 8.0
#: Weights of matches at points that are held at a time: 8 MB of them on a processor, more elsewhere.
WEIGHTS_AT_ONCE, DEVICE_WEIGHTS_AT_ONCE = 1_000_000, 50_000_000


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
        similarity: Median similarity of the matches, as semantic levels see it: what to expect of a right one.
    """

    affine: AffineTransform
    anchors: NDArray[np.float64]
    residuals: NDArray[np.float64]
    width_mm: float = 20.0
    matched: int = 0
    similarity: float = float("nan")

    def __repr__(self) -> str:
        """The affine, and how many matches bend it."""
        return f"MatchedPrior({self.affine!r}, bent by {len(self.anchors)} matches)"

    @overload
    def apply(self, positions: Tensor) -> Tensor: ...
    @overload
    def apply(self, positions: ArrayLike) -> NDArray[np.float64]: ...
    def apply(self, positions: Any) -> Any:
        """Map (N, 3) world RAS mm on the fixed scan to where they are expected on the moving scan."""
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
            # The 0.2 stands for one unseen match that agrees with the affine: it fades the bending out.
            moved[rows] += weight @ residuals / (weight.sum(1)[:, None] + 0.2)
        return moved.reshape(world.shape)

    @property
    def matches(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(M, 3) fixed points of the matches that agree, and (M, 3) where they were found, world RAS mm."""
        return self.anchors, self.affine.apply(self.anchors) + self.residuals

    def inverted(self) -> NumericalInverse:
        """The inverse of this very map, found point by point."""
        return NumericalInverse(self, self.affine)


def match_prior(
    fixed: SearchIndex, moving: SearchIndex, positions: NDArray[np.float64], *, seed: int = 0
) -> MatchedPrior:
    """Match points over the whole of the moving scan, keep what agrees, then match again near what that predicts.

    Args:
        fixed: Semantic levels of the fixed scan, on a coarse grid.
        moving: The same of the moving scan.
        positions: (N, 3) float64, points with texture on the fixed scan, world RAS mm.
        seed: Of the robust fit.

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
    # Near the right place many more points are found than over the whole scan.
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
    # Scans with nothing in common agree by chance here and there, but not this often.
    needed = max(LEAST_ANCHORS, len(positions) // 10)
    if len(first.anchors) < needed:
        raise NoCorrespondenceError(
            f"only {len(first.anchors)} of {len(positions)} places are matched in agreement with their neighbours "
            f"({needed} are needed): the scans have no reliable correspondence"
        )
    return first


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
    """(N,) bool, whether matching back, within a radius of the start, ends near the start."""
    returned = locate_nearby(moving, fixed, found, positions, back, radius_mm=radius_mm, support_mm=support_mm)
    return np.asarray(np.linalg.norm(returned.positions - positions, axis=1) <= MUTUAL_MM)


def _bent(
    affine: AffineTransform, anchors: NDArray[np.float64], ends: NDArray[np.float64], *, matched: int
) -> MatchedPrior:
    """The affine and what it misses, where neighbours miss it alike."""
    residuals = ends - affine.apply(anchors)
    keep = _agreeing(anchors, residuals)
    return MatchedPrior(affine, anchors[keep], residuals[keep], matched=matched)


def _weights(positions: Any, anchors: Any, width_mm: float) -> Any:
    """(N, M), Gaussian weights of M places at N others; arrays or tensors."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b would lose digits far from the origin.
    squared = (positions[:, 0, None] - anchors[None, :, 0]) ** 2
    for axis in (1, 2):
        squared += (positions[:, axis, None] - anchors[None, :, axis]) ** 2
    squared /= -2 * width_mm**2
    return squared.exp_() if is_tensor(squared) else np.exp(squared, out=squared)


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
