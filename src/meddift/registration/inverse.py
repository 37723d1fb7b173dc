"""The inverse of a transform, found numerically, with what it misses."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import TransformError
from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform

#: Steps of the iteration, at most; each shrinks the error by the largest slope of what is not affine.
ITERATIONS = 40


@dataclass(frozen=True)
class InverseResidual:
    """How far points end from their start after going there and back, mm.

    Attributes:
        median: Of the points asked.
        p95: 95th percentile.
        max: Largest.
    """

    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, transform: Transform, inverse: Transform, positions: NDArray[np.float64]) -> InverseResidual:
        """Measured at (N, 3) fixed points, world RAS mm; NaN where there is none."""
        if not len(positions):
            return cls(*[float("nan")] * 3)
        away = np.linalg.norm(inverse.apply(transform.apply(positions)) - positions, axis=1)
        return cls(float(np.median(away)), float(np.percentile(away, 95)), float(away.max()))

    def __str__(self) -> str:
        """For people."""
        if np.isnan(self.median):
            return "the inverse was not checked: no place of the body has a counterpart"
        return f"inverse ends {self.median:.2f} mm from its start in the median, {self.p95:.2f} mm at 95 %"

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which has no NaN: None where nothing was measured."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}


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


def invert(transform: Transform, affine: AffineTransform, grid: Grid) -> DisplacementField:
    """The inverse as displacements on a lattice in the moving scan.

    Args:
        transform: Fixed to moving.
        affine: Its affine part.
        grid: Lattice in the moving scan.
    """
    displacement = np.empty((3, *grid.shape), dtype=np.float32)
    for i, world in enumerate(grid.planes()):
        found = invert_points(transform, affine, world.reshape(-1, 3)).reshape(world.shape)
        displacement[:, i] = np.moveaxis(found - world, -1, 0)
    return DisplacementField(displacement, grid)


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
