"""Morphology of binary masks on any device: opening and closing with a ball, connected components, holes of slices.

On the CPU, components are found by `scipy.ndimage.label`; on a GPU by hooking and pointer jumping (Shiloach and
Vishkin 1982, doi:10.1016/0196-6774(82)90008-6), which gives the same components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meddift.geometry.grid import Grid
from meddift.geometry.windows import ball_offsets

if TYPE_CHECKING:
    from torch import Tensor

#: Pointer jumps in each round; each doubles the distance over which labels propagate.
_JUMPS = 6


def opened(mask: Tensor, grid: Grid, radius_mm: float) -> Tensor:
    """Morphological opening of a (X, Y, Z) bool mask with a ball; the outside of the grid is background."""
    offsets = ball_offsets(grid, radius_mm).tolist()
    return _dilated(_eroded(mask, offsets), offsets)


def closed(mask: Tensor, grid: Grid, radius_mm: float) -> Tensor:
    """Morphological closing of a (X, Y, Z) bool mask with a ball, as if the grid were padded with background."""
    import torch

    offsets = ball_offsets(grid, radius_mm)
    pad = [int(n) for n in np.repeat(offsets.max(axis=0)[::-1], 2)]
    around = torch.nn.functional.pad(mask, pad)
    result = _eroded(_dilated(around, offsets.tolist()), offsets.tolist())
    return result[tuple(slice(p, p + n) for p, n in zip(pad[4::-2], mask.shape, strict=True))]


def components(mask: Tensor, *, within_slices: bool = False) -> Tensor:
    """Label connected components (6-neighbourhood).

    Args:
        mask: (X, Y, Z) bool.
        within_slices: Whether components are confined to slices along the third axis (4-neighbourhood).

    Returns:
        (X, Y, Z) int64, labels; 0 outside the mask.
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
    """Keep the largest connected components; all but the first only if they have at least a tenth of its size.

    Args:
        mask: (X, Y, Z) bool.
        count: Largest number of components.
        least: Smallest size of a component, voxels.

    Returns:
        (X, Y, Z) bool.
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
    """(X, Y, Z) bool: the mask with holes filled in each axial slice, as by `scipy.ndimage.binary_fill_holes`."""
    import torch

    labels = components(torch.nn.functional.pad(~mask, (0, 0, 1, 1, 1, 1), value=True), within_slices=True)
    outside = labels[:1, :1]  # background that is connected to the border is not a hole
    return mask | ((labels != outside) & (labels > 0))[1:-1, 1:-1]


def between_ends(line: Tensor) -> Tensor:
    """(N, Z) bool: True from the first to the last True along the first axis."""
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
    """Voxels whose offsets all lie inside the mask; the outside of the grid is background."""
    result = ~_dilated(~mask, offsets)
    for axis in range(3):
        reach, length = max(offset[axis] for offset in offsets), mask.shape[axis]
        edge = min(reach, length)
        result.narrow(axis, 0, edge).zero_()
        result.narrow(axis, length - edge, edge).zero_()
    return result


def _overlap(offset: int, length: int) -> tuple[slice, slice]:
    """Target and source range of a shift along an axis."""
    low, high = max(0, offset), length + min(0, offset)
    return slice(low, high), slice(low - offset, high - offset)


def _hooked(mask: Tensor, axes: int) -> Tensor:
    """Labels of components connected along the first `axes` axes: the largest voxel index of each, plus one."""
    import torch

    number = torch.arange(mask.numel(), device=mask.device).reshape(mask.shape)
    # Index 0 is the background; voxels are numbered from 1.
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
        # Each label is attached to the highest label that any of its voxels touches; then labels are followed.
        root = torch.arange(mask.numel() + 1, device=mask.device)
        root.scatter_reduce_(0, label.reshape(-1), highest.reshape(-1), "amax")
        root[0] = 0
        for _ in range(_JUMPS):
            root = root[root]
        label = root[highest.reshape(-1)].reshape(mask.shape)
