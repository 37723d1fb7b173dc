"""Similarity in a window around a place: what a prior makes enough.

Of each level only the patch that a window reads is touched: copied, whitened, multiplied by the queries, and then
interpolated. Lengths of interpolated descriptors come from the patch as well (see `norms`), so that no map of the
whole scan has to be made. Windows are worked on a few at a time, so that all of it stays in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.matching.axes import AxisReading
from meddift.matching.index import IndexedLevel, SearchIndex

#: Bytes that the patches and similarities of one batch of windows may take: on a processor, about its cache; on a
#: graphics card, enough to keep it busy.
BATCH_BYTES = {"cpu": 8_000_000, "cuda": 400_000_000}


def window_similarity(
    index: SearchIndex, descriptors: list[torch.Tensor], start: NDArray[np.int64], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Similarity of queries at every voxel of a window of the lattice; each window has its own queries.

    Args:
        index: The scan that is searched.
        descriptors: For each level an (N, K, C) float32 tensor of unit descriptors, K for each window; or (N, C) for
            one each.
        start: (N, 3) int64, first lattice voxel of each window; windows must lie on the lattice.
        shape: Voxels of every window along each axis.

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
    """How windows read one axis of a level.

    Attributes:
        first: (N,) int64, first sample that a window reads.
        width: Number of samples that every window reads.
        weights: (N, n, width) float32, of the samples at each voxel; None where each voxel is a sample.
        squares: (N, n, 2 * width - 1) float32, of their dot products with themselves (even columns) and with the
            next (odd columns) in a squared length; None where each voxel is a sample.
    """

    first: NDArray[np.int64]
    width: int
    weights: torch.Tensor | None
    squares: torch.Tensor | None

    @classmethod
    def of(cls, reading: AxisReading, start: NDArray[np.int64], length: int, device: str) -> _AxisWindows:
        voxel = start[:, None] + np.arange(length)
        low, high, part = reading.low[voxel], reading.high[voxel], reading.part[voxel]
        if not part.any() and (np.diff(low, axis=1) == 1).all():
            return cls(low[:, 0], length, None, None)
        width = int((high[:, -1] - low[:, 0]).max()) + 1
        first = np.minimum(low[:, 0], reading.length - width)
        rows, columns = np.indices(voxel.shape)
        low, high = low - first[:, None], high - first[:, None]
        weights = np.zeros((*voxel.shape, width), dtype=np.float32)
        weights[rows, columns, low] = 1 - part
        weights[rows, columns, high] += part
        squares = np.zeros((*voxel.shape, 2 * width - 1), dtype=np.float32)
        squares[rows, columns, 2 * low] = (1 - part) ** 2
        squares[rows, columns, 2 * high] += part**2
        squares[rows, columns, low + high] += np.where(low < high, 2 * part * (1 - part), 0)
        return cls(first, width, torch.from_numpy(weights).to(device), torch.from_numpy(squares).to(device))


@dataclass(frozen=True, eq=False)
class _LevelWindows:
    """How windows read a level.

    Attributes:
        level: The level.
        axes: How they read each of its axes.
        start: (N, 3) int64, first lattice voxel of each window.
        inverse_norms: Those of the whole lattice, where they are at hand; else None.
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
        """Numbers that one window's patch and its dot products take."""
        samples = int(np.prod([axis.width for axis in self.axes]))
        return samples * (2 * self.level.level.channels + queries)

    def add_to(self, total: torch.Tensor, wanted: torch.Tensor, rows: slice) -> None:
        """Add this level's part of the similarity of some windows to (n, n0, K, n1, n2), given (n, K, C) queries."""
        patch = self._patches(rows)
        now, k0, k1, k2, channels = patch.shape
        dots = torch.bmm(wanted, patch.reshape(now, -1, channels).transpose(1, 2)).reshape(now, -1, k0, k1, k2)
        dots = _read(dots, [axis.weights for axis in self.axes], rows)
        if self.inverse_norms is not None:
            start, shape = self.start[rows].tolist(), (*total.shape[1:2], *total.shape[3:])
            boxes = [tuple(slice(s, s + n) for s, n in zip(corner, shape, strict=True)) for corner in start]
            inverse = torch.stack([self.inverse_norms[box] for box in boxes])[:, :, None]
        else:
            gram = patch_gram(patch, [axis.weights is not None for axis in self.axes])[:, None]
            inverse = self.level.inverted(_read(gram, [axis.squares for axis in self.axes], rows).clamp_(min=0))
        total.addcmul_(dots, inverse)

    def _patches(self, rows: slice) -> torch.Tensor:
        """(n, k0, k1, k2, C), whitened copies of what windows read."""
        raw = self.level.raw
        corners = np.stack([axis.first[rows] for axis in self.axes], axis=1).tolist()
        k0, k1, k2 = (axis.width for axis in self.axes)
        patch = torch.stack([raw[x : x + k0, y : y + k1, z : z + k2] for x, y, z in corners])
        return self.level.whitened(patch)


def _read(values: torch.Tensor, weights: list[torch.Tensor | None], rows: slice) -> torch.Tensor:
    """(n, n0, K, n1, n2) from (n, K, k0, k1, k2): the weights of each axis applied, where there are any.

    The axis that is read always comes first or last, so that one multiplication a window does it.
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


def patch_gram(patch: torch.Tensor, between: list[bool]) -> torch.Tensor:
    """Dot products of neighbouring descriptors, as `gram_maps` has them, woven into one lattice.

    Args:
        patch: (n, k0, k1, k2, C) float32.
        between: Axes along which anything is read between samples.

    Returns:
        (n, m0, m1, m2) float32, m = 2 k - 1 along axes that are read between samples (even places are samples, odd
        places lie between two), else k.
    """
    widths = patch.shape[1:4]
    size = [2 * k - 1 if b else k for k, b in zip(widths, between, strict=True)]
    gram = patch.new_empty((len(patch), *size))
    ones = patch.new_ones(patch.shape[4])
    for kind in product(*[(0, 1) if b and k > 1 else (0,) for k, b in zip(widths, between, strict=True)]):
        edges = [axis for axis in range(3) if kind[axis]]
        total: torch.Tensor | None = None
        # Fix the direction of the first edge axis: the other half of the pairs are the same pairs swapped.
        for signs in product((0, 1), repeat=max(0, len(edges) - 1)):
            here, there = [0, 0, 0], [0, 0, 0]
            for axis, sign in zip(edges, (0, *signs), strict=False):
                here[axis], there[axis] = sign, 1 - sign
            one, two = (
                patch[(slice(None), *(slice(s, s + k - e) for s, k, e in zip(shift, widths, kind, strict=True)))]
                for shift in (here, there)
            )
            dots = torch.matmul(one * two, ones)
            total = dots if total is None else total.add_(dots)
        if total is not None:
            places = tuple(slice(k, None, 2) if b else slice(None) for k, b in zip(kind, between, strict=True))
            gram[(slice(None), *places)] = total / 2 ** max(0, len(edges) - 1)
    return gram


def windows_around(
    index: SearchIndex, positions: NDArray[np.float64], radius_mm: float
) -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """The smallest windows of one common shape that hold all lattice voxels within a radius, shifted onto the lattice.

    Args:
        index: The scan that is searched.
        positions: (N, 3) float64, world RAS mm.
        radius_mm: Of the ball.

    Returns:
        (N, 3) int64 first voxels, and the common shape.
    """
    lattice = index.lattice
    reach = np.ceil(radius_mm / lattice.spacing).astype(np.int64)
    shape = np.minimum(2 * reach + 1, lattice.shape)
    center = np.round(lattice.world_to_index(positions)).astype(np.int64)
    start = np.clip(center - reach, 0, np.asarray(lattice.shape) - shape)
    return start, (int(shape[0]), int(shape[1]), int(shape[2]))


def distances(
    index: SearchIndex, start: NDArray[np.int64], shape: tuple[int, int, int], positions: NDArray[np.float64]
) -> torch.Tensor:
    """(N, n0, n1, n2) float32, mm from each voxel of a window to the position that goes with the window."""
    lattice = index.lattice
    offset = lattice.world_to_index(positions) - start
    axes = [
        torch.from_numpy((((np.arange(shape[a]) - offset[:, a, None]) * lattice.spacing[a]) ** 2).astype(np.float32))
        for a in range(3)
    ]
    squared = axes[0][:, :, None, None] + axes[1][:, None, :, None] + axes[2][:, None, None, :]
    return squared.sqrt_().to(index.device)
