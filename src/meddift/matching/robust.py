"""Robust fitting of an affine or rigid transform to matches with outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError, TransformError
from meddift.geometry import AffineTransform
from meddift.geometry.transforms import rigid_motions


@dataclass(frozen=True, eq=False)
class RobustAffine:
    """The result of a robust fit.

    Attributes:
        transform: Fixed to moving.
        inliers: (N,) bool, whether each match agrees with it.
    """

    transform: AffineTransform
    inliers: NDArray[np.bool_]


def fit_robust_affine(
    fixed: NDArray[np.float64],
    moving: NDArray[np.float64],
    *,
    tolerance_mm: float = 15.0,
    rounds: int = 2000,
    seed: int = 0,
    largest_scale: float = 1.5,
    rigid: bool = False,
) -> RobustAffine:
    """Fit an affine or rigid transform to matches, of which some are wrong.

    Random sample consensus with local refinement (Fischler and Bolles 1981; Chum et al. 2003).

    Args:
        fixed: (N, 3) float64, points on the fixed scan, world RAS mm.
        moving: (N, 3) float64, their matches on the moving scan, world RAS mm.
        tolerance_mm: Largest residual of a match that agrees, mm.
        rounds: Number of random samples of four matches.
        seed: Seed of the sampling.
        largest_scale: Affines that stretch or shrink any direction by more than this factor are rejected, since scans
            of one patient do not differ by so much.
        rigid: Whether to fit a rotation and translation only.

    Raises:
        NoCorrespondenceError: if fewer than 8 matches, or less than a tenth of them, agree on any affine.
    """
    count = len(fixed)
    if count < 8:
        raise NoCorrespondenceError(f"only {count} matches between the two scans: too few to fit an affine to")
    generator = np.random.default_rng(seed)
    samples = generator.integers(count, size=(rounds, 4))
    # Four points that are nearly coplanar, or not all different, do not determine an affine.
    edges = fixed[samples[:, 1:]] - fixed[samples[:, :1]]
    solid = np.abs(np.linalg.det(edges)) > 20.0**3
    if not solid.any():
        raise NoCorrespondenceError("the matches between the two scans lie in one plane: an affine cannot be fitted")
    samples = samples[solid]
    if rigid:
        linear, shift = rigid_motions(fixed[samples], moving[samples])
    else:
        system = np.concatenate([fixed[samples], np.ones((len(samples), 4, 1))], axis=2)
        solutions = np.linalg.solve(system, moving[samples])
        linear, shift = solutions[:, :3].transpose(0, 2, 1), solutions[:, 3]
    plausible = _plausible(linear, largest_scale)
    linear, shift = linear[plausible], shift[plausible]
    # (M, 3, N), each coordinate contiguous in memory.
    missed = linear @ fixed.T + shift[:, :, None] - moving.T
    squared = np.square(missed, out=missed).sum(axis=1)
    # The truncated sum of squares also ranks hypotheses with equal numbers of inliers (MSAC, Torr and Zisserman 2000).
    score = np.minimum(squared, tolerance_mm**2).sum(axis=1)
    best: RobustAffine | None = None
    lowest = np.inf
    for candidate in np.argsort(score)[:5]:
        inliers = squared[candidate] <= tolerance_mm**2
        refined = _refine(fixed, moving, inliers, tolerance_mm, largest_scale, rigid)
        if refined is None:
            continue
        residual = np.linalg.norm(refined.transform.apply(fixed) - moving, axis=1)
        value = float((np.minimum(residual / tolerance_mm, 1.0) ** 2).sum())
        if value < lowest:
            best, lowest = refined, value
    if best is None or best.inliers.sum() < max(8, count // 10):
        agreeing = 0 if best is None else int(best.inliers.sum())
        raise NoCorrespondenceError(
            f"only {agreeing} of {count} matches agree on one position of the scans towards each other: "
            "they have no reliable correspondence"
        )
    return best


def _plausible(linear: NDArray[np.float64], largest_scale: float) -> NDArray[np.bool_]:
    singular = np.linalg.svd(linear, compute_uv=False)
    return np.asarray(
        (singular.max(axis=-1) <= largest_scale)
        & (singular.min(axis=-1) >= 1 / largest_scale)
        & (np.linalg.det(linear) > 0)
    )


def _refine(
    fixed: NDArray[np.float64],
    moving: NDArray[np.float64],
    inliers: NDArray[np.bool_],
    tolerance_mm: float,
    largest_scale: float,
    rigid: bool,
) -> RobustAffine | None:
    """Alternate least squares on the inliers and the selection of inliers until these stay the same."""
    fit = AffineTransform.fit_rigid if rigid else AffineTransform.fit
    result = None
    for _ in range(10):
        if inliers.sum() < 8:
            return result
        try:
            transform = fit(fixed[inliers], moving[inliers])
        except TransformError:
            return result
        if not _plausible(transform.matrix[None, :3, :3], largest_scale)[0]:
            return result
        distance = np.linalg.norm(transform.apply(fixed) - moving, axis=1)
        agreeing = distance <= tolerance_mm
        result = RobustAffine(transform, agreeing)
        if (agreeing == inliers).all():
            return result
        inliers = agreeing
    return result
