"""uniGradICON (package unigradicon; Tian et al. 2024, arXiv 2403.05780), with weights from a local file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.io import read_transform, write_volume
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats

#: Environment variable with the path of the weights; an evaluation never downloads them, as the package itself would.
VARIABLE = "UNIGRADICON_WEIGHTS"


def lacking_weights() -> str | None:
    """The reason why the weights cannot be used; None if they can."""
    path = os.environ.get(VARIABLE, "")
    if not path:
        return f"its weights are not on this machine: set {VARIABLE} to the file Step_2_final.trch of its release"
    return None if Path(path).is_file() else f"{VARIABLE} names {path}, which is not there"


def unigradicon(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """The published network, loaded anew for each pair; instance optimisation only if the settings ask for it."""
    import itk
    from icon_registration.itk_wrapper import register_pair
    from unigradicon import get_unigradicon, preprocess

    images = []
    for volume, name in ((fixed, "fixed"), (moving, "moving")):
        write_volume(Volume(volume.data.astype(np.float32), volume.grid), work / f"{name}.nrrd")
        images.append(preprocess(itk.imread(str(work / f"{name}.nrrd"), itk.F), "ct"))
    network = get_unigradicon(weights_location=os.environ[VARIABLE])
    # icon_registration names transforms by resampling: phi_AB resamples A onto B and takes points of B to A.
    _, back = register_pair(network, *images, finetune_steps=settings["finetune_steps"])
    itk.transformwrite([back], str(work / "transform.h5"))
    return Answer(read_transform(work / "transform.h5").apply(points))
