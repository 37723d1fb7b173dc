"""Choosing landmarks automatically: points with strong texture, spread over the whole scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.volume import DeviceVolume, Volume

#: Voxel size on which texture is measured, mm.
WORKING_SPACING_MM = 4.0


def textured_points(
    prepared: Volume, count: int, *, within: Grid | None = None, distance_mm: float = 12.0
) -> NDArray[np.float64]:
    """Find the points with the strongest texture, one in each cell of a regular grid of cubes.

    Args:
        prepared: (X, Y, Z) scan in the intensities of the network's input, so that CT and MR are treated alike. Most
            of the work is done on its device.
        count: Largest number of points.
        within: Grid of the scan without padding; points keep a distance from its faces, which look like texture.
            None = `prepared.grid`.
        distance_mm: Smallest edge of the cubes, mm; enlarged where needed so that `count` points cover the whole scan.

    Returns:
        (N, 3) float64, world RAS mm, N <= count.
    """
    import torch

    device = prepared.tensor.device if isinstance(prepared, DeviceVolume) else "cpu"
    coarse = DeviceVolume.sent(prepared.resampled_along_axes(prepared.grid.respaced(WORKING_SPACING_MM)), device)
    data = torch.nn.functional.pad(coarse.tensor.double()[None, None], [1] * 6, mode="replicate")
    mean, square = (torch.nn.functional.avg_pool3d(each, 3, stride=1)[0, 0] for each in (data, data * data))
    # The skin is the strongest edge but says little about the position along it: the square root limits its weight.
    strength = (square - mean * mean).clamp_(min=0).sqrt_().sqrt_()
    scan = prepared.grid if within is None else within
    margin = min(2 * WORKING_SPACING_MM, float(scan.extent.min()) / 5)
    shown = scan.contains(coarse.grid.voxel_centers_on(strength.device), margin_mm=margin)
    texture: NDArray[np.float64] = (strength * shown.reshape(strength.shape)).cpu().numpy()
    # The voxel with the strongest texture in every cube: one pass, and evenly spread.
    textured = texture > 0.35 * np.percentile(texture, 99)
    volume_mm3 = max(float(textured.sum()), 1.0) * WORKING_SPACING_MM**3
    edge = max(distance_mm, 0.9 * (volume_mm3 / max(count, 1)) ** (1 / 3))
    cell = max(1, round(edge / WORKING_SPACING_MM))
    pad = [(0, -n % cell) for n in texture.shape]
    blocks = np.pad(np.where(textured, texture, 0), pad)
    a, b, c = (n // cell for n in blocks.shape)
    cells = blocks.reshape(a, cell, b, cell, c, cell).transpose(0, 2, 4, 1, 3, 5).reshape(a, b, c, -1)
    best = cells.argmax(axis=-1)
    value = cells.max(axis=-1)
    where = np.argwhere(value > 0)
    inside = np.stack(np.unravel_index(best[tuple(where.T)], (cell, cell, cell)), axis=1)
    index = where * cell + inside
    order = np.argsort(-value[tuple(where.T)], kind="stable")[:count]
    return np.asarray(coarse.grid.index_to_world(index[order]))
