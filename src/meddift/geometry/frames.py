"""World frames. Inside meddift the world is RAS mm; LPS appears only where files are read or written."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Flips x and y: turns RAS into LPS and LPS into RAS. The only sign flip between frames in the package.
RAS_LPS_FLIP: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0])


def flip_ras_lps(positions: ArrayLike) -> NDArray[np.float64]:
    """Turn RAS mm into LPS mm, or LPS mm into RAS mm (the same operation).

    Args:
        positions: (..., 3) float, world mm in one of the two frames. NaN rows stay NaN.

    Returns:
        (..., 3) float64, world mm in the other frame.
    """
    return np.asarray(positions, dtype=np.float64) * np.diag(RAS_LPS_FLIP)[:3]


def flip_affine_ras_lps(affine: ArrayLike) -> NDArray[np.float64]:
    """Turn a voxel-to-RAS affine into a voxel-to-LPS affine, or back.

    Args:
        affine: (4, 4) float, voxel indices to world mm.

    Returns:
        (4, 4) float64 for the other frame.
    """
    return RAS_LPS_FLIP @ np.asarray(affine, dtype=np.float64)
