"""Every point of a lattice against a window around it: the dense mode of matching.

Descriptors of both scans lie on one lattice (the moving ones were read through a first guess of the transform). All
dot products between a tile of the lattice and the window around it are one matrix product; the ones that are wanted
are its diagonals, read in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.system.threads import for_each

#: Nodes along each edge of a tile. A larger tile multiplies more voxels with window voxels that none of its nodes asks
#: for (4: 2.3 times the time of 2 at a stride of 2 and a radius of 3, one thread), a smaller one has more overhead.
TILE_NODES = 2


@dataclass(frozen=True, eq=False)
class CostVolume:
    """Dissimilarity of nodes to the places of a window around each.

    Attributes:
        cost: (N, (2r+1)^3) float32, 1 minus the mean cosine of what supports a node; 2 where the moving scan shows
            nothing.
        nodes: (N, 3) int64, indices of the nodes on the lattice of nodes.
        shape: Of the lattice of nodes.
        stride: Voxels between two nodes; node n lies on voxel `stride * n`.
        radius: Voxels.
    """

    cost: torch.Tensor
    nodes: NDArray[np.int64]
    shape: tuple[int, int, int]
    stride: int
    radius: int

    @property
    def offsets(self) -> torch.Tensor:
        """((2r+1)^3, 3) float32, voxels, in the order of the columns."""
        return window_offsets(self.radius)


def window_offsets(radius: int) -> torch.Tensor:
    """((2r+1)^3, 3) float32, every offset of a cube of this radius, voxels."""
    side = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1).reshape(-1, 3)


def cost_volume(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    shown: torch.Tensor,
    wanted: NDArray[np.bool_],
    *,
    radius: int,
    stride: int,
    support: int = 1,
) -> CostVolume:
    """Compare nodes of a lattice with the windows around them.

    Args:
        fixed: (X, Y, Z, C) float32, unit descriptors; C-contiguous.
        moving: (X, Y, Z, C) float32, descriptors that the first guess puts at the same voxels; they need not have
            length 1.
        shown: (X, Y, Z) float32, 1 where the moving scan shows something, else 0.
        wanted: (ceil(X / stride), ...) bool, which nodes are asked for.
        radius: Of the window, voxels.
        stride: Voxels from node to node.
        support: Neighbours within so many voxels along each axis are compared along with a node.

    Returns:
        One row a wanted node, in the order of `numpy.argwhere(wanted)`.
    """
    shape = wanted.shape
    channels = fixed.shape[3]
    reach, width = support, 2 * radius + 1
    tile = TILE_NODES * stride - (stride - 1) + 2 * reach  # voxels that support the nodes of a tile
    window = tile + 2 * radius
    fixed_padded = _padded(fixed, reach, shape, stride)
    moving_padded = _padded(moving, reach + radius, shape, stride)
    shown_padded = _padded(shown[..., None], reach + radius, shape, stride)[..., 0]
    number = np.full(shape, -1, dtype=np.int64)
    number[wanted] = np.arange(int(wanted.sum()))
    cost = torch.empty((int(wanted.sum()), width**3), dtype=torch.float32)

    def compare(corner: tuple[int, int, int]) -> None:
        first = [c * stride for c in corner]
        a = _box(fixed_padded, first, tile).reshape(-1, channels)
        b = _box(moving_padded, first, window).reshape(-1, channels)
        there = _box(shown_padded[..., None], first, window).reshape(window, window, window)
        if not bool(there.any()):
            dots = torch.zeros((TILE_NODES,) * 3 + (width,) * 3)
            counted = dots
        else:
            dots = _pooled(_diagonals(a @ b.T, tile, window, width), stride, reach)
            counted = _counted(there, stride, reach, width)
        similarity = torch.where(counted > 0.25, dots / counted.clamp_(min=1e-3), dots.new_full((), -1.0))
        inside = number[tuple(slice(c, c + TILE_NODES) for c in corner)]
        rows = np.argwhere(inside >= 0)
        picked = similarity[tuple(torch.from_numpy(rows[:, axis]) for axis in range(3))]
        cost[torch.from_numpy(inside[tuple(rows.T)])] = 1 - picked.reshape(len(rows), -1)

    for_each(_tiles(wanted), compare)
    return CostVolume(cost, np.argwhere(wanted), (shape[0], shape[1], shape[2]), stride, radius)


def _tiles(wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
    """First nodes of the tiles that hold a wanted node."""
    for i, j, k in product(*(range(0, n, TILE_NODES) for n in wanted.shape)):
        if wanted[i : i + TILE_NODES, j : j + TILE_NODES, k : k + TILE_NODES].any():
            yield i, j, k


def _padded(values: torch.Tensor, margin: int, shape: tuple[int, ...], stride: int) -> torch.Tensor:
    """Zeros around, so that every tile and its window lie inside."""
    before = [margin] * 3
    after = [
        -(-n // TILE_NODES) * TILE_NODES * stride + margin - size
        for n, size in zip(shape, values.shape[:3], strict=True)
    ]
    pad = [0, 0, before[2], max(after[2], margin), before[1], max(after[1], margin), before[0], max(after[0], margin)]
    return torch.nn.functional.pad(values, pad)


def _box(values: torch.Tensor, first: list[int], edge: int) -> torch.Tensor:
    i, j, k = first
    return values[i : i + edge, j : j + edge, k : k + edge]


def _diagonals(dots: torch.Tensor, tile: int, window: int, width: int) -> torch.Tensor:
    """(t, t, t, w, w, w) view of (t^3, W^3) dot products: voxel i against window voxel i + offset."""
    row = window**3
    step = (window * window, window, 1)
    return dots.as_strided(
        (tile, tile, tile, width, width, width),
        (tile * tile * row + step[0], tile * row + step[1], row + step[2], *step),
    )


def _pooled(values: torch.Tensor, stride: int, reach: int) -> torch.Tensor:
    """Mean over the supporting voxels of each node; the first three axes become nodes."""
    for axis in range(3):
        last = stride * (TILE_NODES - 1) + 1
        total = None
        for offset in range(2 * reach + 1):
            part = values.narrow(axis, offset, last)[(slice(None),) * axis + (slice(None, None, stride),)]
            total = part.clone() if total is None else total.add_(part)
        assert total is not None
        values = total
    return values.div_((2 * reach + 1) ** 3)


def _counted(shown: torch.Tensor, stride: int, reach: int, width: int) -> torch.Tensor:
    """Share of the supporting voxels that the moving scan shows, for each node and offset."""
    edge = 2 * reach + 1
    pooled = torch.nn.functional.avg_pool3d(shown[None, None], edge, stride=1)[0, 0]
    step = pooled.stride()
    return pooled.as_strided(
        (TILE_NODES,) * 3 + (width,) * 3, (stride * step[0], stride * step[1], stride * step[2], *step)
    ).clone()
