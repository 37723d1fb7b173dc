"""Similarity in a window around a place: what a prior makes enough, and what a similarity map shows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.matching.index import SearchIndex

#: Bytes that the gathered features of one batch of windows may take.
BATCH_BYTES = 200_000_000


def window_similarity(
    index: SearchIndex, descriptors: list[torch.Tensor], start: NDArray[np.int64], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Similarity of each query at every voxel of its own window of the lattice.

    Args:
        index: The scan that is searched.
        descriptors: For each level an (N, C) float32 tensor of unit descriptors.
        start: (N, 3) int64, first lattice voxel of each window; windows must lie on the lattice.
        shape: Voxels of every window along each axis.

    Returns:
        (N, n0, n1, n2) float32 on the device of the index.
    """
    count = len(start)
    total = torch.zeros((count, *shape), dtype=torch.float32, device=index.device)
    window = [np.arange(n) for n in shape]
    for indexed, queries in zip(index.levels, descriptors, strict=True):
        channels = indexed.features.shape[3]
        samples, weights = [], []
        for axis in range(3):
            reading = indexed.readings[axis]
            voxel = start[:, axis, None] + window[axis]
            first, last = reading.low[voxel[:, 0]], reading.high[voxel[:, -1]]
            width = int((last - first).max()) + 1
            samples.append(np.minimum(first[:, None] + np.arange(width), last[:, None]))
            table = np.zeros((count, shape[axis], width), dtype=np.float32)
            rows, columns = np.indices(voxel.shape)
            table[rows, columns, reading.low[voxel] - first[:, None]] = 1 - reading.part[voxel]
            table[rows, columns, reading.high[voxel] - first[:, None]] += reading.part[voxel]
            weights.append(torch.from_numpy(table).to(index.device))
        k0, k1, k2 = (s.shape[1] for s in samples)
        size = max(1, BATCH_BYTES // (4 * channels * k0 * k1 * k2))
        _, y, z, _ = indexed.features.shape
        flat_features = indexed.features.reshape(-1, channels)
        for first_row in range(0, count, size):
            rows_now = slice(first_row, first_row + size)
            s0, s1, s2 = (torch.from_numpy(s[rows_now]).to(index.device) for s in samples)
            at = (s0[:, :, None, None] * y + s1[:, None, :, None]) * z + s2[:, None, None, :]
            now = len(at)
            patch = flat_features[at.reshape(now, -1)]
            dots = torch.bmm(patch, queries[rows_now, :, None])
            dots = torch.bmm(weights[0][rows_now], dots.reshape(now, k0, k1 * k2)).reshape(now, shape[0], k1, k2)
            dots = torch.matmul(weights[1][rows_now][:, None], dots)
            dots = torch.matmul(dots, weights[2][rows_now].transpose(1, 2)[:, None])
            total[rows_now] += dots * _window(indexed.inverse_norms, start[rows_now], shape)
    return total


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
