"""The orthonormal 3D Haar transform: a latent stage without weights.

A block of 2 x 2 x 2 voxels becomes 8 channels at half the resolution. Nothing is lost and no energy is
created: the transform of a block is an orthogonal 8 x 8 matrix, whose transpose undoes it.

Channel c = 4 * x + 2 * y + z, where x, y and z say for each axis whether the channel holds the sum (0) or
the difference "first minus second" (1) of the two halves. Channel 0 is the block's mean times sqrt(8).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError
from meddift.geometry.sampling import is_tensor

if TYPE_CHECKING:
    from torch import Tensor

#: Number of channels that one input channel becomes.
HAAR_CHANNELS = 8

#: Voxels of the image along one axis of a voxel of the latent.
HAAR_STRIDE = 2


def haar_matrix() -> NDArray[np.float64]:
    """(8, 8) orthogonal matrix from the values of a block to its channels.

    Column 4 * i + 2 * j + k belongs to voxel (i, j, k) of the block, row 4 * x + 2 * y + z to a channel.
    """
    pair = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0)
    return np.kron(np.kron(pair, pair), pair)


@overload
def haar_forward(data: NDArray[np.floating]) -> NDArray[np.float32]: ...
@overload
def haar_forward(data: Tensor) -> Tensor: ...
def haar_forward(data: Any) -> Any:
    """Split each block of 2 x 2 x 2 voxels into 8 channels.

    Args:
        data: (X, Y, Z) float, every axis even; an array or a tensor.

    Returns:
        (8, X/2, Y/2, Z/2) float32, on the same device.

    Raises:
        GeometryError: if `data` does not have three even axes.
    """
    if data.ndim != 3 or any(n % HAAR_STRIDE for n in data.shape):
        raise GeometryError(f"the Haar transform needs three even axes, got shape {tuple(data.shape)}")
    tensor = is_tensor(data)
    parts = [data.float() if tensor else np.asarray(data, dtype=np.float32)]
    for axis in range(3):
        parts = [half for part in parts for half in _butterfly(part, axis)]
    stacked: Any = sys.modules["torch"].stack(parts) if tensor else np.stack(parts)
    return stacked * np.float32(8.0**-0.5)


def haar_inverse(channels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Put 8 channels together again; undoes `haar_forward`.

    Args:
        channels: (8, X, Y, Z) float.

    Returns:
        (2 X, 2 Y, 2 Z) float32.

    Raises:
        GeometryError: if there are not 8 channels on three axes.
    """
    if channels.ndim != 4 or channels.shape[0] != HAAR_CHANNELS:
        raise GeometryError(f"the inverse Haar transform needs shape (8, X, Y, Z), got {channels.shape}")
    parts = list(np.asarray(channels, dtype=np.float32))
    for axis in (2, 1, 0):
        merged = []
        for total, difference in zip(parts[0::2], parts[1::2], strict=True):
            pair = np.stack([total + difference, total - difference], axis=axis + 1)
            shape = list(total.shape)
            shape[axis] *= HAAR_STRIDE
            merged.append(pair.reshape(shape))
        parts = merged
    result: NDArray[np.float32] = parts[0] * np.float32(8.0**-0.5)
    return result


def _butterfly(data: Any, axis: int) -> tuple[Any, Any]:
    """Sum and difference of neighbours along one axis."""
    even: list[slice] = [slice(None)] * 3
    odd = list(even)
    even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
    first, second = data[tuple(even)], data[tuple(odd)]
    return first + second, first - second
