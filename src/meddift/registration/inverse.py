"""The inverse of a registration on a lattice, and how far it misses."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform
from meddift.geometry.inverse import invert_points


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
