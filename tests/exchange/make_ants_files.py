"""ANTs (antspyx) registers drawn scans in every orientation and carries points: python make_ants_files.py FOLDER."""

import json
import sys
from pathlib import Path

import ants
import numpy as np
import pandas
from exchange_grids import NAMES, SHIFT, inner_points, lps, texture

folder = Path(sys.argv[1])
points = inner_points() * [-1, -1, 1]
table = pandas.DataFrame(points, columns=["x", "y", "z"])
told = {}
for name in NAMES:
    origin, spacing, rows = lps(name)
    fixed, moving = (
        ants.from_numpy(texture(name, shift), origin=origin, spacing=spacing, direction=np.array(rows).reshape(3, 3))
        for shift in (0 * SHIFT, SHIFT)
    )
    found = ants.registration(
        fixed,
        moving,
        "SyN",
        outprefix=str(folder / f"{name}-"),
        reg_iterations=(4, 2),
        aff_iterations=(20, 10),
        aff_shrink_factors=(2, 1),
        aff_smoothing_sigmas=(1, 0),
        random_seed=1,
    )
    files = found["fwdtransforms"]
    moved = ants.apply_transforms_to_points(3, table, files)[["x", "y", "z"]].to_numpy()
    affine = ants.apply_transforms_to_points(3, table, files[-1:])[["x", "y", "z"]].to_numpy()
    told[name] = {"files": [Path(file).name for file in files], "lps": moved.tolist(), "affine_lps": affine.tolist()}
(folder / "ants.json").write_text(json.dumps(told))
