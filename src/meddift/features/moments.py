"""Mean and covariance of the descriptors of a scan: all that whitening has to know about it.

Moments of two scans add up, so each is taken once a scan and kept beside its features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ModelError

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


def moments_of(matrix: NDArray[np.float32], mask: NDArray[np.bool_]) -> Moments:
    """Moments of (every n-th of) some rows.

    Args:
        matrix: (N, C) float32, one row a voxel.
        mask: (N,) bool, the rows that count; where it is all False, all of them do.
    """
    mask = mask if mask.any() else np.ones_like(mask)
    step = _odd(int(mask.sum()) // _ROWS)
    mask, matrix = mask[::step], matrix[::step]
    if not mask.any():  # what counts fell between the steps
        mask = np.ones_like(mask)
    count = int(mask.sum())
    # One pass over the data: moments about a guess of the mean, from a few rows, lose no digits worth mentioning.
    # The sums of a block of some thousand rows are taken in float32, those of all blocks in float64.
    some = np.flatnonzero(mask)[:: max(1, count // 5000)]
    guess = matrix[some].mean(axis=0, dtype=np.float64).astype(np.float32)
    total = np.zeros(matrix.shape[1])
    covariance = np.zeros((matrix.shape[1], matrix.shape[1]))
    for block in _blocks(matrix, mask):
        block = block - guess
        total += block.sum(axis=0)
        covariance += block.T @ block
    offset = total / count
    return Moments(count, guess + offset, covariance / count - np.outer(offset, offset))


def _blocks(matrix: NDArray[np.float32], mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    """The rows that count, in blocks of bounded size."""
    length = max(1, _BLOCK_NUMBERS // matrix.shape[1])
    for start in range(0, len(matrix), length):
        kept = mask[start : start + length]
        block = matrix[start : start + length]
        yield block if kept.all() else block[kept]


def _odd(step: int) -> int:
    """An odd step near this one: lines of a grid are mostly even, and an even step would visit the same columns."""
    return max(1, step | 1)
