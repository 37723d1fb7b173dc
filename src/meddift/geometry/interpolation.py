"""Reading lattices between their voxels: at scattered points, and from one aligned lattice to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def interpolate(data: NDArray[np.floating], indices: ArrayLike) -> NDArray[np.float64]:
    """Trilinear interpolation at continuous voxel indices, clamped at the border.

    Args:
        data: (..., X, Y, Z) float; leading axes are channels.
        indices: (N, 3) float, continuous voxel indices. NaN rows give NaN.

    Returns:
        (..., N) float64.
    """
    index = np.asarray(indices, dtype=np.float64).reshape(-1, 3)
    missing: NDArray[np.bool_] = np.asarray(~np.isfinite(index).all(axis=1))
    last = np.asarray(data.shape[-3:]) - 1
    clamped = np.clip(np.where(missing[:, None], 0.0, index), 0, last)
    low = np.minimum(np.floor(clamped).astype(np.int64), np.maximum(last - 1, 0))
    high = np.minimum(low + 1, last)
    part = clamped - low
    result = np.zeros((*data.shape[:-3], len(index)))
    for corner in range(8):
        pick = [(corner >> axis) & 1 for axis in range(3)]
        at = [np.where(pick[axis], high[:, axis], low[:, axis]) for axis in range(3)]
        weight = np.prod([part[:, a] if pick[a] else 1 - part[:, a] for a in range(3)], axis=0)
        result += data[..., at[0], at[1], at[2]] * weight
    result[..., missing] = np.nan
    return result


def resampling_matrix(n_in: int, n_out: int, *, first: float, step: float) -> NDArray[np.float32]:
    """Weights that read a line of `n_in` samples at indices `first + step * j`, j < `n_out`.

    Linear interpolation where `step` <= 1. Where it is larger, the triangle is widened by `step`, so that
    samples in between are averaged instead of skipped (the antialiasing of PIL and of
    `torch.nn.functional.interpolate(antialias=True)`). Positions beyond the border read the border sample.

    Returns:
        (n_out, n_in) float32; rows sum to one.
    """
    position = np.clip(first + step * np.arange(n_out), 0, n_in - 1)
    width = max(1.0, step)
    distance = np.abs(position[:, None] - np.arange(n_in)[None, :]) / width
    weight = np.maximum(0.0, 1.0 - distance)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)
