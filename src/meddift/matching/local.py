"""Similarity in a window around a place: what a prior makes enough, and what a similarity map shows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.matching.axes import AxisReading
from meddift.matching.index import SearchIndex

#: Bytes that the gathered features of one batch of windows may take.
BATCH_BYTES = 200_000_000


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
    total = torch.zeros((count, queries, *shape), dtype=torch.float32, device=index.device)
    for indexed, wanted in zip(index.levels, descriptors, strict=True):
        channels = indexed.features.shape[3]
        tables = [_reading_tables(indexed.readings[a], start[:, a], shape[a]) for a in range(3)]
        samples = [torch.from_numpy(table[0]).to(index.device) for table in tables]
        weights = [torch.from_numpy(table[1]).to(index.device) for table in tables]
        k0, k1, k2 = (s.shape[1] for s in samples)
        size = max(1, BATCH_BYTES // (4 * k0 * k1 * k2 * (channels + queries)))
        _, y, z, _ = indexed.features.shape
        flat_features = indexed.features.reshape(-1, channels)
        for first in range(0, count, size):
            rows = slice(first, min(first + size, count))
            s0, s1, s2 = (s[rows] for s in samples)
            at = (s0[:, :, None, None] * y + s1[:, None, :, None]) * z + s2[:, None, None, :]
            now = len(at)
            patch = flat_features.index_select(0, at.reshape(-1)).reshape(now, -1, channels)
            dots = torch.bmm(wanted[rows], patch.transpose(1, 2)).reshape(now * queries, k0, k1, k2)
            # Along an axis on which lattice and level coincide there is nothing to interpolate.
            w0, w1, w2 = (w[rows] for w in weights)
            if not tables[0][2]:
                dots = torch.matmul(w0[:, None], dots.reshape(now, queries, k0, k1 * k2))
            dots = dots.reshape(now, queries, shape[0], k1, k2)
            if not tables[1][2]:
                dots = torch.matmul(w1[:, None, None], dots)
            if not tables[2][2]:
                dots = torch.matmul(dots, w2.transpose(1, 2)[:, None, None])
            total[rows] += dots * _window(indexed.inverse_norms, start[rows], shape)[:, None]
    return total


def _reading_tables(
    reading: AxisReading, start: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """How windows read one axis: samples (N, k), weights (N, length, k), and whether each voxel is a sample."""
    voxel = start[:, None] + np.arange(length)
    low, high, part = reading.low[voxel], reading.high[voxel], reading.part[voxel]
    if not part.any() and (np.diff(low, axis=1) == 1).all():
        return low, np.zeros((len(start), 1, 1), dtype=np.float32), True
    first, last = low[:, 0], high[:, -1]
    width = int((last - first).max()) + 1
    samples = np.minimum(first[:, None] + np.arange(width), last[:, None])
    weights = np.zeros((len(start), length, width), dtype=np.float32)
    rows, columns = np.indices(voxel.shape)
    weights[rows, columns, low - first[:, None]] = 1 - part
    weights[rows, columns, high - first[:, None]] += part
    return samples, weights, False


def _window(values: torch.Tensor, start: NDArray[np.int64], shape: tuple[int, int, int]) -> torch.Tensor:
    """(N, n0, n1, n2), the windows of a lattice map."""
    _, n1, n2 = values.shape
    a, b, c = (torch.from_numpy(start[:, axis, None] + np.arange(shape[axis])).to(values.device) for axis in range(3))
    flat = (a[:, :, None, None] * n1 + b[:, None, :, None]) * n2 + c[:, None, None, :]
    return values.reshape(-1)[flat]


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
