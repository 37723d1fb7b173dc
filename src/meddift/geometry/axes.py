"""Interpolation between grids with parallel axes, one axis after the other (separable).

Grids that come from one scan by resizing, cropping and padding are parallel. Weights are computed once for each pair
of grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError
from meddift.geometry.grid import Grid
from meddift.geometry.sampling import is_half, is_tensor

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as torch_device

#: Rows of a matrix that are multiplied at a time.
ROWS = 8
#: About so many values are resampled along all axes at a time on the CPU, so that what lies between two axes stays in
#: its cache.
SLAB_VALUES = 4_000_000


@dataclass(frozen=True, eq=False)
class AxisReading:
    """Linear interpolation of one axis of a level at every position of a grid, clamped at the border.

    Attributes:
        low: (n,) int64, index of the lower neighbour on the level.
        part: (n,) float32, weight of the upper neighbour, 0 to 1; the lower one has weight 1 - part.
        length: Number of voxels of the level along this axis.
    """

    low: NDArray[np.int64]
    part: NDArray[np.float32]
    length: int

    @property
    def high(self) -> NDArray[np.int64]:
        """(n,) int64, index of the upper neighbour."""
        return np.minimum(self.low + 1, self.length - 1)

    @property
    def first_sample(self) -> int | None:
        """First sample of the level on the grid, if grid positions are consecutive samples; None if they are not."""
        place = self.low + self.part  # the last sample is the upper neighbour of the one before
        begin = int(place[0])
        return begin if (place == begin + np.arange(len(place))).all() else None

    def windows(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Interpolation weights of windows of the grid.

        Args:
            positions: (N, n) int64, positions on the grid, ascending in each row.

        Returns:
            (N,) int64, the first sample that each window reads, and (N, n, width) float32, weights of the samples from
            there on.
        """
        low, high, part = self.low[positions], self.high[positions], self.part[positions]
        width = int((high[:, -1] - low[:, 0]).max()) + 1
        first = np.minimum(low[:, 0], self.length - width)
        rows, columns = np.indices(positions.shape)
        weights = np.zeros((*positions.shape, width), dtype=np.float32)
        weights[rows, columns, low - first[:, None]] = 1 - part
        weights[rows, columns, high - first[:, None]] += part
        return first, weights

    def on(self, device: torch_device) -> tuple[Tensor, Tensor, Tensor]:
        """`low`, `high` and `part` on a device, cached."""
        import torch

        kept: dict[str, tuple[Tensor, Tensor, Tensor]] = self.__dict__.setdefault("_on_devices", {})
        if str(device) not in kept:
            low, high, part = (torch.from_numpy(each).to(device) for each in (self.low, self.high, self.part))
            kept[str(device)] = low, high, part
        return kept[str(device)]

    def read(self, values: Tensor, axis: int) -> Tensor:
        """Interpolate a tensor along one of its axes."""
        import torch

        first = self.first_sample
        if first is not None:
            return values.narrow(axis, first, len(self.low))
        shape = [1] * values.ndim
        shape[axis] = -1
        low, high, part = self.on(values.device)
        weight = part.to(values.dtype).reshape(shape)
        return torch.lerp(values.index_select(axis, low), values.index_select(axis, high), weight)


def read_axes(grid: Grid, level: Grid) -> tuple[AxisReading, AxisReading, AxisReading]:
    """Compute how `grid` interpolates `level` along each axis.

    Raises:
        GeometryError: if their axes are not parallel and equally directed.
    """
    relation = level.inverse @ grid.affine
    step, first = np.diag(relation)[:3], relation[:3, 3]
    off_diagonal = np.abs(relation[:3, :3] - np.diag(step)).max()
    # Over the whole grid the axes may deviate by at most a thousandth of a voxel of the level.
    if off_diagonal * max(grid.shape) > 1e-3 or (step <= 0).any():
        raise GeometryError(f"the search grid {grid!r} and the level {level!r} have different axes")
    readings = []
    for axis in range(3):
        length = level.shape[axis]
        position = first[axis] + step[axis] * np.arange(grid.shape[axis])
        # Positions that coincide with samples are rounded, so that no neighbour gets a weight of 1e-13.
        nearest = np.round(position)
        position = np.where(np.abs(position - nearest) < 1e-6, nearest, position)
        position = np.clip(position, 0, length - 1)
        low = np.minimum(np.floor(position).astype(np.int64), max(length - 2, 0))
        readings.append(AxisReading(low, (position - low).astype(np.float32), length))
    return readings[0], readings[1], readings[2]


def resample_axes(values: Any, source: Grid, target: Grid, *, first_axis: int = 0) -> Any:
    """Resample values to another grid with parallel axes.

    Separable linear interpolation, antialiased where the new grid is coarser (see `resampling_matrix`); border values
    are replicated. One matrix product for each axis.

    Args:
        values: Contiguous float32 array, or float32 or float16 tensor, with the three axes of `source` in a row, and
            any other axes before and after them.
        source: The grid of the values.
        target: A grid with the same direction, such as `source.respaced(2.0)`.
        first_axis: Index of the first of the three axes of the grid in `values`.

    Returns:
        Contiguous array or tensor of float32, on the same device.

    Raises:
        GeometryError: if the axes of the two grids are not parallel.
    """
    relation = source.inverse @ target.affine
    step, first = np.diag(relation)[:3], relation[:3, 3]
    if np.abs(relation[:3, :3] - np.diag(step)).max() > 1e-6 * np.abs(step).max() or (step <= 0).any():
        raise GeometryError(f"cannot resample along axes: {source!r} and {target!r} are not parallel")
    # The axis that shrinks most comes first, to leave less work for the others.
    matrices = {}
    for axis in sorted(range(3), key=lambda a: target.shape[a] / source.shape[a]):
        n_in, n_out = source.shape[axis], target.shape[axis]
        # Where old and new samples coincide, the exact values are kept.
        if n_in != n_out or abs(step[axis] - 1) >= 1e-9 or abs(first[axis]) >= 1e-6:
            matrices[axis] = resampling_matrix(n_in, n_out, first=float(first[axis]), step=float(step[axis]))
    if matrices and is_tensor(values) and values.device.type == "cpu":
        return _by_slabs(values, matrices, target, first_axis)
    return _along(values.float() if is_half(values) else values, matrices, first_axis)


def _along(values: Any, matrices: dict[int, NDArray[np.float32]], first_axis: int) -> Any:
    """Multiply by a matrix along some axes of the grid, in the order given; array or tensor."""
    for axis, matrix in matrices.items():
        at = first_axis + axis
        before, after = values.shape[:at], values.shape[at + 1 :]
        flat = values.reshape(-1, values.shape[at], int(np.prod(after)))
        values = _multiplied(matrix, flat).reshape(*before, len(matrix), *after)
    return values


def _by_slabs(values: Tensor, matrices: dict[int, NDArray[np.float32]], target: Grid, first_axis: int) -> Tensor:
    """As `_along`, a few planes of the first axis at a time."""
    import torch

    before, after = values.shape[:first_axis], values.shape[first_axis + 3 :]
    given = values.reshape(-1, *values.shape[first_axis : first_axis + 3], *after)
    kind = torch.float32 if is_half(values) else values.dtype
    result = values.new_empty((len(given), *target.shape, *after), dtype=kind)
    matrix = matrices.get(0)
    count = target.shape[0]
    # Values that are read for each plane of the result.
    reads = max(1, given.shape[1] // count) * given[0, 0].numel()
    planes = max(1, SLAB_VALUES // max(1, reads))
    for start in range(0, count, planes):
        rows = columns = slice(start, min(start + planes, count))
        some = matrices
        if matrix is not None:
            read = np.flatnonzero(matrix[rows].any(axis=0))
            columns = slice(int(read[0]), int(read[-1]) + 1)
            some = {axis: matrix[rows, columns] if axis == 0 else whole for axis, whole in matrices.items()}
        for one, out in zip(given, result, strict=True):
            out[rows] = _along(one[columns].to(kind), some, 0)
    return result.reshape(*before, *target.shape, *after)


def _multiplied(matrix: NDArray[np.float32], values: Any) -> Any:
    """(N, m, k), product of a matrix (m, n) with each (n, k) of (N, n, k) values; array or tensor."""
    if ((matrix == 0) | (matrix == 1)).all():  # only samples are selected
        picked = matrix.argmax(axis=1)
        if not is_tensor(values):
            return values[:, picked]
        import torch

        return values.index_select(1, torch.from_numpy(picked).to(values.device))
    given: Any = values.new_tensor(matrix) if is_tensor(values) else matrix
    if values.shape[2] == 1:
        return (values[..., 0] @ given.T)[..., None]
    long = values.shape[1] > 4 * ROWS and values.shape[2] > 16 * ROWS
    if not (long and is_tensor(values) and values.device.type == "cpu"):
        return given @ values
    import torch

    # The matrix is banded: a few rows at a time are multiplied with the samples that they read.
    result = values.new_empty((len(values), len(matrix), values.shape[2]))
    for start in range(0, len(matrix), ROWS):
        rows = slice(start, min(start + ROWS, len(matrix)))
        read = np.flatnonzero(matrix[rows].any(axis=0))
        part, columns = given[rows], slice(int(read[0]), int(read[-1]) + 1)
        if len(values) == 1:
            torch.mm(part[:, columns], values[0, columns], out=result[0, rows])
        else:
            result[:, rows] = part[:, columns] @ values[:, columns]
    return result


def resampling_matrix(n_in: int, n_out: int, *, first: float, step: float) -> NDArray[np.float32]:
    """Weights that interpolate a line of `n_in` samples at indices `first + step * j`, j < `n_out`.

    Linear interpolation where `step` <= 1. Where it is larger, the triangle is widened by `step`, so that
    samples in between are averaged instead of skipped (the antialiasing of PIL and of
    `torch.nn.functional.interpolate(antialias=True)`). Border samples are replicated.

    Returns:
        (n_out, n_in) float32; rows sum to one.
    """
    position = np.clip(first + step * np.arange(n_out), 0, n_in - 1)
    width = max(1.0, step)
    distance = np.abs(position[:, None] - np.arange(n_in)[None, :]) / width
    weight = np.maximum(0.0, 1.0 - distance)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)


def spline_matrix(count: int, positions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights of `count` cubic B-spline coefficients at continuous positions; coefficients beyond the ends are 0.

    The uniform cubic B-spline of M. Unser, Splines: a perfect fit for signal and image processing, 1999.

    Returns:
        (len(positions), count) float64.
    """
    distance = np.abs(np.asarray(positions)[:, None] - np.arange(count)[None, :])
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)
