"""Mean and covariance of the descriptors of a scan, the statistics for whitening.

The moments of two scans can be combined, so they are computed once for each scan and stored with its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

#: Statistics are computed from every n-th voxel, so that about this many are used.
_ROWS = 400_000
#: Size of a block of descriptors, as a number of values, that stays in the cache.
_BLOCK_NUMBERS = 200_000


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of a set of descriptors.

    Attributes:
        count: Number of descriptors.
        mean: (C,) float64.
        covariance: (C, C) float64, central second moments, divided by `count`.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def joined(self, other: Moments) -> Moments:
        """The moments of the union of two sets of descriptors.

        Raises:
            ModelError: if they have different numbers of channels.
        """
        if len(self.mean) != len(other.mean):
            raise ModelError(f"{len(self.mean)} channels in one scan and {len(other.mean)} in the other")
        count = self.count + other.count
        mine, theirs = self.count / count, other.count / count
        apart = self.mean - other.mean
        covariance = mine * self.covariance + theirs * other.covariance + mine * theirs * np.outer(apart, apart)
        return Moments(count, mine * self.mean + theirs * other.mean, covariance)


def moments_of(matrix: Tensor, mask: NDArray[np.bool_]) -> Moments:
    """Moments of a subset of descriptors, of which every n-th is used if there are many.

    Args:
        matrix: (N, C) float32 or float16, one row for each voxel, on any device.
        mask: (N,) bool, the rows to use; if all are False, all rows are used.
    """
    import torch

    mask = mask if mask.any() else np.ones_like(mask)
    step = _odd(int(mask.sum()) // _ROWS)
    mask, matrix = mask[::step], matrix[::step]
    if not mask.any():  # no selected row is among every n-th
        mask = np.ones_like(mask)
    counted = np.flatnonzero(mask)
    count, rows = len(counted), torch.from_numpy(counted).to(matrix.device)
    # One pass over the data: moments about an estimate of the mean, from a few rows, are numerically stable. On the
    # CPU sums within a block are computed in float32 and sums of blocks in float64; on a GPU everything in float64.
    guess = matrix[rows[:: max(1, count // 5000)]].double().mean(dim=0).float()
    channels = matrix.shape[1]
    total = matrix.new_zeros(channels, dtype=torch.float64)
    covariance = matrix.new_zeros((channels, channels), dtype=torch.float64)
    cached = matrix.device.type == "cpu"
    for part in torch.split(rows, max(1, _BLOCK_NUMBERS // channels) if cached else max(1, count)):
        block = matrix[part].float() - guess
        block = block if cached else block.double()
        total += block.sum(dim=0)
        covariance += block.T @ block
    # One transfer for all results.
    told = torch.cat([guess.double(), total / count, (covariance / count).reshape(-1)]).cpu().numpy()
    first, offset, second = told[:channels], told[channels : 2 * channels], told[2 * channels :]
    return Moments(count, first + offset, second.reshape(channels, channels) - np.outer(offset, offset))


def _odd(step: int) -> int:
    """The step, made odd: grids mostly have even lengths, and an even step would visit the same columns only."""
    return max(1, step | 1)
