"""Shifting planes by fractions of a pixel, to correct the shear of a tilted gantry."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.geometry.axes import resampling_matrix


def shifted(data: NDArray[np.number], start: ArrayLike, *, shape: tuple[int, int], fill: float) -> NDArray[np.float64]:
    """Resample a plane on a shifted grid of the same spacing by linear interpolation.

    Args:
        data: (X, Y) plane.
        start: (2,) float, index in `data` of pixel (0, 0) of the result.
        shape: Shape of the result.
        fill: Value outside the outer pixel faces of the plane.

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
