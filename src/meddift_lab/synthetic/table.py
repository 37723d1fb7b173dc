"""The table of a CT scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid

AIR_HU = -1000.0
SHELL_HU = -180.0
FOAM_HU = -920.0


def table_hounsfield(grid: Grid, *, top_y: float, middle_x: float = 0.0) -> NDArray[np.float32]:
    """HU of air and a scanner table: a curved shell filled with foam.

    Args:
        grid: Grid, any orientation.
        top_y: World y of the surface at `middle_x`, mm; at a distance of x mm it is x^2 / 900 mm higher.
        middle_x: World x of the middle of the table, mm.

    Returns:
        (X, Y, Z) float32, HU, read-only.
    """
    # The table depends on world x and y only, which are linear in the voxel indices.
    index = [np.arange(n, dtype=np.float32) for n in grid.shape]
    i, j, k = np.meshgrid(*index, indexing="ij", sparse=True)
    affine = grid.affine.astype(np.float32)
    x, y = (
        sum((affine[row, a] * line for a, line in enumerate((i, j, k)) if affine[row, a]), affine[row, 3])
        for row in (0, 1)
    )
    x = x - np.float32(middle_x)
    depth = np.float32(top_y) + x * x / np.float32(900) - y
    edge = np.abs(x) - np.float32(235)
    distance = np.maximum(np.maximum(-depth, depth - 26), edge)
    spacing = np.float32(grid.spacing.mean())
    shell = np.clip(0.5 - distance / spacing, 0, 1)
    foam = np.clip(0.5 - (distance + 2) / spacing, 0, 1)
    hounsfield = AIR_HU + shell * np.float32(SHELL_HU - AIR_HU)
    hounsfield = hounsfield + foam * (np.float32(FOAM_HU) - hounsfield)
    return np.broadcast_to(hounsfield.astype(np.float32), grid.shape)
