"""The inverse of a registration on a grid, and its inverse-consistency error."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import AffineTransform, Grid, Transform
from meddift.geometry.inverse import ITERATIONS
from meddift.geometry.sampling import chunks, constant
from meddift.registration.field import TensorField
from meddift.system.threads import for_each

#: Iterations between two checks of convergence on a GPU.
PATIENCE = 5


@dataclass(frozen=True)
class InverseResidual:
    """Inverse-consistency error: distance of points from their images under the transform and its inverse, mm.

    Attributes:
        median: Median over the points.
        p95: 95th percentile.
        max: Maximum.
    """

    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, transform: Transform, inverse: Transform, positions: NDArray[np.float64]) -> InverseResidual:
        """Measure the error at (N, 3) fixed points, world RAS mm; NaN without points."""
        if not len(positions):
            return cls(*[float("nan")] * 3)
        away = np.linalg.norm(inverse.apply(transform.apply(positions)) - positions, axis=1)
        return cls(float(np.median(away)), float(np.percentile(away, 95)), float(away.max()))

    def __str__(self) -> str:
        """The error in words."""
        if np.isnan(self.median):
            return "the inverse was not checked: no place of the body has a counterpart"
        return f"inverse ends {self.median:.2f} mm from its start in the median, {self.p95:.2f} mm at 95 %"

    def as_dict(self) -> dict[str, float | None]:
        """The error ready for JSON; None in place of NaN."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}


def invert(
    transform: TensorField, affine: AffineTransform, grid: Grid, device: str, *, tolerance_mm: float = 1e-3
) -> TensorField:
    """Compute the inverse of a field on a grid, with the iteration of `invert_points` on tensors.

    Args:
        transform: Fixed to moving.
        affine: Its affine part.
        grid: Grid in the moving scan.
        device: Device of the computation.
        tolerance_mm: Error at which the iteration stops, mm.

    Returns:
        The inverse, moving to fixed, on `grid`.
    """
    back = constant(grid.voxel_centers_on(device), np.linalg.inv(affine.matrix[:3, :3]).T)
    # Starting from the inverse on a grid of twice the spacing, few iterations are needed.
    coarse = grid.respaced((2 * grid.spacing).tolist())
    straight = affine.inverted().apply(coarse.voxel_centers_on(device))
    begin = TensorField.moving(
        coarse.voxel_centers_on(device), _solved_all(transform, back, coarse, straight, tolerance_mm), coarse
    )
    goal = grid.voxel_centers_on(device)
    return TensorField.moving(goal, _solved_all(transform, back, grid, begin.apply(goal), tolerance_mm), grid)


def _solved_all(
    transform: TensorField, back: torch.Tensor, grid: Grid, start: torch.Tensor, tolerance_mm: float
) -> torch.Tensor:
    """(N, 3) positions that a transform maps to the voxel centres of a grid; see `_solved`."""
    goal = grid.voxel_centers_on(start.device)
    found = torch.empty_like(goal)

    def solve(rows: slice) -> None:
        found[rows] = _solved(transform, back, goal[rows], start[rows], tolerance_mm)

    if goal.device.type == "cpu":
        for_each(chunks(len(goal)), solve)
    else:
        solve(slice(None))
    return found


def _solved(
    transform: TensorField, back: torch.Tensor, goal: torch.Tensor, start: torch.Tensor, tolerance_mm: float
) -> torch.Tensor:
    """(N, 3) positions that a transform maps to (N, 3) goals; `back` is the transposed inverse of its linear part."""
    found = start.clone()
    # The points that have not converged: position, residual and step size of each.
    rows, at, aim = torch.arange(len(goal), device=goal.device), start, goal
    error = transform.apply(start) - goal
    size, step = error.norm(dim=1), goal.new_ones(len(goal))
    # Convergence is checked after each step on the CPU, and rarely on a GPU, which would be synchronised by it.
    patience = 1 if goal.device.type == "cpu" else PATIENCE
    for number in range(ITERATIONS):
        going = (size > tolerance_mm) & (step > 1e-2)
        if number % patience == 0:
            found[rows] = at
            left = going.nonzero()[:, 0]
            if not len(left):
                return found
            rows, at, aim, error, size, step, going = (
                each[left] for each in (rows, at, aim, error, size, step, going)
            )
        tried = at - step[:, None] * (error @ back)
        new_error = transform.apply(tried) - aim
        new_size = new_error.norm(dim=1)
        better = going & (new_size < size)
        at = torch.where(better[:, None], tried, at)
        error = torch.where(better[:, None], new_error, error)
        size = torch.where(better, new_size, size)
        step = torch.where(better, (step * 1.5).clamp(max=1.0), step / 2)
    found[rows] = at
    return found
