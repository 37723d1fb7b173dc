"""Planes moved by a fraction of a pixel: what straightens slices of a tilted gantry."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def shifted(data: NDArray[np.number], start: ArrayLike, *, shape: tuple[int, int], fill: float) -> NDArray[np.float64]:
    """A plane read on a lattice of the same spacing that lies at a fraction of a pixel.

    Linear interpolation; pixels outside of the plane hold `fill`, and up to one pixel at its rim is blended with it.

    Args:
        data: (X, Y) plane.
        start: (2,) float, the index in `data` at which pixel (0, 0) of the result lies.
        shape: Lengths of the axes of the result.
        fill: Value outside of the plane.

    Returns:
        (X', Y') float64.
    """
    values = np.asarray(data, dtype=np.float64)
    for axis, (first, length) in enumerate(zip(np.asarray(start, dtype=np.float64), shape, strict=True)):
        low = int(np.floor(first + 1e-9))
        part = max(float(first) - low, 0.0)
        values = (1 - part) * _window(values, low, length, axis, fill) + part * _window(
            values, low + 1, length, axis, fill
        )
    return values


def _window(values: NDArray[np.float64], low: int, length: int, axis: int, fill: float) -> NDArray[np.float64]:
    """`length` pixels along one axis from index `low` on, `fill` where there are none."""
    shape = list(values.shape)
    n, shape[axis] = shape[axis], length
    result = np.full(shape, fill)
    first, last = max(low, 0), min(low + length, n)
    if first < last:
        target, source = [slice(None)] * 2, [slice(None)] * 2
        target[axis], source[axis] = slice(first - low, last - low), slice(first, last)
        result[tuple(target)] = values[tuple(source)]
    return result
