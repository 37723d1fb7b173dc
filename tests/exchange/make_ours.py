"""The transform of ours that 3D Slicer is asked about: python tests/exchange/make_ours.py tests/exchange/slicer."""

import sys
from pathlib import Path

import numpy as np

from meddift.geometry import DisplacementField, Grid
from meddift.io import write_transform

# Smooth: between voxels of a field Slicer interpolates by cubic splines, and ITK and meddift linearly.
affine = np.diag([8.0, 8.0, 8.0, 1.0])
affine[:3, 3] = (-44, -44, -4)
grid = Grid((12, 12, 12), affine)
world = grid.voxel_centers()
wave = [5 + world[..., 1] / 40, -3 + 2 * np.sin(world[..., 2] / 60), 2 + np.cos(world[..., 0] / 50)]
write_transform(DisplacementField(np.stack(wave), grid), Path(sys.argv[1]) / "ours.h5")
