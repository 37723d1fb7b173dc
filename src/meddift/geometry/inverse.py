"""The inverse of any transform, found point by point."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import TransformError
from meddift.geometry.transforms import AffineTransform, DisplacementField, Transform

#: Steps of the iteration, at most; each shrinks the error by the largest slope of what is not affine.
ITERATIONS = 40


def invert_points(
    transform: Transform,
    affine: AffineTransform,
    positions: NDArray[np.float64],
    *,
    start: NDArray[np.float64] | None = None,
    tolerance_mm: float = 1e-3,
) -> NDArray[np.float64]:
    """Points that a transform takes to given points.

    `x <- x - L^-1 (T(x) - y)` with the linear part L of an affine near the transform: the fixed-point iteration of
    M. Chen et al. (2008, doi:10.1118/1.2816107), without the affine standing in its way. Steps that make things
    worse are halved.

    Args:
        transform: Fixed to moving.
        affine: Its affine part.
        positions: (N, 3) float64, moving world RAS mm.
        start: (N, 3) first guess; None = the inverse of the affine.
        tolerance_mm: Where to stop.

    Returns:
        (N, 3) float64, fixed world RAS mm; where the transform folds there may be no exact answer.
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
    """The inverse of any transform, point by point.

    Attributes:
        transform: Fixed to moving.
        affine: Its affine part.
        residuals: Filled in as points are asked: "median" and "max" of how far, in mm, the transform takes what was
            found from what was asked; over the largest set of points asked at a time.
    """

    transform: Transform
    affine: AffineTransform
    residuals: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Of what."""
        return f"NumericalInverse({self.transform!r})"

    @classmethod
    def of(cls, transform: Transform, *, residuals: dict[str, float] | None = None) -> NumericalInverse:
        """The inverse of a transform whose affine part is not known."""
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
        """The transform itself."""
        return self.transform


def affine_near(transform: Transform) -> AffineTransform:
    """An affine that is close to a transform where it is defined."""
    if isinstance(transform, AffineTransform):
        return transform
    if isinstance(transform, DisplacementField):
        steps = np.maximum(np.asarray(transform.grid.shape) // 8, 1)
        places = transform.grid.voxel_centers()[:: steps[0], :: steps[1], :: steps[2]].reshape(-1, 3)
    else:
        # A cube as large as a patient, about the middle of the world: far from it a general transform may say nothing.
        places = np.stack(np.meshgrid(*[np.linspace(-250, 250, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    try:
        return AffineTransform.fit(places, transform.apply(places))
    except TransformError:
        return AffineTransform.identity()
