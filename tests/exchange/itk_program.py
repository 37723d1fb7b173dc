"""Run by a Python of its own, because `itk` and SimpleITK do not live together in one process.

itk_program.py THERE BACK: writes the scan of `image_geometries` in every orientation and format into the folder THERE,
and tells as JSON on stdout where ITK sees the corners of every image in the folder BACK.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import itk
import numpy as np
from image_geometries import SPACING, affines, corners, values

SUFFIXES = ("nii.gz", "nii", "nrrd", "nhdr", "mha", "mhd")


def write(folder: Path) -> None:
    for name, affine in affines().items():
        image = itk.image_from_array(np.ascontiguousarray(values().transpose()))
        image.SetSpacing(SPACING)
        image.SetOrigin((affine[:3, 3] * [-1, -1, 1]).tolist())
        image.SetDirection(itk.matrix_from_array(np.diag([-1, -1, 1]) @ affine[:3, :3] / SPACING))
        for suffix in SUFFIXES:
            itk.imwrite(image, str(folder / f"{name}.{suffix}"), compression=suffix in ("mha", "nrrd"))


def tell(folder: Path) -> dict[str, object]:
    seen = {}
    for path in sorted(folder.iterdir()):
        image = itk.imread(str(path))
        places = [list(image.TransformIndexToPhysicalPoint(list(map(int, index)))) for index in corners()[:8]]
        seen[path.name] = {
            "places_lps": places,
            "sum": int(itk.array_from_image(image).sum()),
            "second": int(itk.array_from_image(image)[0, 0, 1]),
        }
    return seen


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(tell(Path(sys.argv[2]))))
