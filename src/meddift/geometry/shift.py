"""Planes moved by a fraction of a pixel: what straightens slices of a tilted gantry."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.geometry.axes import resampling_matrix


def shifted(data: NDArray[np.number], start: ArrayLike, *, shape: tuple[int, int], fill: float) -> NDArray[np.float64]:
    """A plane read on a grid of the same spacing that lies at a fraction of a pixel.

    Linear interpolation; from the outer pixel faces on, `fill` stands there.

    Args:
        data: (X, Y) plane.
        start: (2,) float, the index in `data` at which pixel (0, 0) of the result lies.
        shape: Lengths of the axes of the result.
        fill: Value outside of the plane.

    Returns:
        (X', Y') float64.
    """
    weights, outside = [], []
    for length, n, first in zip(shape, data.shape, np.asarray(start, dtype=np.float64), strict=True):
        index = first + np.arange(length)
        weights.append(resampling_matrix(n, length, first=float(first), step=1.0))
        outside.append((index < -0.5) | (index > n - 0.5))
    values = np.asarray(weights[0] @ np.asarray(data, dtype=np.float64) @ weights[1].T, dtype=np.float64)
    values[outside[0], :] = fill
    values[:, outside[1]] = fill
    return values
