"""ANTs (antspyx): symmetric normalisation, SyN (Avants et al. 2008, doi:10.1016/j.media.2007.06.004)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.geometry import CompositeTransform, flip_ras_lps
from meddift.io import read_transform, write_volume
from meddift.registration import sampled
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats


def syn(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Affine, then SyN, as `ants.registration` does it for `settings["type_of_transform"]`."""
    import ants
    import pandas as pd

    images = []
    for volume, name in ((fixed, "fixed"), (moving, "moving")):
        write_volume(Volume(volume.data.astype(np.float32), volume.grid), work / f"{name}.nii.gz")
        images.append(ants.image_read(str(work / f"{name}.nii.gz")))
    found = ants.registration(
        *images,
        type_of_transform=settings["type_of_transform"],
        outprefix=str(work / "ants-"),
        random_seed=settings["seed"],
    )
    # ANTs resamples the moving image with these transforms in this order, so they map fixed points to moving points.
    files = list(found["fwdtransforms"])
    table = pd.DataFrame(flip_ras_lps(points), columns=["x", "y", "z"])
    moved = ants.apply_transforms_to_points(3, table, files)
    positions = flip_ras_lps(moved[["x", "y", "z"]].to_numpy())
    # In the list of ANTs, as in `CompositeTransform`, the transform that is applied to points first comes first.
    transform = CompositeTransform(tuple(read_transform(Path(file)) for file in files))
    return Answer(positions, lambda grid: sampled(transform, grid))
