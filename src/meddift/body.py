"""Masks of the patient and of the lungs."""

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

#: Spacing of the voxels on which masks, and the box around the patient, are computed, mm.
MASK_MM, BOX_MM = 2.0, 4.0
#: Threshold between air and soft tissue, HU.
TISSUE_HU = -500.0
#: Smallest component apart from the trunk that counts as part of the body, such as an arm, mm^3.
SMALLEST_PART_MM3 = 100_000.0
#: Smallest component of air in the body that counts as a lung; trachea and bowel gas are smaller, mm^3.
SMALLEST_LUNG_MM3 = 50_000.0


def body_mask(volume: Volume, *, threshold_hu: float = TISSUE_HU) -> DeviceVolume:
    """The patient without the surrounding air and without the table.

    Voxels above the threshold are opened by a few mm, which removes clothes and table. The largest component is kept
    and its holes are filled slice by slice, which includes the lungs.

    Args:
        volume: CT in HU, any orientation. The mask is computed on its device.
        threshold_hu: Threshold between air and soft tissue, HU.

    Returns:
        Volume of bool on the grid of `volume`; all False if nothing is above the threshold.
    """
    thinned = _thinned_out(volume)
    return _spread_out(_body(thinned, threshold_hu), volume)


def lung_mask(volume: Volume, *, threshold_hu: float = -400.0, body: Volume | None = None) -> DeviceVolume:
    """Both lungs with the vessels inside them, without the chest wall.

    The two largest components of air inside the body are closed by 4 mm and filled slice by slice. The second one is
    dropped if it has less than a tenth of the volume of the first, because airways often join both lungs. A lung that
    the border of the field of view cuts at its side counts as outside air and is missing. Components below
    `SMALLEST_LUNG_MM3` are not lungs; larger amounts of bowel gas may be taken for a lung in scans of the abdomen.

    Args:
        volume: CT in HU, any orientation. The mask is computed on its device.
        threshold_hu: Threshold between lung and soft tissue, HU.
        body: Result of `body_mask`; computed if None.

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

    If the field of view cuts through a lung, that lung is open to the side. The border of the field of view therefore
    counts as skin between the places where the body reaches it.

    Args:
        volume: CT in HU, any orientation. The mask is computed on its device.

    Returns:
        (X, Y, Z) bool in RAS order; everything, if no body is found.
    """
    body = body_mask(volume).reoriented("RAS")
    found = _walled(body.tensor)
    return DeviceVolume(found if bool(found.any()) else ~found, body.grid)


def body_box(volume: Volume, margin_mm: float) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The box around the patient in a CT, arms included, with a margin as far as the scan reaches.

    Args:
        volume: CT in HU, in RAS order. The box is computed on its device.
        margin_mm: Width of the margin, mm.

    Returns:
        Index of the first voxel and shape, for `Volume.cropped`; the whole scan if no body is found.
    """
    import torch

    # Coarse voxels suffice, because the margin is wider. The opening removes clothes and the shell of the table.
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
    """The patient in a scan without units, such as MR: what is brighter than air, with holes filled.

    The smoothed scan is thresholded at a tenth of the range between air and the brightest tissue and opened by 3 mm.
    The two largest components are closed by 9 mm and filled slice by slice.

    Args:
        volume: Any scan in which air is dark, any orientation. The mask is computed on its device.

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
    """The mask of `body_mask` on the subsampled grid."""
    return filled_slices(largest(opened(thinned.tensor > threshold_hu, thinned.grid, 4.0), 1))


def _walled(body: Tensor) -> Tensor:
    """Fill holes of axial slices, including those between the body and a border that it reaches."""
    import torch

    walled = torch.nn.functional.pad(body, (0, 0, 1, 1, 1, 1))
    for axis in (0, 1):
        for side, wall in ((1, 0), (-2, -1)):
            # From the first to the last place where the body reaches the border.
            walled.select(axis, wall).logical_or_(between_ends(walled.select(axis, side)))
    return filled_slices(walled)[1:-1, 1:-1]


def _thinned_out(volume: Volume, spacing_mm: float = MASK_MM) -> DeviceVolume:
    """The volume in RAS order, subsampled to a spacing near `spacing_mm`, without smoothing."""
    upright = volume.reoriented("RAS")
    thinned = upright.strided(steps_of(upright.grid, spacing_mm).tolist())
    device = volume.tensor.device if isinstance(volume, DeviceVolume) else "cpu"
    return DeviceVolume.sent(thinned, device)


def _spread_out(mask: Tensor, like: Volume) -> DeviceVolume:
    """Bring a mask from the subsampled grid in RAS order to the grid of the original."""
    upright, _, _ = like.grid.reoriented("RAS")
    full = _spread(mask, upright.shape, steps_of(upright, MASK_MM))
    return DeviceVolume(DeviceVolume(full, upright).reoriented(like.grid.orientation).tensor, like.grid)


def _spread(mask: Tensor, shape: tuple[int, int, int], steps: NDArray[np.int64]) -> Tensor:
    """Bring a mask from the subsampled grid to `shape`, by nearest neighbour; `steps` are those of the subsampling."""
    import torch

    # A kept voxel represents the block centred on it, not the block that begins at it.
    for axis, (n, step) in enumerate(zip(shape, steps.tolist(), strict=True)):
        pick = ((torch.arange(n, device=mask.device) + step // 2) // step).clamp_(max=mask.shape[axis] - 1)
        mask = mask.index_select(axis, pick)
    return mask
