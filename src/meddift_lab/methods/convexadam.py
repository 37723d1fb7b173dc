"""ConvexAdam with MIND features (package convexAdam): Siebert et al. 2024, doi:10.1109/TMI.2024.3462248.

It needs overlapping scans on one grid, at a resolution similar to that of Learn2Reg's data: the moving scan is first
resampled onto the fixed grid with SimpleITK's affine registration, with voxels of at least 2 mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.geometry import CompositeTransform, DisplacementField
from meddift.registration import sampled
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats
from meddift_lab.methods.simpleitk import AFFINE, as_images, as_transform, fit_affine

#: Defaults of the package (version 0.2.0), which its authors used for Learn2Reg's lung CT without masks.
SETTINGS: Mapping[str, Any] = {
    "affine": AFFINE,
    "smallest_voxel_mm": 2.0,
    "mind_r": 1,
    "mind_d": 2,
    "lambda_weight": 1.25,
    "grid_sp": 6,
    "disp_hw": 4,
    "selected_niter": 80,
    "selected_smooth": 0,
    "grid_sp_adam": 2,
    "ic": True,
    "use_mask": False,
}


def convexadam(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Register by coupled convex optimisation, followed by Adam instance optimisation."""
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    affine = as_transform(fit_affine(*as_images(fixed, moving), settings["affine"]))
    upright = fixed.reoriented("RAS")
    grid = upright.grid.coarsened(settings["smallest_voxel_mm"])
    start = upright.resampled_along_axes(grid)
    pulled = np.empty(grid.shape, dtype=np.float32)
    for first in range(0, grid.shape[0], 16):
        last = min(first + 16, grid.shape[0])
        centers = grid.cropped([first, 0, 0], [last - first, *grid.shape[1:]]).voxel_centers().reshape(-1, 3)
        pulled[first:last] = moving.at(affine.apply(centers)).reshape(last - first, *grid.shape[1:])
    names = ("mind_r", "mind_d", "lambda_weight", "grid_sp", "disp_hw", "selected_niter", "selected_smooth")
    options = {name: settings[name] for name in (*names, "grid_sp_adam", "ic", "use_mask")}
    shifts = convex_adam_pt(
        np.ascontiguousarray(start.data, dtype=np.float32),
        pulled,
        dtype=torch.float32,
        device=torch.device("cpu"),
        **options,
    )
    # (X, Y, Z, 3) in voxels, fixed to moving; the linear part of the grid's affine converts displacements to mm.
    world = grid.index_to_world(np.asarray(shifts, dtype=np.float64)) - grid.index_to_world(np.zeros(3))
    field = DisplacementField(np.ascontiguousarray(np.moveaxis(world, -1, 0), dtype=np.float32), grid)
    transform = CompositeTransform((field, affine))
    return Answer(transform.apply(points), lambda wanted: sampled(transform, wanted))
