"""transformix carries voxels, given by their indices, in every orientation: python make_point_files.py FOLDER."""

import json
import sys
from pathlib import Path

import itk
import numpy as np
from exchange_grids import NAMES, SHAPE, SHIFT, lps

folder = Path(sys.argv[1])
voxels = [[0, 0, 0], [21, 0, 0], [0, 19, 0], [0, 0, 17], [3, 5, 7], [21, 19, 17]]
told = {"voxels": voxels, "shift_ras": SHIFT.tolist()}
index_file = folder / "index.txt"
index_file.write_text(f"index\n{len(voxels)}\n" + "".join(f"{x} {y} {z}\n" for x, y, z in voxels))


def words(values):
    return [f"{value:.17g}" for value in values]


for name in NAMES:
    origin, spacing, rows = lps(name)
    moving = itk.image_from_array(np.zeros(SHAPE[::-1], dtype=np.float32))
    moving.SetOrigin(origin)
    moving.SetSpacing(spacing)
    moving.SetDirection(itk.matrix_from_array(np.array(rows).reshape(3, 3)))
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(
        {
            "Transform": ["TranslationTransform"],
            "NumberOfParameters": ["3"],
            "TransformParameters": words(SHIFT * [-1, -1, 1]),
            "InitialTransformParametersFileName": ["NoInitialTransform"],
            "HowToCombineTransforms": ["Compose"],
            "FixedImageDimension": ["3"],
            "MovingImageDimension": ["3"],
            "Size": words(SHAPE),
            "Index": ["0", "0", "0"],
            "Spacing": words(spacing),
            "Origin": words(origin),
            # elastix writes the directions column by column.
            "Direction": words(np.array(rows).reshape(3, 3).T.ravel()),
            "UseDirectionCosines": ["true"],
            "ResampleInterpolator": ["FinalLinearInterpolator"],
            "Resampler": ["DefaultResampler"],
            "DefaultPixelValue": ["0"],
        }
    )
    out = folder / name
    out.mkdir(exist_ok=True)
    carry = itk.TransformixFilter.New(moving)
    carry.SetTransformParameterObject(parameters)
    carry.SetFixedPointSetFileName(str(index_file))
    carry.SetOutputDirectory(str(out))
    carry.SetLogToConsole(False)
    carry.UpdateLargestPossibleRegion()
    rows_written = (out / "outputpoints.txt").read_text().splitlines()
    told[name] = [[float(v) for v in row.split("InputPoint = [")[1].split("]")[0].split()] for row in rows_written]
    for file in out.iterdir():
        if file.name != "outputpoints.txt":
            file.unlink()
(folder / "points.json").write_text(json.dumps(told, indent=1) + "\n")
