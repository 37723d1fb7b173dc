"""Trilinear and nearest-neighbour interpolation with gradients, for numpy arrays and torch tensors on any device.

Arrays are laid out as in `Volume`, (..., X, Y, Z) with channels first; tensors as in `Level`, (X, Y, Z, C) with
channels last, so that the channels of a voxel are contiguous. Indices are continuous voxel indices, centres at
integers. Beyond the border voxels are replicated, or replaced by `fill` outside the outer voxel faces. Where an index
is not finite, the result is NaN or `fill`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, TypeGuard, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from meddift.errors import GeometryError

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as torch_device
    from torch import dtype as torch_dtype

#: Points that are processed at a time: on the CPU so few that data stay in the cache, on other devices limited by
#: memory.
CHUNK, DEVICE_CHUNK = 16_384, 1_000_000
#: Tolerance for points on an outer voxel face, voxels: rounding in an affine.
_ON_THE_FACE = 1e-6


def is_tensor(values: Any) -> TypeGuard[Tensor]:
    """Whether something is a torch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def is_half(values: Any) -> bool:
    """Whether something is a torch tensor of float16."""
    return is_tensor(values) and values.dtype == sys.modules["torch"].float16


def mapped(matrix: NDArray[np.float64], points: Any, *, shifts: bool = True) -> Any:
    """Map (..., 3) points, array or tensor, by a (4, 4) matrix; without translation if `shifts` is False."""
    points = points if is_tensor(points) else np.asarray(points, dtype=np.float64)
    rows = constant(points, matrix[:3]) if is_tensor(points) else matrix[:3]
    moved = points @ rows[:, :3].T
    return moved + rows[:, 3] if shifts else moved


def constant(like: Tensor, numbers: ArrayLike) -> Tensor:
    """A small constant tensor, cached on its device, since every copy to a GPU synchronises it.

    Args:
        like: A tensor of the wanted type and device.
        numbers: The values, any shape.

    Returns:
        A tensor that must not be changed.
    """
    values = np.ascontiguousarray(numbers, dtype=np.float64)
    return _constant(values.tobytes(), values.shape, like.dtype, like.device)


@lru_cache(maxsize=4096)
def _constant(content: bytes, shape: tuple[int, ...], dtype: torch_dtype, device: torch_device) -> Tensor:
    import torch

    values = torch.from_numpy(np.frombuffer(content).reshape(shape).copy())
    return values.to(dtype).to(device)


def chunks(count: int, *, size: int = CHUNK) -> Iterator[slice]:
    """Row ranges of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@overload
def sample(data: NDArray[Any], indices: ArrayLike, *, fill: float | None = ...) -> NDArray[np.float64]: ...
@overload
def sample(data: Tensor, indices: Tensor, *, fill: float | None = ...) -> Tensor: ...
def sample(data: Any, indices: Any, *, fill: float | None = None) -> Any:
    """Trilinear interpolation.

    Args:
        data: (..., X, Y, Z) array of any real type, or (X, Y, Z, C) tensor of floats, C-contiguous.
        indices: (N, 3) float voxel indices; for a tensor, a tensor on the same device.
        fill: Value outside the outer voxel faces; None = border voxels are replicated.

    Returns:
        (..., N) float64 for an array; (N, C) on the same device for a tensor, of the same type, but float32 for
        float16, of which only the voxels that are read are converted.
    """
    rows = _Rows(data, indices)
    result = rows.empty(len(rows.index))

    def read(part: slice) -> None:
        values = _lerped(*rows.corners(part))
        result[part] = values if fill is None else rows.filled(values, part, fill)

    rows.each_part(read)
    return rows.as_given(result)


def sample_with_gradient(data: Tensor, indices: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Trilinear interpolation with its exact derivative inside each cell.

    Args:
        data: (X, Y, Z, C) tensor of floats, C-contiguous.
        indices: (N, 3) tensor of voxel indices on the same device; all are processed at once. Beyond the border the
            derivative is that at the border.

    Returns:
        Values, and their derivatives by each of the three voxel indices; (N, C) each, of the type that `sample` gives.
    """
    rows = _Rows(data, indices)
    return _with_slopes(*rows.corners(slice(None)))


@overload
def nearest(data: NDArray[Any], indices: ArrayLike, *, fill: float | None = ...) -> NDArray[Any]: ...
@overload
def nearest(data: Tensor, indices: Tensor, *, fill: float | None = ...) -> Tensor: ...
def nearest(data: Any, indices: Any, *, fill: float | None = None) -> Any:
    """Nearest-neighbour interpolation; halves are rounded to the even index.

    Args:
        data: (..., X, Y, Z) array or (X, Y, Z, C) tensor of any type.
        indices: (N, 3) float voxel indices.
        fill: Value outside the outer voxel faces and for indices that are not finite; None = border voxels are
            replicated.

    Returns:
        (..., N) for an array, (N, C) for a tensor, of the type of `data`.

    Raises:
        GeometryError: if the type of `data` cannot hold `fill`, or an index of an array is not finite without `fill`.
    """
    if is_tensor(data):
        return _nearest_rows(data, indices, fill)
    index = np.asarray(indices, dtype=np.float64).reshape(-1, 3)
    inside = _inside(index, data.shape[-3:], np)
    known: NDArray[np.bool_] = np.asarray(np.isfinite(index).all(axis=1))
    if fill is None and not known.all():
        raise GeometryError("a place whose index is not finite has no voxel; say with fill what stands there")
    last = np.asarray(data.shape[-3:]) - 1
    voxel = np.clip(np.rint(np.where(known[:, None], index, 0)), 0, last).astype(np.int64)
    values = data[..., voxel[:, 0], voxel[:, 1], voxel[:, 2]]
    if fill is not None:
        check_fill(fill, data.dtype)
        values[..., ~inside] = fill
    return np.asarray(values)


def check_fill(fill: float, dtype: DTypeLike) -> None:
    """Raise GeometryError if `dtype` is an integer type and `fill` is not a whole number in its range."""
    kind = np.dtype(dtype)
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        if not (np.isfinite(fill) and float(fill).is_integer() and limits.min <= fill <= limits.max):
            raise GeometryError(
                f"the image holds whole numbers from {limits.min} to {limits.max} ({kind}): {fill:g} cannot stand "
                "where nothing is known; give a fill value in that range"
            )


def as_type(values: NDArray[np.floating], dtype: DTypeLike) -> NDArray[Any]:
    """Convert values to a type; for integers they are rounded and clipped to its range.

    Raises:
        GeometryError: if `dtype` is an integer type and a value is NaN.
    """
    kind = np.dtype(dtype)
    if not np.issubdtype(kind, np.integer):
        return values.astype(kind, copy=False)
    if np.isnan(values).any():
        raise GeometryError(f"whole numbers ({kind}) cannot tell a missing value; say with fill what stands there")
    limits = np.iinfo(kind)
    # float64, since float32 cannot represent the largest int32 and would round it beyond the range.
    return np.asarray(np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(kind))


# ---------------------------------------------------------------------- internals


class _Rows:
    """Data as rows of channels, with the indices at which they are interpolated."""

    def __init__(self, data: Any, indices: Any) -> None:
        self.tensor = is_tensor(data)
        self.xp = _library(data)
        self._lead: tuple[int, ...] = () if self.tensor else data.shape[:-3]
        self._shape = data.shape[:3] if self.tensor else data.shape[-3:]
        if self.tensor:
            self._flat = data.reshape(-1, data.shape[3])
            # Of float16 rows are gathered, and converted once they have been: see `_taken`.
            self._dtype = self.xp.float32 if is_half(data) else data.dtype
            self.index = indices.reshape(-1, 3)
        else:
            # A view with one row for each voxel, whose channels are far apart in memory.
            self._flat, self._dtype = data.reshape(-1, int(np.prod(self._shape))).T, np.dtype(np.float64)
            self.index = np.asarray(indices, dtype=np.float64).reshape(-1, 3)

    def each_part(self, read: Callable[[slice], None]) -> None:
        """Call `read` with ranges of points that are processed at a time, for a tensor on all processors."""
        on_processor = not self.tensor or self._flat.device.type == "cpu"
        parts = list(chunks(max(1, len(self.index)), size=CHUNK if on_processor else DEVICE_CHUNK))
        if self.tensor and on_processor and len(parts) > 2:
            # Only with a tensor, since this module would load torch.
            from meddift.system.threads import for_each

            for_each(parts, read)
            return
        for part in parts:
            read(part)

    def empty(self, count: int) -> Any:
        """An empty (count, C) array or tensor for the values."""
        if self.tensor:
            return self._flat.new_empty((count, self._flat.shape[1]), dtype=self._dtype)
        return np.empty((count, self._flat.shape[1]))

    def corners(self, part: slice) -> tuple[Any, Any]:
        """What interpolation reads: (8, n, C), the last axis fastest, and (n, 3) weights of the upper ones."""
        base, step, weight = _cells(self.index[part], tuple(self._shape), self._dtype, self.xp)
        steps = [
            sum(s for s, upper in zip(step, corner, strict=True) if upper) for corner in product((0, 1), repeat=3)
        ]
        # All at once: several threads that issue many small operations wait for each other.
        rows = self.xp.concatenate([base + forward for forward in steps])
        return self._taken(rows).reshape(8, len(base), self._flat.shape[1]), weight

    def _taken(self, rows: Any) -> Any:
        if self.tensor:
            return self._flat.index_select(0, rows).to(self._dtype)
        taken = self._flat.take(rows, axis=0) if self._flat.shape[1] == 1 else self._flat[rows]
        # Integers are converted here, a few at a time: differences of unsigned integers would wrap around.
        return taken.astype(np.float64, copy=False)

    def filled(self, values: Any, part: slice, fill: float) -> Any:
        """Values with `fill` where the point lies outside or its index is not finite."""
        inside = _inside(self.index[part], tuple(self._shape), self.xp)
        return self.xp.where(inside[:, None], values, self.xp.full_like(values, fill))

    def as_given(self, values: Any) -> Any:
        """(N, C) values in the layout of the input."""
        return values if self.tensor else np.ascontiguousarray(values.T).reshape(*self._lead, -1)


def _nearest_rows(data: Tensor, index: Tensor, fill: float | None) -> Tensor:
    """`nearest` for a tensor; without `fill`, indices that are not finite give an arbitrary voxel."""
    x, y, z, channels = data.shape
    voxel = index.nan_to_num().round().clamp(min=0).minimum(constant(index, [x - 1, y - 1, z - 1])).long()
    values = data.reshape(-1, channels).index_select(0, (voxel[:, 0] * y + voxel[:, 1]) * z + voxel[:, 2])
    if fill is not None:
        values = values.masked_fill(~_inside(index, (x, y, z), None)[:, None], fill)
    return values


def _library(values: Any) -> Any:
    return sys.modules["torch"] if is_tensor(values) else np


def _inside(index: Any, shape: tuple[int, ...], xp: Any) -> Any:
    """(N,) bool, whether indices lie within the outer voxel faces; False where they are not finite."""
    last = _vector(index, [n - 0.5 + _ON_THE_FACE for n in shape], xp)
    return ((index >= -0.5 - _ON_THE_FACE) & (index <= last)).all(axis=1)


def _vector(like: Any, numbers: list[float], xp: Any) -> Any:
    return np.asarray(numbers) if xp is np else constant(like, numbers)


def _cells(index: Any, shape: tuple[int, ...], dtype: Any, xp: Any) -> tuple[Any, tuple[int, int, int], Any]:
    """The interpolation cell of each index.

    Returns:
        (N,) int64, flat index of the lower corner; strides to the upper corner along each axis; and (N, 3) weights of
        the upper corners, NaN where the index is not finite.
    """
    x, y, z = shape
    last, lower = (_vector(index, [float(max(n - k, 0)) for n in shape], xp) for k in (1, 2))
    clamped = xp.minimum(index.clip(0, None), last)
    low = xp.minimum(xp.floor(clamped), lower)
    # For an index that is not finite, the difference to itself is NaN, and so is the weight.
    with np.errstate(invalid="ignore"):
        part = clamped - low + (index - index)
    whole = np.fmax(low, 0).astype(np.int64) if xp is np else low.nan_to_num().long()
    base = (whole[:, 0] * y + whole[:, 1]) * z + whole[:, 2]
    part = part if xp is np else part.to(dtype)
    return base, (y * z if x > 1 else 0, z if y > 1 else 0, 1 if z > 1 else 0), part


def _mixed(found: Any, part: Any) -> Any:
    """(k, n, C), each of k pairs (2 k, n, C) mixed by the (n, 1) weights of the second of each."""
    low, high = found[::2], found[1::2]
    return sys.modules["torch"].lerp(low, high, part) if is_tensor(low) else low + (high - low) * part


def _lerped(found: Any, part: Any) -> Any:
    """(n, C), what eight corners give, one axis after the other."""
    for axis in (2, 1, 0):
        found = _mixed(found, part[:, axis : axis + 1])
    return found[0]


def _with_slopes(found: Tensor, part: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Values and derivatives by index, (n, C) each."""
    wx, wy, wz = (part[:, axis : axis + 1] for axis in range(3))
    slope_z = found[1::2] - found[::2]
    along_z = found[::2].addcmul(slope_z, wz)
    slope_y = along_z[1::2] - along_z[::2]
    along_y = along_z[::2].addcmul(slope_y, wy)
    slope_x = along_y[1] - along_y[0]
    slope_y, slope_z = _mixed(slope_y, wx)[0], _mixed(_mixed(slope_z, wy), wx)[0]
    return along_y[0].addcmul(slope_x, wx), (slope_x, slope_y, slope_z)
