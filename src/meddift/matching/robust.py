"""An affine or rigid transform that most matches agree on, whatever the others say."""

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
        inliers: (N,) bool, the matches that agree with it.
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
    """Fit an affine, or a rotation and a shift, to what most matches say.

    Random sample consensus with local refinement (Fischler and Bolles 1981; Chum et al. 2003).

    Args:
        fixed: (N, 3) float64, world RAS mm.
        moving: (N, 3) float64, where each fixed point was found.
        tolerance_mm: A match agrees if the affine misses it by no more.
        rounds: Samples of four matches.
        seed: Of the sampling.
        largest_scale: Affines that stretch or shrink any direction by more are not considered: two scans of
            one patient do not differ so.
        rigid: Whether only rotations and shifts are considered.

    Raises:
        NoCorrespondenceError: if fewer than 8 matches, or less than a tenth of them, agree on any affine.
    """
    count = len(fixed)
    if count < 8:
        raise NoCorrespondenceError(f"only {count} matches between the two scans: too few to fit an affine to")
    generator = np.random.default_rng(seed)
    samples = generator.integers(count, size=(rounds, 4))
    # Four points almost in a plane say nothing about the direction across it, nor do four that are not all different.
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
    # (M, 3, N): all of one coordinate side by side.
    missed = linear @ fixed.T + shift[:, :, None] - moving.T
    squared = np.square(missed, out=missed).sum(axis=1)
    # A truncated sum tells apart hypotheses with equally many inliers (MSAC, Torr and Zisserman 2000).
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
    """Least squares on the inliers, the inliers of that, and so on until they stay the same."""
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
