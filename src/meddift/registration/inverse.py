"""The inverse of a registration on a grid, and how far it misses."""

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

#: Steps between two looks at which places are left, on a graphics card.
PATIENCE = 5


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


def invert(
    transform: TensorField, affine: AffineTransform, grid: Grid, device: str, *, tolerance_mm: float = 1e-3
) -> TensorField:
    """The inverse as displacements on a grid in the moving scan; all places at a time, see `invert_points`.

    Args:
        transform: Fixed to moving.
        affine: Its affine part.
        grid: Grid in the moving scan.
        device: Where it is computed.
        tolerance_mm: Where to stop.
    """
    back = constant(grid.voxel_centers_on(device), np.linalg.inv(affine.matrix[:3, :3]).T)
    # Where the inverse on every second voxel has a place, few steps are left.
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
    """(N, 3) places that a transform takes to the voxels of a grid; see `_solved`."""
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
    """(N, 3) places that a transform takes to (N, 3) goals; `back` is the transposed inverse of its linear part."""
    found = start.clone()
    # What is under way: where each is, how far its image misses its goal, and how far it may step.
    rows, at, aim = torch.arange(len(goal), device=goal.device), start, goal
    error = transform.apply(start) - goal
    size, step = error.norm(dim=1), goal.new_ones(len(goal))
    # A processor looks after each step which are left; a graphics card, which would have to be waited for, seldom.
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
