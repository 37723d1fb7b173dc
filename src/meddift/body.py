"""Where a CT shows the patient and the lungs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid, ball_offsets, steps_of
from meddift.volume import Volume

Floats = NDArray[np.float64]

#: Voxels on which masks, and the box around the patient, are computed, mm: fine enough and fast.
MASK_MM, BOX_MM = 2.0, 4.0
#: Between air and soft tissue.
TISSUE_HU = -500.0
#: What is less than this and apart from the body is no arm.
SMALLEST_PART_MM3 = 100_000.0
#: Air in the body that is less than this is not a lung, but a windpipe or a loop of bowel.
SMALLEST_LUNG_MM3 = 50_000.0


def body_mask(volume: Volume, *, threshold_hu: float = TISSUE_HU) -> Volume:
    """The patient without air around and without the table.

    Above the threshold, opened by a few mm (which cuts clothes and table off), the largest component,
    holes filled slice by slice (which takes in the lungs).

    Args:
        volume: CT in HU, any orientation.
        threshold_hu: Between air and soft tissue.

    Returns:
        Volume of bool on the grid of `volume`; all False if nothing is above the threshold.
    """
    from scipy import ndimage

    thinned = _thinned_out(volume)
    opened = ndimage.binary_opening(thinned.data > threshold_hu, structure=_ball(4.0, thinned.grid))
    body = _largest_components(opened, 1)
    for k in range(body.shape[2]):
        body[:, :, k] = _filled(body[:, :, k])
    return _spread_out(body, volume)


def lung_mask(volume: Volume, *, threshold_hu: float = -400.0, body: Volume | None = None) -> Volume:
    """Both lungs with the vessels inside them, without the chest wall.

    Air inside the body, its two largest components (one, if the second has less than a tenth of the
    first: airways often join both lungs), closed by 4 mm and filled slice by slice. Where a tight field
    of view cuts through the side of a lung, that lung counts as outside air and is missing. Pieces below
    50 ml are not lungs; bowel with more gas than that may be taken for one in scans of the abdomen.

    Args:
        volume: CT in HU, any orientation.
        threshold_hu: Between lung and soft tissue.
        body: Result of `body_mask`, if at hand.

    Returns:
        Volume of bool on the grid of `volume`; all False if there is no air inside the body.
    """
    from scipy import ndimage

    thinned = _thinned_out(volume)
    inside = _thinned_out(body_mask(volume) if body is None else body).data
    air = ndimage.binary_opening((thinned.data < threshold_hu) & inside, structure=_ball(1.5, thinned.grid))
    lungs = _largest_components(air, 2, least=SMALLEST_LUNG_MM3 / thinned.grid.voxel_volume)
    lungs = ndimage.binary_closing(np.pad(lungs, 4), structure=_ball(4.0, thinned.grid))[4:-4, 4:-4, 4:-4]
    for k in range(lungs.shape[2]):
        lungs[:, :, k] = _filled(lungs[:, :, k])
    return _spread_out(lungs & inside, volume)


def body_of(volume: Volume) -> Volume:
    """The patient in a CT, lungs included, without the table and the air around.

    A field of view that cuts through a lung opens it to the side: there the border counts as skin wherever the body
    reaches it.

    Args:
        volume: CT in HU, any orientation.

    Returns:
        (X, Y, Z) bool in RAS order; everything, if no body is found.
    """
    body = body_mask(volume).reoriented("RAS")
    if not body.data.any():
        return Volume(np.ones(body.grid.shape, dtype=bool), body.grid)
    return Volume(np.stack([_closed(body.data[:, :, k]) for k in range(body.grid.shape[2])], axis=2), body.grid)


def body_box(volume: Volume, margin_mm: float) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The box around the patient in a CT, arms included, some mm wider where the scan is.

    Args:
        volume: CT in HU, in RAS order.
        margin_mm: How far beyond the patient it reaches.

    Returns:
        First voxel and shape, for `Volume.cropped`; all of the scan if no body is found.
    """
    from scipy import ndimage

    # Coarse is enough: the margin is wider. Clothes and the shell of the table are thinner than what is opened away.
    steps, thinned = steps_of(volume.grid, BOX_MM), _thinned_out(volume, BOX_MM)
    opened = ndimage.binary_opening(thinned.data > TISSUE_HU, structure=_ball(5.0, thinned.grid))
    labels, _ = ndimage.label(opened)
    large = np.bincount(labels.ravel()) * thinned.grid.voxel_volume >= SMALLEST_PART_MM3
    large[0] = False
    places = ndimage.find_objects(large[labels].astype(np.int8))
    if not places:
        return (0, 0, 0), volume.grid.shape
    margin = np.ceil(margin_mm / volume.grid.spacing).astype(int) + steps
    first = np.maximum([place.start for place in places[0]] * steps - margin, 0)
    last = np.minimum([place.stop for place in places[0]] * steps + margin, volume.grid.shape)
    x, y, z = (int(n) for n in last - first)
    return (int(first[0]), int(first[1]), int(first[2])), (x, y, z)


def foreground_of(volume: Volume) -> Volume:
    """The patient in a scan without units: what is brighter than air, with its holes.

    Above a tenth of the range between air and the brightest tissue once noise is smoothed away, opened by 3 mm, the
    largest components, closed by 9 mm and filled slice by slice.

    Args:
        volume: Any scan in which air is dark, any orientation.

    Returns:
        (X, Y, Z) bool in RAS order; everything, if no body is found.
    """
    from scipy import ndimage

    thinned = _thinned_out(volume)
    smooth = ndimage.gaussian_filter(thinned.data.astype(np.float32), np.minimum(thinned.grid.in_voxels(2.0), 1.5))
    low, top = np.percentile(smooth, (0.5, 99.5))
    bright = smooth > low + 0.1 * (top - low)
    body = _largest_components(ndimage.binary_opening(bright, structure=_ball(3.0, thinned.grid)), 2)
    closed = ndimage.binary_closing(np.pad(body, 6), structure=_ball(9.0, thinned.grid))[6:-6, 6:-6, 6:-6] | body
    filled = np.stack([_closed(closed[:, :, k]) for k in range(closed.shape[2])], axis=2)
    if not filled.any():
        filled[:] = True
    upright, _, _ = volume.grid.reoriented("RAS")
    return Volume(_spread_out(filled, Volume(np.empty(upright.shape, dtype=bool), upright)).data, upright)


def _closed(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Holes of an axial slice filled, also those that lie between the body and a border that it reaches."""
    walled = np.pad(plane, 1)
    for axis in (0, 1):
        for side in (1, -2):
            reached = np.flatnonzero(walled.take(side, axis=axis))
            if len(reached):
                # From the first to the last place where the body reaches the border.
                wall = walled[0 if side == 1 else -1] if axis == 0 else walled[:, 0 if side == 1 else -1]
                wall[reached[0] : reached[-1] + 1] = True
    return _filled(walled)[1:-1, 1:-1]


def _filled(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A slice with its holes filled, as `scipy.ndimage.binary_fill_holes` does, which takes longer."""
    from scipy import ndimage

    labels, count = ndimage.label(np.pad(~plane, 1, constant_values=True))
    hole = np.ones(count + 1, dtype=bool)
    hole[labels[0, 0]] = hole[0] = False  # what is open to the border is no hole
    return np.asarray(plane | hole[labels[1:-1, 1:-1]])


def _ball(radius_mm: float, grid: Grid) -> NDArray[np.bool_]:
    """Structuring element of about this radius; at least the voxel itself."""
    offsets = ball_offsets(grid, radius_mm)
    reach = offsets.max(axis=0)
    ball = np.zeros(2 * reach + 1, dtype=bool)
    ball[tuple((offsets + reach).T)] = True
    return ball


def _largest_components(mask: NDArray[np.bool_], count: int, *, least: float = 1) -> NDArray[np.bool_]:
    """The largest connected components of at least so many voxels; the later ones only if a tenth of the first."""
    from scipy import ndimage

    labels, found = ndimage.label(mask)
    if found == 0:
        return mask.copy()
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    best = np.argsort(-sizes, kind="stable")[:count]
    return np.isin(labels, best[sizes[best] >= max(least, sizes[best[0]] / 10)])


def _thinned_out(volume: Volume, spacing_mm: float = MASK_MM) -> Volume:
    """The volume upright, and only every so many voxels of it."""
    upright = volume.reoriented("RAS")
    steps = steps_of(upright.grid, spacing_mm)
    return upright.strided(steps.tolist())


def _spread_out(mask: NDArray[np.bool_], like: Volume) -> Volume:
    """A mask computed on the upright, thinned-out grid, on the grid of the original."""
    upright, _, _ = like.grid.reoriented("RAS")
    steps = steps_of(upright, MASK_MM)
    # The kept voxel stands for the block around it, not for the block after it.
    picks = [
        np.minimum((np.arange(n) + step // 2) // step, mask.shape[axis] - 1)
        for axis, (n, step) in enumerate(zip(upright.shape, steps, strict=True))
    ]
    full = mask[np.ix_(*picks)]
    return Volume(Volume(full, upright).reoriented(like.grid.orientation).data, like.grid)
