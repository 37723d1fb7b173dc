"""Similarity at every voxel of a grid: similarity maps, and the fastest search on a coarse grid.

Dot products are computed on the coarse voxels of each level and then interpolated along one axis after the other.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.matching.index import IndexedLevel, SearchIndex, unravel
from meddift.matching.search import Found

#: Memory for one plane of the maps of a batch of queries on the CPU, and for whole maps on a GPU, bytes.
BATCH_BYTES, CARD_BYTES = 8_000_000, 1_500_000_000


def similarity_maps(index: SearchIndex, descriptors: list[torch.Tensor]) -> torch.Tensor:
    """Similarity of each query to every voxel of the grid.

    Args:
        index: The scan that is searched.
        descriptors: For each level an (N, C) float32 tensor of unit descriptors.

    Returns:
        (N, n0, n1, n2) float32 on the device of the index, weighted mean cosine; 4 bytes for each query and voxel.
    """
    total = torch.zeros((len(descriptors[0]), *index.grid.shape), dtype=torch.float32, device=index.device)
    for level, queries in zip(index.levels, descriptors, strict=True):
        x, y, z, channels = level.features.shape
        dots = (queries @ level.features.float().reshape(-1, channels).T).reshape(-1, x, y, z)
        # The axis that shrinks most comes first, to leave less work for the others.
        order = sorted(range(3), key=lambda axis: len(level.readings[axis].low) / level.readings[axis].length)
        for axis in order:
            dots = level.readings[axis].read(dots, axis + 1)
        total.addcmul_(dots, level.inverse_norms)
    return total


def search_maps(
    index: SearchIndex, descriptors: list[torch.Tensor], *, exclusion_mm: float = 12.0, rivals: bool = True
) -> Found:
    """Find the best voxel of the grid for each query by visiting all voxels, one plane after the other.

    Gives the same results as `GlobalSearch`, and is faster for many queries on a grid that is hardly finer than the
    finest level, where bounds exclude few voxels.

    Args:
        index: The scan that is searched.
        descriptors: As for `similarity_maps`.
        exclusion_mm: Smallest distance of a rival from the best voxel, mm.
        rivals: Whether to search for the best rival too.

    Returns:
        The best voxels and rivals.
    """
    count, shape = len(descriptors[0]), index.grid.shape
    on_card = _on_card(index)
    size = max(1, CARD_BYTES // (4 * index.grid.size) if on_card else BATCH_BYTES // (4 * shape[1] * shape[2]))
    search = _at_once if on_card else _sweep
    parts = [
        search(index, [d[start : start + size] for d in descriptors], exclusion_mm if rivals else None)
        for start in range(0, count, size)
    ]
    if not parts:
        return Found(np.zeros((0, 3), dtype=np.int64), np.zeros(0), np.zeros(0), 1.0)
    voxels, best, other = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return Found(voxels, best.astype(np.float64), other.astype(np.float64), 1.0)


def _at_once(
    index: SearchIndex, queries: list[torch.Tensor], exclusion_mm: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `_sweep`, from maps of the whole grid: few large operations, which suits a GPU."""
    shape = index.grid.shape
    maps = similarity_maps(index, queries)
    best, place = maps.flatten(1).max(dim=1)
    voxels = torch.stack(unravel(place, shape), dim=1)
    rival = torch.full_like(best, -torch.inf)
    if exclusion_mm is not None:
        squares = [
            ((torch.arange(n, device=maps.device) - voxels[:, axis, None]) / radius).square()
            for axis, (n, radius) in enumerate(zip(shape, index.grid.in_voxels(exclusion_mm).tolist(), strict=True))
        ]
        near = squares[0][:, :, None, None] + squares[1][:, None, :, None] + squares[2][:, None, None, :] <= 1.0
        rival = maps.masked_fill_(near, -torch.inf).flatten(1).amax(dim=1)
    return voxels, best, rival


def _sweep(
    index: SearchIndex, queries: list[torch.Tensor], exclusion_mm: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Best voxel (Q, 3) and similarity (Q,) of each query, and similarity of its best rival, -inf if not wanted.

    Works on one plane of the grid with all queries at a time, which stays in the cache.
    """
    count, shape = len(queries[0]), index.grid.shape
    planes = _Planes(index, queries)
    highest = torch.empty((shape[0], count), device=index.device)
    best = torch.full((count,), -torch.inf, device=index.device)
    place = torch.zeros(count, dtype=torch.int64, device=index.device)
    for x in range(shape[0]):
        plane = planes.at(x)
        torch.amax(plane, dim=0, out=highest[x])
        # The position is determined only for queries whose maximum has increased: a few planes for each query.
        rows = torch.nonzero(highest[x] > best)[:, 0]
        if len(rows):
            best[rows] = highest[x, rows]
            place[rows] = x * shape[1] * shape[2] + plane[:, rows].T.contiguous().argmax(dim=1)
    voxels = torch.stack(unravel(place, shape), dim=1)
    rival = torch.full_like(best, -torch.inf)
    if exclusion_mm is not None:
        radius = index.grid.in_voxels(exclusion_mm)
        reach = int(radius[0])
        for x in range(shape[0]):
            near = torch.nonzero((voxels[:, 0] - x).abs() <= reach)[:, 0]
            if len(near):
                # Planes that intersect the ball around the best voxel are computed again without it.
                part = planes.at(x, near).T.reshape(len(near), shape[1], shape[2])
                for row, (x0, y0, z0) in enumerate(voxels[near].tolist()):
                    _blank_disc(part[row], (y0, z0), radius, (x - x0) / radius[0])
                highest[x, near] = part.flatten(1).amax(dim=1)
        rival = highest.amax(dim=0)
    return voxels, best, rival


def _on_card(index: SearchIndex) -> bool:
    """Whether the device is a GPU, for which few large operations are faster."""
    return torch.device(index.device).type != "cpu"


class _Planes:
    """Similarity of Q queries at all voxels of a plane of the grid, (n1 * n2, Q)."""

    def __init__(self, index: SearchIndex, queries: list[torch.Tensor]) -> None:
        pairs = list(zip(index.levels, queries, strict=True))
        # Levels whose voxels coincide with the grid are concatenated to one matrix product, norms included.
        self._own = [(level, query) for level, query in pairs if _coincides(level)]
        self._read = [(level, query) for level, query in pairs if not _coincides(level)]
        self._joined = torch.cat([query for _, query in self._own], dim=1) if self._own else None
        # Coarse planes read for the previous grid plane, interpolated along the other two axes.
        self._kept: list[dict[int, torch.Tensor]] = [{} for _ in self._read]

    def at(self, x: int, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Similarity in plane `x` for all queries, or for those in `chosen`."""
        total: torch.Tensor | None = None
        if self._joined is not None:
            unit = torch.cat([self._unit(level, x) for level, _ in self._own], dim=1)
            total = unit @ (self._joined if chosen is None else self._joined[chosen]).T
        for (level, query), kept in zip(self._read, self._kept, strict=True):
            dots = self._dots(level, x, query, kept) if chosen is None else self._dots(level, x, query[chosen], {})
            inverse = level.inverse_norms[x].reshape(-1, 1)
            total = dots * inverse if total is None else total.addcmul_(dots, inverse)
        if total is None:
            raise RuntimeError("an index has at least one level")
        return total

    @staticmethod
    def _unit(level: IndexedLevel, x: int) -> torch.Tensor:
        """(n1 * n2, C), descriptors of a plane of a level that coincides with the grid, times `share / |f|`."""
        first = [reading.first_sample or 0 for reading in level.readings]
        shape = level.inverse_norms.shape
        plane = level.features[first[0] + x, first[1] : first[1] + shape[1], first[2] : first[2] + shape[2]]
        return (plane * level.inverse_norms[x][..., None]).reshape(-1, plane.shape[2])

    @staticmethod
    def _dots(level: IndexedLevel, x: int, query: torch.Tensor, kept: dict[int, torch.Tensor]) -> torch.Tensor:
        """(n1 * n2, Q), interpolated dot products of a plane; `kept` caches the coarse planes of the previous one."""
        reading = level.readings[0]
        low, high, part = int(reading.low[x]), int(reading.high[x]), float(reading.part[x])
        wanted = {low, high} if 0 < part < 1 else {high if part == 1 else low}
        for sample in [s for s in kept if s not in wanted]:
            del kept[sample]
        for sample in wanted:
            if sample not in kept:
                plane = level.features[sample].float()
                dots = (plane.reshape(-1, plane.shape[2]) @ query.T).reshape(1, *plane.shape[:2], len(query))
                for axis in (1, 2):
                    dots = level.readings[axis].read(dots, axis)
                kept[sample] = dots.reshape(-1, len(query))
        if len(wanted) == 1:
            return next(iter(kept.values()))
        return torch.lerp(kept[low], kept[high], part)


def _coincides(level: IndexedLevel) -> bool:
    """Whether the voxels of the grid are voxels of the level."""
    return all(reading.first_sample is not None for reading in level.readings)


def _blank_disc(values: torch.Tensor, middle: tuple[int, int], radius: NDArray[np.float64], away: float) -> None:
    """Set the intersection of an ellipsoid with a plane to -inf, in place.

    Args:
        values: (n1, n2), one plane.
        middle: Coordinates of the centre of the ellipsoid in the plane, voxels.
        radius: (3,) radii of the ellipsoid along the three axes, voxels.
        away: Distance of the plane from the centre, as a share of the radius.
    """
    cut, squares = [], []
    for n, m, r in zip(values.shape, middle, radius[1:], strict=True):
        low, high = max(0, m - int(r)), min(n, m + int(r) + 1)
        cut.append(slice(low, high))
        squares.append(((torch.arange(low, high, device=values.device) - m) / float(r)).square())
    inside = squares[0][:, None] + squares[1] + away**2 <= 1.0
    values[cut[0], cut[1]].masked_fill_(inside, -torch.inf)
