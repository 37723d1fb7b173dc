"""elastix (itk-elastix) registers drawn scans in every orientation; transformix carries points and writes fields.

python make_elastix_files.py FOLDER [ORIENTATION ...]
"""

import json
import sys
from pathlib import Path

import itk
import numpy as np
from exchange_grids import NAMES, SHIFT, inner_points, lps, texture

folder = Path(sys.argv[1])
points = inner_points() * [-1, -1, 1]
(folder / "points.txt").write_text(
    f"point\n{len(points)}\n" + "\n".join(" ".join(f"{v:.9f}" for v in p) for p in points) + "\n"
)


def image(name, shift):
    origin, spacing, rows = lps(name)
    found = itk.image_from_array(np.ascontiguousarray(texture(name, shift).transpose(2, 1, 0)))
    found.SetOrigin(origin)
    found.SetSpacing(spacing)
    found.SetDirection(itk.matrix_from_array(np.array(rows).reshape(3, 3)))
    return found


def settings(kind):
    found = itk.ParameterObject.New()
    chosen = found.GetDefaultParameterMap(kind, 1)
    chosen.update(
        {
            "MaximumNumberOfIterations": ["8"],
            "NumberOfSpatialSamples": ["400"],
            "RandomSeed": ["1"],
            "FinalGridSpacingInPhysicalUnits": ["24"],
            "ITKTransformOutputFileNameExtension": ["tfm" if kind == "rigid" else "h5"],
            "WriteITKCompositeTransform": ["true"],
        }
    )
    found.AddParameterMap(chosen)
    return found


told = {}
for name in sys.argv[2:] or NAMES:
    for kind in ("rigid", "bspline") if name in ("LPS", "oblique") else ("rigid",):
        out = folder / f"{name}-{kind}"
        out.mkdir()
        fixed, moving = image(name, 0 * SHIFT), image(name, SHIFT)
        run = itk.ElastixRegistrationMethod.New(fixed, moving)
        run.SetParameterObject(settings(kind))
        run.SetOutputDirectory(str(out))
        run.SetLogToConsole(False)
        run.UpdateLargestPossibleRegion()
        for points_wanted in (True, False):  # transformix does one of the two at a time
            carry = itk.TransformixFilter.New(moving)
            carry.SetTransformParameterObject(run.GetTransformParameterObject())
            if points_wanted:
                carry.SetFixedPointSetFileName(str(folder / "points.txt"))
            carry.SetComputeDeformationField(not points_wanted)
            carry.SetOutputDirectory(str(out))
            carry.SetLogToConsole(False)
            carry.UpdateLargestPossibleRegion()
        itk.imwrite(carry.GetOutputDeformationField(), str(out / "field.mha"))
        rows = (out / "outputpoints.txt").read_text().splitlines()
        moved = [[float(v) for v in row.split("OutputPoint = [")[1].split("]")[0].split()] for row in rows]
        written = sorted(path.name for path in out.iterdir() if path.suffix in (".h5", ".tfm"))
        told[f"{name}-{kind}"] = {"lps": moved, "files": written}
(folder / "elastix.json").write_text(json.dumps(told))
