"""Similarity at every voxel of a lattice: what a picture shows, and the fastest search on a coarse lattice.

Dot products are computed on the coarse voxels of each level and then read along one axis after the other.
"""

from __future__ import annotations

import numpy as np
import torch

from meddift.matching.axes import AxisReading
from meddift.matching.index import SearchIndex, unravel
from meddift.matching.search import Found

#: Bytes that the maps of one batch of queries may take.
BATCH_BYTES = 64_000_000


def similarity_maps(index: SearchIndex, descriptors: list[torch.Tensor]) -> torch.Tensor:
    """Similarity of each query to every voxel of the lattice.

    Args:
        index: The scan that is searched.
        descriptors: For each level an (N, C) float32 tensor of unit descriptors.

    Returns:
        (N, n0, n1, n2) float32 on the device of the index; 4 bytes a query and voxel.
    """
    total = torch.zeros((len(descriptors[0]), *index.lattice.shape), dtype=torch.float32, device=index.device)
    for level, queries in zip(index.levels, descriptors, strict=True):
        x, y, z, channels = level.features.shape
        dots = (queries @ level.features.reshape(-1, channels).T).reshape(-1, x, y, z)
        # The axis that shrinks most comes first: less to read for the others.
        order = sorted(range(3), key=lambda axis: len(level.readings[axis].low) / level.readings[axis].length)
        for axis in order:
            dots = _read(dots, axis + 1, level.readings[axis])
        total.addcmul_(dots, level.inverse_norms)
    return total


def search_maps(
    index: SearchIndex, descriptors: list[torch.Tensor], *, exclusion_mm: float = 12.0, rivals: bool = True
) -> Found:
    """Find the best voxel of the lattice for each query by looking at all of them.

    Same answers as `GlobalSearch`. Faster where the lattice is hardly finer than the finest level, so that there is
    nothing to pass over.

    Args:
        index: The scan.
        descriptors: As for `similarity_maps`.
        exclusion_mm: A rival must be at least this far from the best voxel.
        rivals: Whether to look for the best rival as well.
    """
    count = len(descriptors[0])
    shape, spacing = index.lattice.shape, index.lattice.spacing
    size = max(1, BATCH_BYTES // (4 * index.lattice.size * 3))
    voxels, best, other = np.zeros((count, 3), dtype=np.int64), np.zeros(count), np.full(count, -np.inf)
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        maps = similarity_maps(index, [d[rows] for d in descriptors])
        value, place = maps.reshape(len(maps), -1).max(dim=1)
        center = torch.stack(unravel(place, shape), dim=1)
        voxels[rows], best[rows] = center.cpu().numpy(), value.double().cpu().numpy()
        if rivals:
            for row, middle in enumerate(center.tolist()):
                _blank_ball(maps[row], middle, exclusion_mm / spacing)
            other[rows] = maps.reshape(len(maps), -1).amax(dim=1).double().cpu().numpy()
    return Found(voxels, best, other, 1.0)


def _read(values: torch.Tensor, axis: int, reading: AxisReading) -> torch.Tensor:
    """Linear interpolation along one axis of (N, X, Y, Z)."""
    place = reading.low + reading.part  # the last voxel is read as the upper neighbour of the one before
    if place[0] == int(place[0]) and (place == place[0] + np.arange(len(place))).all():
        # The lattice lies on the level's own voxels: there is nothing to interpolate.
        return values.narrow(axis, int(place[0]), len(place))
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    low = torch.from_numpy(reading.low).to(values.device)
    high = torch.from_numpy(reading.high).to(values.device)
    part = torch.from_numpy(reading.part).to(values.device).reshape(shape)
    return torch.lerp(values.index_select(axis, low), values.index_select(axis, high), part)


def _blank_ball(values: torch.Tensor, middle: list[int], radius: np.ndarray) -> None:
    """Set the voxels within an ellipsoid (radii in voxels) around a voxel to -inf, in place."""
    cut, squares = [], []
    for n, m, r in zip(values.shape, middle, radius, strict=True):
        low, high = max(0, m - int(r)), min(n, m + int(r) + 1)
        cut.append(slice(low, high))
        squares.append(((torch.arange(low, high, device=values.device) - m) / float(r)).square())
    inside = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :] <= 1.0
    values[cut[0], cut[1], cut[2]].masked_fill_(inside, -torch.inf)
