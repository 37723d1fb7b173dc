"""Smooth displacements as cubic B-splines on a coarse grid of control points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from meddift.geometry import Grid, spline_matrix


@dataclass(frozen=True, eq=False)
class ControlGrid:
    """Control points of cubic B-splines (as in D. Rueckert et al. 1999, doi:10.1109/42.796284).

    Attributes:
        grid: Grid of the control points.
        matrices: For each axis (n, m) float32, weights of m control points at n voxels of `dense`.
        dense: Grid on which displacements are evaluated; its axes are parallel to those of `grid`.
    """

    grid: Grid
    matrices: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    dense: Grid

    @classmethod
    def over(cls, dense: Grid, spacing_mm: float, *, device: str = "cpu") -> ControlGrid:
        """Control points of a spacing, mm, two beyond the grid on each side: each voxel has four on each axis."""
        inner = dense.coarsened(spacing_mm)
        grid = inner.cropped((-2, -2, -2), tuple(n + 4 for n in inner.shape))
        return cls(grid, _matrices(grid, dense, device), dense)

    def on(self, dense: Grid) -> ControlGrid:
        """The same control points, evaluated on another parallel grid."""
        return ControlGrid(self.grid, _matrices(self.grid, dense, self.matrices[0].device), dense)

    def expand(self, values: torch.Tensor) -> torch.Tensor:
        """Evaluate the spline: (a, b, c, K) coefficients to (X, Y, Z, K) values on the dense grid."""
        return apply_along_axes(values, self.matrices)

    def collect(self, values: torch.Tensor) -> torch.Tensor:
        """The transpose of `expand`: (X, Y, Z, K) values on the dense grid to (a, b, c, K)."""
        return apply_along_axes(values, tuple(matrix.T for matrix in self.matrices))

    def fit(self, values: torch.Tensor) -> torch.Tensor:
        """(a, b, c, K) coefficients of the spline that interpolates values at the control points."""
        inverses = tuple(_prefilter(n).to(values.device) for n in values.shape[:3])
        return apply_along_axes(values.double(), inverses).float()


def _prefilter(count: int) -> torch.Tensor:
    """(count, count) float64 matrix from values at control points to coefficients, with mirrored ends.

    The cubic B-spline is 2/3 at its centre and 1/6 at its neighbours (M. Unser, Splines: a perfect fit for signal and
    image processing, 1999).
    """
    if count == 1:
        return torch.ones((1, 1), dtype=torch.float64)
    beside = np.eye(count, k=1) + np.eye(count, k=-1)
    beside[0, 1] += 1
    beside[-1, -2] += 1
    return torch.from_numpy(np.linalg.inv(np.eye(count) * (2 / 3) + beside / 6))


def apply_along_axes(values: torch.Tensor, matrices: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Multiply (a, b, c, K) values by a matrix along each of the first three axes."""
    for axis, matrix in enumerate(matrices):
        moved = values.movedim(axis, 0)
        values = (matrix @ moved.reshape(moved.shape[0], -1)).reshape(-1, *moved.shape[1:]).movedim(0, axis)
    return values.contiguous()


def _matrices(grid: Grid, dense: Grid, device: str | torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    relation = grid.inverse @ dense.affine
    made = []
    for axis in range(3):
        place = relation[axis, 3] + relation[axis, axis] * np.arange(dense.shape[axis])
        made.append(torch.from_numpy(spline_matrix(grid.shape[axis], place)).float().to(device))
    return made[0], made[1], made[2]
