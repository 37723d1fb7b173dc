"""Cost volumes for dense matching: every node of a grid compared with a window around it.

Descriptors of both scans lie on one grid; those of the moving scan were resampled through an initial transform. On
the CPU, all dot products between a tile of the grid and the window around it are one matrix product, of which the
required diagonals are read in place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.system.threads import for_each

#: Nodes along each edge of a tile. Larger tiles compute more products that no node needs; with smaller ones, threads
#: wait for each other between many small operations.
TILE = (8, 4, 2)


@dataclass(frozen=True, eq=False)
class CostVolume:
    """Dissimilarity of nodes to the voxels of a window around each.

    Attributes:
        cost: (N, (2r+1)^3) float32, 1 minus the mean cosine over the supporting voxels of a node; 2 outside the moving
            scan.
        nodes: (N, 3) int64, indices of the nodes on the grid of nodes, on the same device.
        shape: Shape of the grid of nodes.
        stride: Voxels between two nodes; node n lies on voxel `stride * n`.
        radius: Radius r of the window, voxels.
    """

    cost: torch.Tensor
    nodes: torch.Tensor
    shape: tuple[int, int, int]
    stride: int
    radius: int

    @cached_property
    def offsets(self) -> torch.Tensor:
        """((2r+1)^3, 3) float32, offsets in voxels, in the order of the columns of `cost`."""
        return window_offsets(self.radius).to(self.cost.device)


def window_offsets(radius: int) -> torch.Tensor:
    """((2r+1)^3, 3) float32, all offsets in a cube of radius r, voxels."""
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
        fixed: (X, Y, Z, C) float32, descriptors of length 1; C-contiguous.
        moving: (X, Y, Z, C) float32, descriptors of the moving scan resampled to the same voxels; they need not have
            length 1.
        shown: (X, Y, Z) float32, 1 inside the moving scan, else 0.
        wanted: (ceil(X / stride), ...) bool on the same device, the nodes to compute.
        radius: Radius of the window, voxels.
        stride: Voxels between two nodes.
        support: Number of neighbours on each side along each axis that are compared together with a node.

    Returns:
        One row for each node, in the order of `wanted.nonzero()`.
    """
    # A CPU is fastest on tiles that stay in its cache, a GPU on shifts of the whole map.
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
    """Mean cosines (N, (2r+1)^3): for each offset the product with the shifted map, averaged around the nodes.

    All offsets along the last axis are computed together, for fewer and larger operations.
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
    """Mean cosines (N, (2r+1)^3), computed for one tile of nodes at a time.

    Each plane of a tile is multiplied with the planes of its window, which are contiguous in memory, so that all
    planes are one batch of matrix products.
    """
    channels = fixed.shape[3]
    reach, width = support, 2 * radius + 1
    nodes = TILE
    tile = [(n - 1) * stride + 1 + 2 * reach for n in nodes]  # voxels that support the nodes of a tile
    window = [n + 2 * radius for n in tile]
    shape = [-(-n // t) * t for n, t in zip(wanted.shape, nodes, strict=True)]
    shown_padded = _padded(shown, reach + radius, shape, stride)
    asked = wanted.numpy()
    number = np.full(shape, -1, dtype=np.int64)
    number[tuple(slice(n) for n in wanted.shape)][asked] = np.arange(int(asked.sum()))
    cost = torch.empty((int(asked.sum()), width**3), dtype=torch.float32)
    rows_of = cost.numpy()
    # Share of the window of each tile inside the moving scan; mostly 1.
    share = torch.nn.functional.avg_pool3d(shown_padded[None, None], window, stride=[n * stride for n in nodes])[0, 0]
    seen_of = share.numpy()
    plane = window[1] * window[2]
    # Each thread writes all its products to the same memory: fresh memory takes longer than the products.
    scratch = threading.local()

    def compare(corner: tuple[int, int, int]) -> None:
        first = [c * stride for c in corner]
        before, far = [f - reach for f in first], [f - reach - radius for f in first]
        inside = number[tuple(slice(c, c + n) for c, n in zip(corner, nodes, strict=True))].reshape(-1)
        seen = seen_of[tuple(c // n for c, n in zip(corner, nodes, strict=True))]
        if seen == 0:
            rows_of[inside[inside >= 0]] = 2.0
            return
        a = _box(fixed, before, tile).reshape(tile[0], -1, channels)
        b = _box(moving, far, window).reshape(window[0], plane, channels)
        reached = b.as_strided((tile[0], channels, width * plane), (plane * channels, 1, channels))
        if not hasattr(scratch, "dots"):
            scratch.dots = a.new_empty((tile[0], tile[1] * tile[2], width * plane))
            scratch.planes = a.new_empty((TILE[0], *scratch.dots.shape[1:]))
        torch.bmm(a, reached, out=scratch.dots)
        dots = _pooled_diagonals(scratch.dots, scratch.planes, tile, window, width, stride, reach)
        if seen < 1:
            counted = _counted(_box(shown_padded, first, window), stride, reach, width)
            dots = torch.where(counted > 0.25, dots / counted.clamp_(min=1e-3), dots.new_full((), -1.0))
        rows_of[inside[inside >= 0]] = 1 - dots.reshape(len(inside), -1).numpy()[inside >= 0]

    for_each(_tiles(asked), compare)
    return cost


def _tiles(wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
    """Index of the first node of each tile that contains a wanted node."""
    for i, j, k in product(*(range(0, n, t) for n, t in zip(wanted.shape, TILE, strict=True))):
        if wanted[i : i + TILE[0], j : j + TILE[1], k : k + TILE[2]].any():
            yield i, j, k


def _padded(shown: torch.Tensor, margin: int, shape: Sequence[int], stride: int) -> torch.Tensor:
    """(X, Y, Z), padded with zeros so that every tile with its window lies inside; `shape` counts nodes."""
    after = [max(n * stride + margin - size, margin) for n, size in zip(shape, shown.shape, strict=True)]
    return torch.nn.functional.pad(shown, [margin, after[2], margin, after[1], margin, after[0]])


def _box(values: torch.Tensor, first: list[int], edges: list[int]) -> torch.Tensor:
    """A box of (X, Y, Z, ...) values, contiguous, from index `first` on; 0 where it reaches beyond them."""
    low = [max(0, f) for f in first]
    high = [max(a, min(f + n, size)) for a, f, n, size in zip(low, first, edges, values.shape, strict=False)]
    inside = values[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    if list(inside.shape[:3]) == edges:
        return inside.contiguous()
    box = values.new_zeros((*edges, *values.shape[3:]))
    x, y, z = (slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    box[x, y, z] = inside
    return box


def _pooled_diagonals(
    dots: torch.Tensor,
    planes: torch.Tensor,
    tile: list[int],
    window: list[int],
    width: int,
    stride: int,
    reach: int,
) -> torch.Tensor:
    """Dot products of voxel i and window voxel i + offset, averaged over the supporting voxels of each node.

    Args:
        dots: (t0, t1 * t2, w * W1 * W2), dot products of the voxels of each plane of the tile with those of the planes
            of its window; the required ones are read in place.
        planes: (T0, t1 * t2, w * W1 * W2), overwritten.
        tile: Shape t of the tile in voxels.
        window: Shape W of the window in voxels.
        width: Offsets w along each axis.
        stride: Voxels between two nodes.
        reach: Supporting voxels on each side of a node.

    Returns:
        (T0, T1, T2, w, w, w) for T nodes along each axis.
    """
    supporting = range(2 * reach + 1)
    # One axis after the other, planes first, so that memory is read in order.
    row, line = width * window[1] * window[2], width * window[2]
    span = stride * (TILE[0] - 1) + 1
    _sum([dots[o : o + span : stride] for o in supporting], planes)
    steps = (tile[1] * tile[2] * row, stride * (tile[2] * row + window[2]), row, window[1] * window[2], 1)
    size = (TILE[0], TILE[1], tile[2], width, line)
    lines = _sum([planes.as_strided(size, steps, o * (tile[2] * row + window[2])) for o in supporting])
    block = width * line
    last = (TILE[1] * tile[2] * block, tile[2] * block, stride * (block + 1), line, window[2], 1)
    voxels = _sum([lines.as_strided(TILE + (width,) * 3, last, o * (block + 1)) for o in supporting])
    return voxels / len(supporting) ** 3


def _sum(parts: list[torch.Tensor], total: torch.Tensor | None = None) -> torch.Tensor:
    """The sum of some tensors, into `total` if it is given."""
    if len(parts) == 1:
        return parts[0].contiguous() if total is None else total.copy_(parts[0])
    total = torch.add(parts[0], parts[1], out=total)
    for part in parts[2:]:
        total += part
    return total


def _counted(shown: torch.Tensor, stride: int, reach: int, width: int) -> torch.Tensor:
    """Share of the supporting voxels inside the moving scan, for each node and offset."""
    edge = 2 * reach + 1
    pooled = torch.nn.functional.avg_pool3d(shown[None, None], edge, stride=1)[0, 0]
    step = pooled.stride()
    return pooled.as_strided(
        TILE + (width,) * 3, (stride * step[0], stride * step[1], stride * step[2], *step)
    ).clone()
