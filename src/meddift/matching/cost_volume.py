"""Every point of a grid against a window around it: the dense mode of matching.

Descriptors of both scans lie on one grid (the moving ones were read through a first guess of the transform). All
dot products between a tile of the grid and the window around it are one matrix product; the ones that are wanted
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
        nodes: (N, 3) int64, indices of the nodes on the grid of nodes, on the same device.
        shape: Of the grid of nodes.
        stride: Voxels between two nodes; node n lies on voxel `stride * n`.
        radius: Voxels.
    """

    cost: torch.Tensor
    nodes: torch.Tensor
    shape: tuple[int, int, int]
    stride: int
    radius: int

    @property
    def offsets(self) -> torch.Tensor:
        """((2r+1)^3, 3) float32, voxels, in the order of the columns."""
        return window_offsets(self.radius).to(self.cost.device)


def window_offsets(radius: int) -> torch.Tensor:
    """((2r+1)^3, 3) float32, every offset of a cube of this radius, voxels."""
    side = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1).reshape(-1, 3)


def cost_volume(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    shown: torch.Tensor,
    wanted: torch.Tensor,
    *,
    radius: int,
    stride: int,
    support: int = 1,
) -> CostVolume:
    """Compare nodes of a grid with the windows around them.

    Args:
        fixed: (X, Y, Z, C) float32, unit descriptors; C-contiguous.
        moving: (X, Y, Z, C) float32, descriptors that the first guess puts at the same voxels; they need not have
            length 1.
        shown: (X, Y, Z) float32, 1 where the moving scan shows something, else 0.
        wanted: (ceil(X / stride), ...) bool on the same device, which nodes are asked for.
        radius: Of the window, voxels.
        stride: Voxels from node to node.
        support: Neighbours within so many voxels along each axis are compared along with a node.

    Returns:
        One row a wanted node, in the order of `wanted.nonzero()`.
    """
    # A processor is fastest on tiles that stay in its cache, a graphics card on shifts of the whole map.
    compare = _by_tiles if fixed.device.type == "cpu" else _by_shifts
    cost = compare(fixed, moving, shown, wanted, radius, stride, support)
    return CostVolume(cost, wanted.nonzero(), (wanted.shape[0], wanted.shape[1], wanted.shape[2]), stride, radius)


def _by_shifts(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    shown: torch.Tensor,
    wanted: torch.Tensor,
    radius: int,
    stride: int,
    support: int,
) -> torch.Tensor:
    """(N, (2r+1)^3): for each offset, the product with the shifted map, and its mean over neighbours of nodes.

    Offsets along the last axis are compared together: fewer, larger operations.
    """
    width = 2 * radius + 1
    fixed = torch.nn.functional.pad(fixed, [0, 0, *[support] * 6])[..., None, :]
    moving = torch.nn.functional.pad(moving, [0, 0, *[support + radius] * 6])
    shown = torch.nn.functional.pad(shown, [support + radius] * 6)[..., None]
    size = fixed.shape[:3]
    rows = wanted.reshape(-1).nonzero()[:, 0]
    cost = fixed.new_empty((len(rows), width, width, width))

    def pooled(values: torch.Tensor) -> torch.Tensor:
        """(N, w) of (X, Y, Z, w)."""
        mean = torch.nn.functional.avg_pool3d(values.movedim(-1, 0), 2 * support + 1, stride=stride)
        return mean.flatten(1).index_select(1, rows).T

    def shifted(values: torch.Tensor, i: int, j: int) -> torch.Tensor:
        """(X, Y, Z, w, ...), a view: all shifts along the last axis."""
        x, y, z = values.stride()[:3]
        first = values[i:, j:]
        return first.as_strided((*size, width, values.shape[3]), (x, y, z, z, 1), first.storage_offset())

    for i, j in product(range(width), repeat=2):
        dots = pooled((fixed * shifted(moving, i, j)).sum(dim=-1))
        counted = pooled(shifted(shown, i, j)[..., 0])
        cost[:, i, j] = torch.where(counted > 0.25, 1 - dots / counted.clamp(min=1e-3), 2.0)
    return cost.reshape(len(rows), -1)


def _by_tiles(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    shown: torch.Tensor,
    wanted: torch.Tensor,
    radius: int,
    stride: int,
    support: int,
) -> torch.Tensor:
    """(N, (2r+1)^3): a tile of nodes at a time against the window around it."""
    shape = wanted.shape
    channels = fixed.shape[3]
    reach, width = support, 2 * radius + 1
    tile = TILE_NODES * stride - (stride - 1) + 2 * reach  # voxels that support the nodes of a tile
    window = tile + 2 * radius
    fixed_padded = _padded(fixed, reach, shape, stride)
    moving_padded = _padded(moving, reach + radius, shape, stride)
    shown_padded = _padded(shown[..., None], reach + radius, shape, stride)[..., 0]
    asked = wanted.numpy()
    number = np.full([-(-n // TILE_NODES) * TILE_NODES for n in shape], -1, dtype=np.int64)
    number[tuple(slice(n) for n in shape)][asked] = np.arange(int(asked.sum()))
    cost = torch.empty((int(asked.sum()), width**3), dtype=torch.float32)
    rows_of = cost.numpy()
    # How much of the window of each tile is shown: mostly all of it.
    share = torch.nn.functional.avg_pool3d(shown_padded[None, None], window, stride=TILE_NODES * stride)[0, 0].numpy()

    def compare(corner: tuple[int, int, int]) -> None:
        first = [c * stride for c in corner]
        inside = number[tuple(slice(c, c + TILE_NODES) for c in corner)].reshape(-1)
        seen = share[tuple(c // TILE_NODES for c in corner)]
        if seen == 0:
            rows_of[inside[inside >= 0]] = 2.0
            return
        a = _box(fixed_padded, first, tile).reshape(-1, channels)
        b = _box(moving_padded, first, window).reshape(-1, channels)
        dots = _pooled_diagonals(a @ b.T, tile, window, width, stride, reach)
        if seen < 1:
            counted = _counted(_box(shown_padded, first, window), stride, reach, width)
            dots = torch.where(counted > 0.25, dots / counted.clamp_(min=1e-3), dots.new_full((), -1.0))
        rows_of[inside[inside >= 0]] = 1 - dots.reshape(len(inside), -1).numpy()[inside >= 0]

    for_each(_tiles(asked), compare)
    return cost


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


def _pooled_diagonals(dots: torch.Tensor, tile: int, window: int, width: int, stride: int, reach: int) -> torch.Tensor:
    """(T, T, T, w, w, w): dot products of voxel i and window voxel i + offset, averaged over what supports a node.

    Args:
        dots: (t^3, W^3), of all voxels of a tile with all of its window; those that are wanted are read in place.
        tile: t.
        window: W.
        width: w.
        stride: Voxels between nodes.
        reach: Voxels that support a node, on each side.
    """
    row = window**3
    step = (window * window, window, 1)
    voxel = (tile * tile * row + step[0], tile * row + step[1], row + step[2])
    size, steps = (TILE_NODES, tile, tile, width, width, width), (stride * voxel[0], voxel[1], voxel[2], *step)
    # The first axis while the diagonals are read; what comes out lies in order.
    total = _sum([dots.as_strided(size, steps, offset * voxel[0]) for offset in range(2 * reach + 1)])
    span = stride * (TILE_NODES - 1) + 1
    for axis in (1, 2):
        every = (slice(None),) * axis
        total = _sum([total[(*every, slice(o, o + span, stride))] for o in range(2 * reach + 1)])
    return total / (2 * reach + 1) ** 3


def _sum(parts: list[torch.Tensor]) -> torch.Tensor:
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0]
    for part in parts[2:]:
        total += part
    return total


def _counted(shown: torch.Tensor, stride: int, reach: int, width: int) -> torch.Tensor:
    """Share of the supporting voxels that the moving scan shows, for each node and offset."""
    edge = 2 * reach + 1
    pooled = torch.nn.functional.avg_pool3d(shown[None, None], edge, stride=1)[0, 0]
    step = pooled.stride()
    return pooled.as_strided(
        (TILE_NODES,) * 3 + (width,) * 3, (stride * step[0], stride * step[1], stride * step[2], *step)
    ).clone()
