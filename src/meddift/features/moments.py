"""Mean and covariance of the descriptors of a scan: all that whitening has to know about it.

Moments of two scans add up, so each is taken once a scan and kept beside its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

#: Statistics are taken from every n-th voxel, so that about this many of each scan count: for some tens of channels
#: the covariance is then known to a few thousandths.
_ROWS = 400_000
#: About this many numbers are worked on at a time: a block stays in a processor's cache.
_BLOCK_NUMBERS = 200_000


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of some descriptors.

    Attributes:
        count: How many descriptors.
        mean: (C,) float64.
        covariance: (C, C) float64, about the mean, divided by `count`.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def joined(self, other: Moments) -> Moments:
        """The moments of both sets of descriptors together.

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
    """Moments of (every n-th of) some rows.

    Args:
        matrix: (N, C) float32, one row a voxel, on any device.
        mask: (N,) bool, the rows that count; where it is all False, all of them do.
    """
    import torch

    mask = mask if mask.any() else np.ones_like(mask)
    step = _odd(int(mask.sum()) // _ROWS)
    mask, matrix = mask[::step], matrix[::step]
    if not mask.any():  # what counts fell between the steps
        mask = np.ones_like(mask)
    counted = np.flatnonzero(mask)
    count, rows = len(counted), torch.from_numpy(counted).to(matrix.device)
    # One pass over the data: moments about a guess of the mean, from a few rows, lose no digits worth mentioning.
    # The sums of a block of some thousand rows are taken in float32, those of all blocks in float64; where there is no
    # cache to care for, all of it in float64.
    guess = matrix[rows[:: max(1, count // 5000)]].double().mean(dim=0).float()
    channels = matrix.shape[1]
    total = matrix.new_zeros(channels, dtype=torch.float64)
    covariance = matrix.new_zeros((channels, channels), dtype=torch.float64)
    cached = matrix.device.type == "cpu"
    for part in torch.split(rows, max(1, _BLOCK_NUMBERS // channels) if cached else max(1, count)):
        block = matrix[part] - guess
        block = block if cached else block.double()
        total += block.sum(dim=0)
        covariance += block.T @ block
    # One transfer for all.
    told = torch.cat([guess.double(), total / count, (covariance / count).reshape(-1)]).cpu().numpy()
    first, offset, second = told[:channels], told[channels : 2 * channels], told[2 * channels :]
    return Moments(count, first + offset, second.reshape(channels, channels) - np.outer(offset, offset))


def _odd(step: int) -> int:
    """An odd step near this one: lines of a grid are mostly even, and an even step would visit the same columns."""
    return max(1, step | 1)
