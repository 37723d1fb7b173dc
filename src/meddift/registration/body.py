"""Where a scan shows the patient: what registration compares unless it is told otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.synthetic import body_mask
from meddift.volume import Volume


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


def _closed(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Holes of an axial slice filled, also those that lie between the body and a border that it reaches."""
    from scipy import ndimage

    walled = np.pad(plane, 1)
    for axis in (0, 1):
        for side in (1, -2):
            reached = np.flatnonzero(walled.take(side, axis=axis))
            if len(reached):
                # From the first to the last place where the body reaches the border.
                wall = walled[0 if side == 1 else -1] if axis == 0 else walled[:, 0 if side == 1 else -1]
                wall[reached[0] : reached[-1] + 1] = True
    return np.asarray(ndimage.binary_fill_holes(walled)[1:-1, 1:-1])
