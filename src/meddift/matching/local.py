"""Similarity in windows around expected positions.

Of each level only the patch that a window reads is copied, whitened, multiplied by the queries and interpolated. The
lengths of interpolated descriptors are computed from the patch too (see `norms`), so that no map of the whole scan is
needed. Windows are processed a few at a time, so that their data stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import AxisReading
from meddift.matching.index import IndexedLevel, SearchIndex
from meddift.matching.norms import gram_lattice, squared_weights

#: Memory for the patches and similarities of one batch of windows, bytes: on the CPU about the size of its cache, on a
#: GPU enough to keep it busy.
BATCH_BYTES = {"cpu": 8_000_000, "cuda": 400_000_000}


def window_similarity(
    index: SearchIndex, descriptors: list[torch.Tensor], start: NDArray[np.int64], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Similarity of queries to every voxel of windows of the grid; each window has its own queries.

    Args:
        index: The scan that is searched.
        descriptors: For each level an (N, K, C) float32 tensor of unit descriptors, K for each window, or (N, C) for
            one query each.
        start: (N, 3) int64, first grid voxel of each window; windows must lie inside the grid.
        shape: Shape of all windows, voxels.

    Returns:
        (N, K, n0, n1, n2), or (N, n0, n1, n2) for one query each, float32 on the device of the index.
    """
    if descriptors[0].dim() == 2:
        return window_similarity(index, [d[:, None] for d in descriptors], start, shape)[:, 0]
    count, queries = descriptors[0].shape[:2]
    total = torch.zeros((count, shape[0], queries, *shape[1:]), dtype=torch.float32, device=index.device)
    windows = [_LevelWindows.of(index, level, start, shape) for level in index.levels]
    numbers = max(w.numbers(queries) for w in windows) + queries * int(np.prod(shape))
    size = max(1, BATCH_BYTES[torch.device(index.device).type] // (4 * numbers))
    for first in range(0, count, size):
        rows = slice(first, min(first + size, count))
        for level, wanted in zip(windows, descriptors, strict=True):
            level.add_to(total[rows], wanted[rows], rows)
    return total.transpose(1, 2)


@dataclass(frozen=True, eq=False)
class _AxisWindows:
    """How windows interpolate one axis of a level.

    Attributes:
        first: (N,) int64, first sample that each window reads.
        width: Number of samples that every window reads.
        weights: (N, n, width) float32, weights of the samples at each voxel; None where voxels coincide with samples.
        squares: (N, n, 2 * width - 1) float32, weights of the samples' squared lengths (even columns) and of their dot
            products with the next sample (odd columns) in a squared length; None where voxels coincide with samples.
    """

    first: NDArray[np.int64]
    width: int
    weights: torch.Tensor | None
    squares: torch.Tensor | None

    @classmethod
    def of(cls, reading: AxisReading, start: NDArray[np.int64], length: int, device: str) -> _AxisWindows:
        if reading.first_sample is not None:
            return cls(reading.first_sample + start, length, None, None)
        voxel = start[:, None] + np.arange(length)
        first, weights = reading.windows(voxel)
        width = weights.shape[2]
        squares = squared_weights(reading, voxel, first, width)
        return cls(first, width, torch.from_numpy(weights).to(device), torch.from_numpy(squares).to(device))


@dataclass(frozen=True, eq=False)
class _LevelWindows:
    """How windows interpolate a level.

    Attributes:
        level: The level.
        axes: How they interpolate each axis.
        start: (N, 3) int64, first grid voxel of each window.
        inverse_norms: Map of inverse norms on the whole grid, if it has been computed; else None.
    """

    level: IndexedLevel
    axes: tuple[_AxisWindows, _AxisWindows, _AxisWindows]
    start: NDArray[np.int64]
    inverse_norms: torch.Tensor | None

    @classmethod
    def of(
        cls, index: SearchIndex, level: IndexedLevel, start: NDArray[np.int64], shape: tuple[int, int, int]
    ) -> _LevelWindows:
        axes = [_AxisWindows.of(level.readings[a], start[:, a], shape[a], index.device) for a in range(3)]
        maps = index.has_maps and level.has_inverse_norms
        return cls(level, (axes[0], axes[1], axes[2]), start, level.inverse_norms if maps else None)

    def numbers(self, queries: int) -> int:
        """Size of one window's patch and dot products, as a number of values."""
        samples = int(np.prod([axis.width for axis in self.axes]))
        return samples * (2 * self.level.level.channels + queries)

    def add_to(self, total: torch.Tensor, wanted: torch.Tensor, rows: slice) -> None:
        """Add this level's contribution to the similarity of some windows.

        Args:
            total: (n, n0, K, n1, n2) float32, changed in place.
            wanted: (n, K, C) float32, unit descriptors of the queries.
            rows: Which windows.
        """
        patch = self._patches(rows)
        now, k0, k1, k2, channels = patch.shape
        dots = torch.bmm(wanted, patch.reshape(now, -1, channels).transpose(1, 2)).reshape(now, -1, k0, k1, k2)
        dots = _read(dots, [axis.weights for axis in self.axes], rows)
        if self.inverse_norms is not None:
            inverse = _boxes(self.inverse_norms, self.start[rows], (*total.shape[1:2], *total.shape[3:]))[:, :, None]
        else:
            between = [axis.weights is not None for axis in self.axes]
            gram = gram_lattice(patch, (between[0], between[1], between[2]))[:, None]
            inverse = self.level.inverted(_read(gram, [axis.squares for axis in self.axes], rows).clamp_(min=0))
        total.addcmul_(dots, inverse)

    def _patches(self, rows: slice) -> torch.Tensor:
        """(n, k0, k1, k2, C), whitened copies of the patches that some windows read."""
        corners = np.stack([axis.first[rows] for axis in self.axes], axis=1)
        return self.level.whitened(_boxes(self.level.raw, corners, [axis.width for axis in self.axes]))


def _boxes(values: torch.Tensor, corners: NDArray[np.int64], shape: Sequence[int]) -> torch.Tensor:
    """(n, k0, k1, k2, ...), copies of boxes of (X, Y, Z, ...) values whose first voxels are (n, 3) corners."""
    values = values.contiguous()
    _, y, z, *channels = values.shape
    length = int(np.prod(channels))
    # A box consists of lines, each of which lies in one piece: one gather of all lines of all boxes.
    lines = values.as_strided((values.numel() // length - shape[2] + 1, shape[2] * length), (length, 1))
    first = torch.from_numpy(corners).to(values.device)
    i, j = (first[:, axis, None] + torch.arange(shape[axis], device=values.device) for axis in (0, 1))
    rows = (i[:, :, None] * y + j[:, None, :]) * z + first[:, 2, None, None]
    return lines.index_select(0, rows.reshape(-1)).reshape(len(corners), *shape, *channels)


def _read(values: torch.Tensor, weights: list[torch.Tensor | None], rows: slice) -> torch.Tensor:
    """Interpolate (n, K, k0, k1, k2) patches along each axis that has weights: (n, n0, K, n1, n2).

    The interpolated axis always comes first or last, so that it is one batched matrix product.
    """
    now, queries, k0, k1, k2 = values.shape
    if (weight := weights[2]) is not None:
        values = torch.bmm(values.reshape(now, -1, k2), weight[rows].transpose(1, 2)).reshape(now, queries, k0, k1, -1)
    if (weight := weights[1]) is not None:
        flat = torch.bmm(weight[rows], values.permute(0, 3, 1, 2, 4).reshape(now, k1, -1))
        values = flat.reshape(now, weight.shape[1], queries, k0, -1).permute(0, 2, 3, 1, 4)
    values = values.transpose(1, 2)
    if (weight := weights[0]) is not None:
        flat = torch.bmm(weight[rows], values.reshape(now, k0, -1))
        values = flat.reshape(now, weight.shape[1], *values.shape[2:])
    return values
