"""Exact global search for the voxel with the highest similarity, without visiting most voxels (branch and bound).

Similarity at a grid voxel is a sum over levels of (interpolated dot product) x (share / length of the interpolated
descriptor). Dot products are computed once, on the coarse voxels. Inside a block of grid voxels an interpolated dot
product cannot exceed the largest of the coarse ones from which it is interpolated, and the lengths are known; this
gives an upper bound of the similarity in the block. Blocks are visited in the order of their bounds until no bound
exceeds the best voxel found. The result is the same as that of visiting every voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import AxisReading
from meddift.matching.index import SearchIndex, unravel

#: Edge of a block, grid voxels.
BLOCK = 4
#: Allowance for rounding in float32: a block is skipped only if its bound is lower by more than this.
SLACK = 2e-6
#: Memory for the dot products of one batch of queries, bytes.
BATCH_BYTES = 64_000_000
#: Memory for dot products while bounds are computed, bytes: about the size of the CPU's cache.
BOUND_BYTES = 2_000_000
#: Blocks that are evaluated at a time, to limit temporary memory.
PAIRS_AT_ONCE = 8192
#: Blocks of each query that are evaluated first, to find a good lower limit.
FIRST_BLOCKS = 8
#: If more blocks than this remain for each query, the best of them are evaluated first.
MANY_BLOCKS = 32


@dataclass(frozen=True, eq=False)
class Found:
    """The result of a search.

    Attributes:
        voxels: (N, 3) int64, the best voxel of each query on the grid.
        similarity: (N,) float64, its similarity.
        rival: (N,) float64, the highest similarity outside the exclusion radius; -inf if there is no such voxel.
        visited: Share of the blocks that were evaluated, over all queries.
    """

    voxels: NDArray[np.int64]
    similarity: NDArray[np.float64]
    rival: NDArray[np.float64]
    visited: float


@dataclass(frozen=True, eq=False)
class _BlockAxis:
    """How the blocks along one axis interpolate a level.

    Attributes:
        samples: (blocks, k) int64, samples of the level that each block reads, padded to k.
        weights: (blocks, BLOCK, k) float32, interpolation weights of these samples at the voxels of the block.
    """

    samples: torch.Tensor
    weights: torch.Tensor


def _block_axis(reading: AxisReading, device: str) -> _BlockAxis:
    n = len(reading.low)
    voxel = np.minimum(np.arange(-(-n // BLOCK) * BLOCK), n - 1).reshape(-1, BLOCK)
    first, weights = reading.windows(voxel)
    samples = first[:, None] + np.arange(weights.shape[2])
    return _BlockAxis(torch.from_numpy(samples).to(device), torch.from_numpy(weights).to(device))


class GlobalSearch:
    """Searches one scan; tables that do not depend on a query are computed once.

    Args:
        index: The scan that is searched.
        exclusion_mm: Smallest distance of a rival from the best voxel, mm.
    """

    def __init__(self, index: SearchIndex, *, exclusion_mm: float = 12.0) -> None:
        self._index = index
        self._shape = index.grid.shape
        self._blocks = tuple(-(-n // BLOCK) for n in self._shape)
        self._axes = [[_block_axis(reading, index.device) for reading in level.readings] for level in index.levels]
        self._features = [level.features.float() for level in index.levels]
        self._norm_range = [self._block_range(level.inverse_norms) for level in index.levels]
        # Grid voxel of each position in a block, clamped at the end of the axis.
        self._voxel = [
            torch.from_numpy(np.minimum(np.arange(b * BLOCK), n - 1).reshape(b, BLOCK)).to(index.device)
            for b, n in zip(self._blocks, self._shape, strict=True)
        ]
        # The exclusion radius in voxels along each axis.
        self._radius = torch.tensor(index.grid.in_voxels(exclusion_mm), dtype=torch.float32, device=index.device)

    def __call__(self, descriptors: list[torch.Tensor], *, rivals: bool = True) -> Found:
        """Find the best voxel for each query.

        Args:
            descriptors: For each level of the index an (N, C) float32 tensor of unit descriptors.
            rivals: Whether to search for the best rival too.

        Returns:
            The best voxels and rivals.
        """
        voxels, similarity, rival, visited = [], [], [], 0
        count = len(descriptors[0])
        for rows in self._batches(count):
            dots = [self._dots(level, d[rows]) for level, d in zip(self._features, descriptors, strict=True)]
            bounds = self._bounds(dots)
            best, place, seen = self._best_first(dots, bounds.clone(), None)
            visited += seen
            center = torch.stack(unravel(place, self._shape), dim=1)
            voxels.append(center.cpu().numpy())
            similarity.append(best.double().cpu().numpy())
            if rivals:
                other, _, seen = self._best_first(dots, bounds, center)
                visited += seen
                rival.append(other.double().cpu().numpy())
            else:
                rival.append(np.full(len(best), -np.inf))
        total = max(1, count * int(np.prod(self._blocks)))
        if not voxels:
            return Found(np.zeros((0, 3), dtype=np.int64), np.zeros(0), np.zeros(0), 0.0)
        return Found(np.concatenate(voxels), np.concatenate(similarity), np.concatenate(rival), visited / total)

    # ------------------------------------------------------------------ parts

    def _batches(self, count: int) -> Iterator[slice]:
        coarse = sum(level[..., 0].numel() for level in self._features)
        # Memory for dot products, and for bounds with a copy and running maxima.
        each = 4 * (coarse + 5 * int(np.prod(self._blocks)))
        size = max(1, BATCH_BYTES // each)
        for start in range(0, count, size):
            yield slice(start, start + size)

    @staticmethod
    def _dots(features: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """(N, X, Y, Z) float32, dot products of the queries with every coarse descriptor."""
        x, y, z, channels = features.shape
        matrix = features.reshape(-1, channels)
        if len(queries) == 1 and matrix.device.type == "cpu":
            # Limited by memory bandwidth. For long rows MKL's matrix-vector product reads more slowly than its product
            # with four vectors; for short rows it is the other way round.
            if channels <= 64:
                return torch.mv(matrix, queries[0]).reshape(1, x, y, z)
            four = torch.nn.functional.pad(queries, (0, 0, 0, 3))
            return (matrix @ four.T)[:, 0].reshape(1, x, y, z)
        return (queries @ matrix.T).reshape(-1, x, y, z)

    def _block_range(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest value in each block."""
        pads = [b * BLOCK - n for b, n in zip(self._blocks, self._shape, strict=True)]
        low = high = values[None, None]
        for axis, pad in enumerate(pads):
            kernel = [1, 1, 1]
            kernel[axis] = BLOCK
            if pad:
                last = values.shape[axis] - 1
                repeat = torch.full((pad,), last, dtype=torch.int64, device=values.device)
                low = torch.cat([low, low.index_select(axis + 2, repeat)], dim=axis + 2)
                high = torch.cat([high, high.index_select(axis + 2, repeat)], dim=axis + 2)
            high = torch.nn.functional.max_pool3d(high, kernel)
            low = -torch.nn.functional.max_pool3d(-low, kernel)
        return low[0, 0], high[0, 0]

    def _bounds(self, dots: list[torch.Tensor]) -> torch.Tensor:
        """(N, blocks) float32, upper bounds of the similarity in each block."""
        total = dots[0].new_zeros((len(dots[0]), *self._blocks))
        for dot, axes, (low, high) in zip(dots, self._axes, self._norm_range, strict=True):
            # A few queries at a time, so that data are still in the cache when they are read again.
            size = max(1, BOUND_BYTES // (4 * dot[0].numel()))
            for start in range(0, len(dot), size):
                highest = dot[start : start + size]
                for axis in range(3):  # whole planes first, single numbers last
                    samples = axes[axis].samples
                    largest = highest.index_select(axis + 1, samples[:, 0])
                    for k in range(1, samples.shape[1]):
                        torch.maximum(largest, highest.index_select(axis + 1, samples[:, k]), out=largest)
                    highest = largest
                # The bound for negative dot products uses the longest descriptor.
                total[start : start + size] += torch.maximum(highest * high, highest * low)
        return total.reshape(len(total), -1)

    def _evaluate(self, dots: list[torch.Tensor], query: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        """(M, BLOCK, BLOCK, BLOCK) float32, similarity at the voxels of block `block[i]` for query `query[i]`."""
        b0, b1, b2 = unravel(block, self._blocks)
        v0, v1, v2 = self._voxel[0][b0], self._voxel[1][b1], self._voxel[2][b2]
        _, n1, n2 = self._shape
        flat = (v0[:, :, None, None] * n1 + v1[:, None, :, None]) * n2 + v2[:, None, None, :]
        total = torch.zeros(flat.shape, dtype=torch.float32, device=flat.device)
        for dot, axes, level in zip(dots, self._axes, self._index.levels, strict=True):
            _, x, y, z = dot.shape
            s0, s1, s2 = axes[0].samples[b0], axes[1].samples[b1], axes[2].samples[b2]
            at = ((query[:, None, None, None] * x + s0[:, :, None, None]) * y + s1[:, None, :, None]) * z + s2[
                :, None, None, :
            ]
            patch = dot.reshape(-1)[at]
            count, k0, k1, k2 = patch.shape
            patch = torch.bmm(axes[0].weights[b0], patch.reshape(count, k0, k1 * k2)).reshape(count, BLOCK, k1, k2)
            patch = torch.matmul(axes[1].weights[b1][:, None], patch)
            patch = torch.matmul(patch, axes[2].weights[b2].transpose(1, 2)[:, None])
            total += patch * level.inverse_norms.reshape(-1)[flat]
        return total

    def _best_first(
        self, dots: list[torch.Tensor], bounds: torch.Tensor, center: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Best similarity and flat grid voxel of each query, and the number of blocks evaluated.

        Args:
            dots: For each level the dot products on its voxels.
            bounds: (N, blocks) float32, overwritten.
            center: (N, 3), voxels within the exclusion radius of which are ignored; None = none.
        """
        count = len(bounds)
        best = torch.full((count,), -torch.inf, device=bounds.device)
        place = torch.zeros(count, dtype=torch.int64, device=bounds.device)
        visited, width = 0, FIRST_BLOCKS
        # A good first result excludes most blocks: begin with the block of the best bound in each part of the scan.
        parts = torch.split(bounds, -(-bounds.shape[1] // FIRST_BLOCKS), dim=1)
        firsts = [part.max(dim=1) for part in parts]
        values = torch.stack([first.values for first in firsts], dim=1)
        begins = torch.arange(len(parts), device=bounds.device) * parts[0].shape[1]
        blocks = torch.stack([first.indices for first in firsts], dim=1) + begins
        query, column = torch.nonzero(torch.isfinite(values), as_tuple=True)
        block = blocks[query, column]
        while len(query):
            bounds[query, block] = -torch.inf
            visited += len(query)
            for start in range(0, len(query), PAIRS_AT_ONCE):
                q, b = query[start : start + PAIRS_AT_ONCE], block[start : start + PAIRS_AT_ONCE]
                value, voxel = self._best_in_blocks(dots, q, b, center)
                # Among several blocks of one query: highest similarity first, then lowest voxel index.
                top = best.clone().scatter_reduce_(0, q, value, "amax")
                better = value >= top[q]
                replaced = top > best
                candidate = torch.where(replaced, torch.iinfo(torch.int64).max, place)
                candidate = candidate.scatter_reduce_(0, q[better], voxel[better], "amin")
                best, place = top, candidate
            query, block = torch.nonzero(bounds > (best - SLACK)[:, None], as_tuple=True)
            if len(query) > min(PAIRS_AT_ONCE, MANY_BLOCKS * count):
                # Too many to evaluate all of them: the best first, which may exclude the rest.
                width = width * 4
                values, blocks = torch.topk(bounds, min(width, bounds.shape[1]), dim=1)
                query, column = torch.nonzero(values > (best - SLACK)[:, None], as_tuple=True)
                block = blocks[query, column]
        return best, place, visited

    def _best_in_blocks(
        self, dots: list[torch.Tensor], query: torch.Tensor, block: torch.Tensor, center: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(M,) best similarity in each block, and (M,) its flat grid voxel."""
        similarity = self._evaluate(dots, query, block)
        b0, b1, b2 = unravel(block, self._blocks)
        places = [self._voxel[axis][b] for axis, b in enumerate((b0, b1, b2))]
        if center is not None:
            away = [((p - center[query, a][:, None]) / self._radius[a]).square() for a, p in enumerate(places)]
            distance = away[0][:, :, None, None] + away[1][:, None, :, None] + away[2][:, None, None, :]
            similarity = torch.where(distance > 1, similarity, -torch.inf)
        value, inside = similarity.reshape(len(query), -1).max(dim=1)
        i, j, k = unravel(inside, (BLOCK, BLOCK, BLOCK))
        rows = torch.arange(len(query), device=query.device)
        _, n1, n2 = self._shape
        return value, (places[0][rows, i] * n1 + places[1][rows, j]) * n2 + places[2][rows, k]
