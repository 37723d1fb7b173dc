"""Files written by 3D Slicer, and what Slicer makes of ours; run once, in an environment with `slicer-core`.

    python -m venv slicer && slicer/bin/pip install slicer-core
    slicer/bin/python tests/exchange/make_slicer_files.py tests/exchange/slicer

`ours.h5` must be there: tests/exchange/make_ours.py writes it. All of `slicer.json` is in Slicer's world, RAS mm.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import slicer
import vtk
from exchange_grids import NAMES, direction
from slicer import util
from vtk.util import numpy_support

folder = Path(sys.argv[1])
scene = slicer.vtkMRMLScene()
POINTS = [[10.0, -20.0, 30.0], [-12.5, 4.0, 51.25], [3.0, 17.0, 22.5]]


def through(node, points, name):
    found = []
    for point in points:
        place = [0.0, 0.0, 0.0]
        general = vtk.vtkGeneralTransform()
        getattr(node, name)(general)
        general.TransformPoint(point, place)
        found.append(list(place))
    return found


def both_ways(node, points=POINTS):
    """From the world (the transform in the file, by which ITK resamples), and to it (how what hangs there moves)."""
    return {
        "points": points,
        "from_world": through(node, points, "GetTransformFromWorld"),
        "to_world": through(node, points, "GetTransformToWorld"),
    }


def save(node, storage, path):
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.WriteData(node), path


def linear():
    matrix = vtk.vtkMatrix4x4()
    values = [[0.98, 0.1, -0.02, 5], [-0.11, 1.03, 0.04, -7], [0.03, -0.05, 0.96, 11], [0, 0, 0, 1]]
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, values[row][column])
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "linear")
    node.SetMatrixTransformToParent(matrix)
    return node


def grid(name):
    """A displacement field on a grid whose axes run as `name` says, around the points."""
    size, spacing, middle = (6, 7, 5), np.array([12.0, 11.0, 14.0]), (0.0, 0.0, 36.0)
    turn = direction(name)
    image = vtk.vtkImageData()
    image.SetDimensions(*size)
    image.SetSpacing(spacing)
    image.SetOrigin(middle - turn @ (spacing * (np.array(size) - 1) / 2))
    values = np.random.default_rng(NAMES.index(name)).normal(0, 2, (size[0] * size[1] * size[2], 3))
    array = numpy_support.numpy_to_vtk(values, deep=1)
    array.SetNumberOfComponents(3)
    image.GetPointData().SetScalars(array)
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, turn[row, column])
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetInterpolationModeToLinear()
    transform.SetGridDirectionMatrix(matrix)
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", f"grid-{name}")
    node.SetAndObserveTransformFromParent(transform)
    return node


def composite(first, second):
    general = vtk.vtkGeneralTransform()
    general.PostMultiply()
    general.Concatenate(first.GetTransformFromParent())
    general.Concatenate(second.GetTransformFromParent())
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "composite")
    node.SetAndObserveTransformFromParent(general)
    return node


def markups():
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    for number, point in enumerate(POINTS):
        node.AddControlPoint(point, f"F-{number + 1}")
    node.SetNthControlPointDescription(0, "carina")
    node.UnsetNthControlPointPosition(1)
    return node


def hung_under(transform, voxel):
    """A moving image, bright at one place, put under the transform and hardened: where it is bright then."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-40, -40, 0)
    data = np.zeros((40, 40, 40), np.float32)
    index = np.indices(data.shape).transpose(1, 2, 3, 0)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    data[:] = 1000 * np.exp(-((world - voxel) ** 2).sum(-1) / (2 * 4.0**2))
    volume = util.addVolumeFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)), affine, "moving")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    volume.HardenTransform()
    seen = util.arrayFromVolume(volume).transpose(2, 1, 0)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    placed = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    weight = np.where(seen > 100, seen, 0)
    center = (np.indices(seen.shape).reshape(3, -1) * weight.ravel()).sum(1) / weight.sum()
    return (placed[:3, :3] @ center + placed[:3, 3]).tolist()


slicer.mrmlScene = scene
told = {"slicer-core": importlib.metadata.version("slicer-core"), "vtk": vtk.vtkVersion().GetVTKVersion()}
nodes = {"linear": linear(), **{f"grid-{name}": grid(name) for name in NAMES}}
nodes["composite"] = composite(nodes["linear"], nodes["grid-oblique"])
for name, node in nodes.items():
    for suffix in (".h5", ".tfm") if name == "linear" else (".h5",):
        save(node, slicer.vtkMRMLTransformStorageNode(), folder / f"{name}{suffix}")
    told[name] = both_ways(node)
points = markups()
save(points, slicer.vtkMRMLMarkupsJsonStorageNode(), folder / "points.mrk.json")
save(points, slicer.vtkMRMLMarkupsFiducialStorageNode(), folder / "points.fcsv")
told["points"] = {"labels": ["F-1", "F-2", "F-3"], "ras": POINTS, "defined": [True, False, True]}

ours = scene.AddNewNodeByClass("vtkMRMLTransformNode", "moving-to-fixed")
storage = slicer.vtkMRMLTransformStorageNode()
scene.AddNode(storage)
storage.SetFileName(str(folder / "ours.h5"))
assert storage.ReadData(ours)
told["ours"] = both_ways(ours)
bright = told["ours"]["from_world"][0]
told["ours"]["moving_image"] = {"bright_at": bright, "bright_under_it_at": hung_under(ours, np.array(bright))}
fixed = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "fixed points")
for point in POINTS:
    fixed.AddControlPoint(point)
fixed.SetAndObserveTransformNodeID(ours.GetID())
told["ours"]["fixed_points_under_it"] = []
for number in range(len(POINTS)):
    place = [0.0, 0.0, 0.0]
    fixed.GetNthControlPointPositionWorld(number, place)
    told["ours"]["fixed_points_under_it"].append(list(place))
(folder / "slicer.json").write_text(json.dumps(told, indent=1) + "\n")
