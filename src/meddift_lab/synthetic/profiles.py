"""Smooth one-dimensional profiles with their derivatives, and the effect of smoothing on noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rising_step(position: Floats) -> tuple[Floats, Floats]:
    """Smooth step from 0 (at 0 and below) to 1 (at 1 and above), twice continuously differentiable.

    The quintic 6 t^5 - 15 t^4 + 10 t^3 (K. Perlin, Improving Noise, 2002). Its steepest slope is 1.875, at 1/2.

    Returns:
        Value and derivative, of the shape of `position`.
    """
    t = np.clip(position, 0.0, 1.0)
    return t**3 * (t * (6 * t - 15) + 10), 30 * t**2 * (t - 1) ** 2


def plateau(position: Floats) -> tuple[Floats, Floats]:
    """Nearly 1 for |position| below 1/2, 0.37 at 1, practically 0 beyond 1.6: exp(-position^4).

    Returns:
        Value and derivative, of the shape of `position`.
    """
    value = np.exp(-(position**4))
    return value, -4 * position**3 * value


def smoothing_gain(sigma: float) -> float:
    """Factor by which a Gaussian filter along one axis reduces the standard deviation of white noise.

    It is the square root of the sum of squared filter weights, since the variances of independent samples add.

    Args:
        sigma: Standard deviation of the filter, voxels; the filter is truncated at 4 sigma.
    """
    place = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (place / sigma) ** 2)
    return float(np.sqrt((weights**2).sum()) / weights.sum())
