"""The numerical inverse of any transform."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import TransformError
from meddift.geometry.transforms import AffineTransform, DisplacementField, Transform

#: Largest number of iterations; each reduces the error by the Lipschitz constant of the non-affine part.
ITERATIONS = 40


def invert_points(
    transform: Transform,
    affine: AffineTransform,
    positions: NDArray[np.float64],
    *,
    start: NDArray[np.float64] | None = None,
    tolerance_mm: float = 1e-3,
) -> NDArray[np.float64]:
    """Solve T(x) = y for given points y.

    Iterates `x <- x - L^-1 (T(x) - y)` with the linear part L of an affine approximation: the fixed-point iteration of
    M. Chen et al. (2008, doi:10.1118/1.2816107) applied to the non-affine part. Steps that increase the error are
    halved.

    Args:
        transform: T, fixed to moving.
        affine: Its affine part.
        positions: (N, 3) float64, y, moving world RAS mm.
        start: (N, 3) float64, initial x; None = the inverse of the affine.
        tolerance_mm: Error |T(x) - y| at which to stop, mm.

    Returns:
        (N, 3) float64, x, fixed world RAS mm; inexact where the transform folds.
    """
    found = affine.inverted().apply(positions) if start is None else start.copy()
    back = np.linalg.inv(affine.matrix[:3, :3]).T
    error = transform.apply(found) - positions
    size = np.linalg.norm(error, axis=1)
    step = np.ones(len(found))
    for _ in range(ITERATIONS):
        rows = np.flatnonzero((size > tolerance_mm) & (step > 1e-2))
        if not len(rows):
            break
        tried = found[rows] - step[rows, None] * (error[rows] @ back)
        new_error = transform.apply(tried) - positions[rows]
        new_size = np.linalg.norm(new_error, axis=1)
        better = new_size < size[rows]
        chosen = rows[better]
        found[chosen], error[chosen], size[chosen] = tried[better], new_error[better], new_size[better]
        step[rows] = np.where(better, np.minimum(1.0, step[rows] * 1.5), step[rows] / 2)
    return np.asarray(found)


@dataclass(frozen=True, eq=False)
class NumericalInverse:
    """The inverse of any transform, computed numerically for each point.

    Attributes:
        transform: The transform, fixed to moving.
        affine: Its affine part.
        residuals: "median" and "max" of the error |T(x) - y|, mm, of the largest set of points mapped so far; filled
            in by `apply`.
    """

    transform: Transform
    affine: AffineTransform
    residuals: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The transform that is inverted."""
        return f"NumericalInverse({self.transform!r})"

    @classmethod
    def of(cls, transform: Transform, *, residuals: dict[str, float] | None = None) -> NumericalInverse:
        """The inverse of a transform whose affine part is unknown and is fitted."""
        return cls(transform, affine_near(transform), {} if residuals is None else residuals)

    def apply(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Map (N, 3) world RAS mm on the moving scan to the fixed scan."""
        world = np.asarray(positions, dtype=np.float64)
        flat = world.reshape(-1, 3)
        if isinstance(self.transform, AffineTransform):
            found = self.transform.inverted().apply(flat)
        else:
            found = invert_points(self.transform, self.affine, flat)
        away = np.linalg.norm(self.transform.apply(found) - flat, axis=1)
        if len(away) and len(away) >= self.residuals.get("points", 0):
            self.residuals.update(points=len(away), median=float(np.median(away)), max=float(away.max()))
        return np.asarray(found.reshape(world.shape))

    def inverted(self) -> Transform:
        """The original transform."""
        return self.transform


def affine_near(transform: Transform) -> AffineTransform:
    """A least-squares affine approximation of a transform in its domain."""
    if isinstance(transform, AffineTransform):
        return transform
    if isinstance(transform, DisplacementField):
        steps = np.maximum(np.asarray(transform.grid.shape) // 8, 1)
        places = transform.grid.voxel_centers()[:: steps[0], :: steps[1], :: steps[2]].reshape(-1, 3)
    else:
        # For a general transform, a cube of the size of a patient around the origin.
        places = np.stack(np.meshgrid(*[np.linspace(-250, 250, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    try:
        return AffineTransform.fit(places, transform.apply(places))
    except TransformError:
        return AffineTransform.identity()
