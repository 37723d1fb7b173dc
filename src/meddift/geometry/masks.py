"""Morphology of binary masks on any device: opening and closing with a ball, connected components, holes of slices.

On a processor, components are those of `scipy.ndimage.label`; on a graphics card, where there is no such function,
they are found by hooking and pointer jumping (Shiloach and Vishkin 1982, doi:10.1016/0196-6774(82)90008-6), which
gives the same sets of voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meddift.geometry.grid import Grid
from meddift.geometry.windows import ball_offsets

if TYPE_CHECKING:
    from torch import Tensor

#: Each jump doubles how far a label is followed at a time.
_JUMPS = 6


def opened(mask: Tensor, grid: Grid, radius_mm: float) -> Tensor:
    """(X, Y, Z) bool: what a ball covers that fits into the mask wholly; nothing lies beyond the border."""
    offsets = ball_offsets(grid, radius_mm).tolist()
    return _dilated(_eroded(mask, offsets), offsets)


def closed(mask: Tensor, grid: Grid, radius_mm: float) -> Tensor:
    """(X, Y, Z) bool: the mask, and what lies between its parts closer than a ball; it may bulge beyond the border."""
    import torch

    offsets = ball_offsets(grid, radius_mm)
    pad = [int(n) for n in np.repeat(offsets.max(axis=0)[::-1], 2)]
    around = torch.nn.functional.pad(mask, pad)
    result = _eroded(_dilated(around, offsets.tolist()), offsets.tolist())
    return result[tuple(slice(p, p + n) for p, n in zip(pad[4::-2], mask.shape, strict=True))]


def components(mask: Tensor, *, within_slices: bool = False) -> Tensor:
    """(X, Y, Z) int64 labels of connected sets of voxels, which touch by faces; 0 outside the mask.

    Args:
        mask: (X, Y, Z) bool.
        within_slices: Whether voxels of different axial slices, along the third axis, count as apart.
    """
    import torch

    if mask.device.type != "cpu":
        return _hooked(mask, 2 if within_slices else 3)
    from scipy import ndimage

    structure = ndimage.generate_binary_structure(3, 1)
    if within_slices:
        structure[:, :, [0, 2]] = False
    labels, _ = ndimage.label(mask.numpy(), structure=structure)
    return torch.from_numpy(labels.astype(np.int64, copy=False))


def largest(mask: Tensor, count: int, *, least: float = 1) -> Tensor:
    """(X, Y, Z) bool: the largest connected sets of voxels; the later ones only if they have a tenth of the first.

    Args:
        mask: (X, Y, Z) bool.
        count: At most so many sets.
        least: Of at least so many voxels.
    """
    import torch

    labels = components(mask).reshape(-1)
    sizes = torch.bincount(labels)
    sizes[0] = 0
    top, best = sizes.sort(descending=True, stable=True)
    top, best = top[:count], best[:count]
    kept = torch.zeros_like(sizes, dtype=torch.bool)
    kept[best] = (top > 0) & (top >= least) & (top * 10 >= top[:1])
    return kept[labels].reshape(mask.shape)


def filled_slices(mask: Tensor) -> Tensor:
    """(X, Y, Z) bool: the mask with the holes of each axial slice, as `scipy.ndimage.binary_fill_holes` of a slice."""
    import torch

    labels = components(torch.nn.functional.pad(~mask, (0, 0, 1, 1, 1, 1), value=True), within_slices=True)
    outside = labels[:1, :1]  # what is open to the border is no hole
    return mask | ((labels != outside) & (labels > 0))[1:-1, 1:-1]


def between_ends(line: Tensor) -> Tensor:
    """(N, Z) bool: all from the first to the last True along the first axis."""
    reached = line.int()
    return (reached.cumsum(0) > 0) & (reached.flip(0).cumsum(0).flip(0) > 0)


# ---------------------------------------------------------------------- internals


def _dilated(mask: Tensor, offsets: list[list[int]]) -> Tensor:
    """The union of the mask shifted by each offset."""
    result = mask.clone()
    for offset in offsets:
        if any(offset) and all(abs(o) < n for o, n in zip(offset, mask.shape, strict=True)):
            target, source = zip(*(_overlap(o, n) for o, n in zip(offset, mask.shape, strict=True)), strict=True)
            result[target] |= mask[source]
    return result


def _eroded(mask: Tensor, offsets: list[list[int]]) -> Tensor:
    """What of the mask has every offset inside the mask; outside the border is none of it. Balls are symmetric."""
    result = ~_dilated(~mask, offsets)
    for axis in range(3):
        reach, length = max(offset[axis] for offset in offsets), mask.shape[axis]
        edge = min(reach, length)
        result.narrow(axis, 0, edge).zero_()
        result.narrow(axis, length - edge, edge).zero_()
    return result


def _overlap(offset: int, length: int) -> tuple[slice, slice]:
    """Where a shift puts what, along an axis."""
    low, high = max(0, offset), length + min(0, offset)
    return slice(low, high), slice(low - offset, high - offset)


def _hooked(mask: Tensor, axes: int) -> Tensor:
    """Labels of connected voxels along the first axes: of each set the largest index of a voxel, plus one."""
    import torch

    number = torch.arange(mask.numel(), device=mask.device).reshape(mask.shape)
    # Index 0 stands for all that is outside; voxels count from 1.
    label = torch.where(mask, number + 1, 0)
    while True:
        highest = label.clone()
        for axis in range(axes):
            length = label.shape[axis] - 1
            one, other = label.narrow(axis, 0, length), label.narrow(axis, 1, length)
            here, there = highest.narrow(axis, 0, length), highest.narrow(axis, 1, length)
            torch.maximum(here, other, out=here)
            torch.maximum(there, one, out=there)
        highest = torch.where(mask, highest, 0)
        if torch.equal(highest, label):
            return label
        # The label of a set follows the highest that any of its voxels touches, then the label of that.
        root = torch.arange(mask.numel() + 1, device=mask.device)
        root.scatter_reduce_(0, label.reshape(-1), highest.reshape(-1), "amax")
        root[0] = 0
        for _ in range(_JUMPS):
            root = root[root]
        label = root[highest.reshape(-1)].reshape(mask.shape)
