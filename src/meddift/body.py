"""Where a CT shows the patient and the lungs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import steps_of
from meddift.geometry.masks import between_ends, closed, components, filled_slices, largest, opened
from meddift.volume import DeviceVolume, Volume

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

#: Voxels on which masks, and the box around the patient, are computed, mm: fine enough and fast.
MASK_MM, BOX_MM = 2.0, 4.0
#: Between air and soft tissue.
TISSUE_HU = -500.0
#: What is less than this and apart from the body is no arm.
SMALLEST_PART_MM3 = 100_000.0
#: Air in the body that is less than this is not a lung, but a windpipe or a loop of bowel.
SMALLEST_LUNG_MM3 = 50_000.0


def body_mask(volume: Volume, *, threshold_hu: float = TISSUE_HU) -> DeviceVolume:
    """The patient without air around and without the table.

    Above the threshold, opened by a few mm (which cuts clothes and table off), the largest component,
    holes filled slice by slice (which takes in the lungs).

    Args:
        volume: CT in HU, any orientation; computed is on the device on which it is.
        threshold_hu: Between air and soft tissue.

    Returns:
        Volume of bool on the grid of `volume`; all False if nothing is above the threshold.
    """
    thinned = _thinned_out(volume)
    return _spread_out(_body(thinned, threshold_hu), volume)


def lung_mask(volume: Volume, *, threshold_hu: float = -400.0, body: Volume | None = None) -> DeviceVolume:
    """Both lungs with the vessels inside them, without the chest wall.

    Air inside the body, its two largest components (one, if the second has less than a tenth of the
    first: airways often join both lungs), closed by 4 mm and filled slice by slice. Where a tight field
    of view cuts through the side of a lung, that lung counts as outside air and is missing. Pieces below
    50 ml are not lungs; bowel with more gas than that may be taken for one in scans of the abdomen.

    Args:
        volume: CT in HU, any orientation; computed is on the device on which it is.
        threshold_hu: Between lung and soft tissue.
        body: Result of `body_mask`, if at hand.

    Returns:
        Volume of bool on the grid of `volume`; all False if there is no air inside the body.
    """
    thinned = _thinned_out(volume)
    grid, values = thinned.grid, thinned.tensor
    inside = _body(thinned, TISSUE_HU) if body is None else _thinned_out(body).tensor.to(values.device)
    air = opened((values < threshold_hu) & inside, grid, 1.5)
    lungs = largest(air, 2, least=SMALLEST_LUNG_MM3 / grid.voxel_volume)
    return _spread_out(filled_slices(closed(lungs, grid, 4.0)) & inside, volume)


def body_of(volume: Volume) -> DeviceVolume:
    """The patient in a CT, lungs included, without the table and the air around.

    A field of view that cuts through a lung opens it to the side: there the border counts as skin wherever the body
    reaches it.

    Args:
        volume: CT in HU, any orientation; computed is on the device on which it is.

    Returns:
        (X, Y, Z) bool in RAS order; everything, if no body is found.
    """
    body = body_mask(volume).reoriented("RAS")
    found = _walled(body.tensor)
    return DeviceVolume(found if bool(found.any()) else ~found, body.grid)


def body_box(volume: Volume, margin_mm: float) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The box around the patient in a CT, arms included, some mm wider where the scan is.

    Args:
        volume: CT in HU, in RAS order; computed is on the device on which it is.
        margin_mm: How far beyond the patient it reaches.

    Returns:
        First voxel and shape, for `Volume.cropped`; all of the scan if no body is found.
    """
    import torch

    # Coarse is enough: the margin is wider. Clothes and the shell of the table are thinner than what is opened away.
    steps, thinned = steps_of(volume.grid, BOX_MM), _thinned_out(volume, BOX_MM)
    labels = components(opened(thinned.tensor > TISSUE_HU, thinned.grid, 5.0))
    large = torch.bincount(labels.reshape(-1)) * thinned.grid.voxel_volume >= SMALLEST_PART_MM3
    large[0] = False
    part = large[labels]
    lines = [part.any(dim=2).any(dim=1), part.any(dim=2).any(dim=0), part.any(dim=1).any(dim=0)]
    along = [np.flatnonzero(line) for line in np.split(torch.cat(lines).cpu().numpy(), np.cumsum(part.shape)[:2])]
    if len(along[0]) == 0:
        return (0, 0, 0), volume.grid.shape
    margin = np.ceil(margin_mm / volume.grid.spacing).astype(int) + steps
    first = np.maximum([line[0] for line in along] * steps - margin, 0)
    last = np.minimum([line[-1] + 1 for line in along] * steps + margin, volume.grid.shape)
    x, y, z = (int(n) for n in last - first)
    return (int(first[0]), int(first[1]), int(first[2])), (x, y, z)


def foreground_of(volume: Volume) -> DeviceVolume:
    """The patient in a scan without units: what is brighter than air, with its holes.

    Above a tenth of the range between air and the brightest tissue once noise is smoothed away, opened by 3 mm, the
    largest components, closed by 9 mm and filled slice by slice.

    Args:
        volume: Any scan in which air is dark, any orientation; computed is on the device on which it is.

    Returns:
        (X, Y, Z) bool in RAS order; everything, if no body is found.
    """
    import torch
    from scipy import ndimage

    thinned = _thinned_out(volume)
    grid, device = thinned.grid, thinned.tensor.device
    values = thinned.tensor.float().cpu().numpy()
    smooth = ndimage.gaussian_filter(values, np.minimum(grid.in_voxels(2.0), 1.5))
    low, top = np.percentile(smooth, (0.5, 99.5))
    bright = torch.from_numpy(smooth > low + 0.1 * (top - low)).to(device)
    body = largest(opened(bright, grid, 3.0), 2)
    filled = _walled(closed(body, grid, 9.0) | body)
    upright, _, _ = volume.grid.reoriented("RAS")
    found = filled if bool(filled.any()) else ~filled
    return DeviceVolume(_spread(found, upright.shape, steps_of(upright, MASK_MM)), upright)


def _body(thinned: DeviceVolume, threshold_hu: float) -> Tensor:
    """The mask of `body_mask` on the thinned-out grid."""
    return filled_slices(largest(opened(thinned.tensor > threshold_hu, thinned.grid, 4.0), 1))


def _walled(body: Tensor) -> Tensor:
    """Holes of axial slices filled, also those that lie between the body and a border that it reaches."""
    import torch

    walled = torch.nn.functional.pad(body, (0, 0, 1, 1, 1, 1))
    for axis in (0, 1):
        for side, wall in ((1, 0), (-2, -1)):
            # From the first to the last place where the body reaches the border.
            walled.select(axis, wall).logical_or_(between_ends(walled.select(axis, side)))
    return filled_slices(walled)[1:-1, 1:-1]


def _thinned_out(volume: Volume, spacing_mm: float = MASK_MM) -> DeviceVolume:
    """The volume upright, and only every so many voxels of it."""
    upright = volume.reoriented("RAS")
    thinned = upright.strided(steps_of(upright.grid, spacing_mm).tolist())
    device = volume.tensor.device if isinstance(volume, DeviceVolume) else "cpu"
    return DeviceVolume.sent(thinned, device)


def _spread_out(mask: Tensor, like: Volume) -> DeviceVolume:
    """A mask computed on the upright, thinned-out grid, on the grid of the original."""
    upright, _, _ = like.grid.reoriented("RAS")
    full = _spread(mask, upright.shape, steps_of(upright, MASK_MM))
    return DeviceVolume(DeviceVolume(full, upright).reoriented(like.grid.orientation).tensor, like.grid)


def _spread(mask: Tensor, shape: tuple[int, int, int], steps: NDArray[np.int64]) -> Tensor:
    """A mask of every so many voxels on all of them."""
    import torch

    # The kept voxel stands for the block around it, not for the block after it.
    for axis, (n, step) in enumerate(zip(shape, steps.tolist(), strict=True)):
        pick = ((torch.arange(n, device=mask.device) + step // 2) // step).clamp_(max=mask.shape[axis] - 1)
        mask = mask.index_select(axis, pick)
    return mask
