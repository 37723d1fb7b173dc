"""From the best voxel to the best point: the top of the quadratic that fits the 27 values around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Least squares over the 27 neighbours, for 1, x, y, z, x^2, y^2, z^2, xy, xz, yz.
_PLACES = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 3).astype(float)
_X, _Y, _Z = _PLACES.T
_DESIGN = np.stack([np.ones(27), _X, _Y, _Z, _X * _X, _Y * _Y, _Z * _Z, _X * _Y, _X * _Z, _Y * _Z], axis=1)
_SOLVE = np.linalg.pinv(_DESIGN)


def peak_offsets(values: NDArray[np.floating], *, limit: float = 0.75) -> NDArray[np.float64]:
    """Offset of the maximum from the middle voxel.

    Args:
        values: (N, 3, 3, 3) float, similarities; NaN or -inf where there is no voxel.
        limit: An offset component is clipped to this many voxels.

    Returns:
        (N, 3) float64, voxels; 0 where the fit has no maximum or a neighbour is missing.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), 27)
    usable = np.asarray(np.isfinite(flat).all(axis=1))
    coefficient = np.where(usable[:, None], flat, 0.0) @ _SOLVE.T
    gradient = coefficient[:, 1:4]
    hessian = np.empty((len(flat), 3, 3))
    for axis in range(3):
        hessian[:, axis, axis] = 2 * coefficient[:, 4 + axis]
    for position, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        hessian[:, a, b] = hessian[:, b, a] = coefficient[:, 7 + position]
    # A maximum needs a negative definite Hessian; along a ridge (eigenvalue near 0) nothing is moved.
    value, vector = np.linalg.eigh(hessian)
    curved = value < -1e-3 * np.abs(value).max(axis=1, keepdims=True).clip(min=1e-12)
    inverse = np.where(curved, 1.0 / np.where(curved, value, -1.0), 0.0)
    offset = -np.einsum("nij,nj,nkj,nk->ni", vector, inverse, vector, gradient)
    offset[~usable | ~curved.any(axis=1)] = 0.0
    return np.asarray(np.clip(offset, -limit, limit))
