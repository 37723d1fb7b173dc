"""Files of transforms map the same points in SimpleITK, ITK, ANTs and transformix, to a hundredth of a millimetre."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from meddift.errors import OptionsError
from meddift.geometry import AffineTransform, DisplacementField, Grid
from meddift.io import write_transform
from meddift.io.transform_sidecar import sidecar_path, transform_sidecar, write_learn2reg, write_sidecar
from meddift.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def lattices() -> dict[str, Grid]:
    turn = Rotation.from_euler("zyx", [20, -35, 50], degrees=True).as_matrix()
    oblique, ras, lps = np.eye(4), np.eye(4), np.eye(4)
    oblique[:3, :3] = turn @ np.diag([-3.0, 4.0, 5.0])
    oblique[:3, 3] = [11.0, -40.0, 230.0]
    ras[:3, :3], ras[:3, 3] = np.diag([4.0, 4.0, 4.0]), [-30.0, 20.0, -100.0]
    lps[:3, :3], lps[:3, 3] = np.array([[0, -4.0, 0], [-4.0, 0, 0], [0, 0, 4.0]]), [30.0, 20.0, -100.0]
    return {name: Grid((14, 12, 10), affine) for name, affine in (("oblique", oblique), ("ras", ras), ("lps", lps))}


def smooth_field(grid: Grid) -> DisplacementField:
    world = grid.voxel_centers() - grid.center
    wave = np.stack([5 + 3 * np.sin(world[..., 1] / 15), -3 + world[..., 0] / 20, 2 * np.cos(world[..., 2] / 18)])
    return DisplacementField(wave.astype(np.float32), grid)


def inner_points(grid: Grid, count: int = 25) -> np.ndarray:
    index = np.random.default_rng(3).uniform(0.5, 0.95, (count, 3)) * (np.asarray(grid.shape) - 2)
    return grid.index_to_world(index)


def lps(world: np.ndarray) -> np.ndarray:
    return world * [-1, -1, 1]


@pytest.mark.parametrize("lattice", ["oblique", "ras", "lps"])
@pytest.mark.parametrize("suffix", [".h5", ".nii.gz"])
def test_simpleitk_itk_ants_and_transformix_agree(lattice: str, suffix: str, tmp_path: Path) -> None:
    grid = lattices()[lattice]
    field = smooth_field(grid)
    path = tmp_path / f"warp{suffix}"
    write_transform(field, path)
    points = inner_points(grid)
    ours = lps(field.apply(points))
    # ITK in Python has transforms of doubles only, and reads images of vectors of floats.
    programs = (by_simpleitk, by_ants, by_transformix) + ((by_itk,) if suffix == ".h5" else ())
    for program in programs:
        theirs = program(path, lps(points), tmp_path)
        assert np.abs(theirs - ours).max() < 0.01, program.__name__


def by_simpleitk(path: Path, points: np.ndarray, folder: Path) -> np.ndarray:
    if path.suffix == ".h5":
        transform = sitk.ReadTransform(str(path))
    else:
        transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    return np.array([transform.TransformPoint(point.tolist()) for point in points])


def by_itk(path: Path, points: np.ndarray, folder: Path) -> np.ndarray:
    itk = pytest.importorskip("itk")
    (transform,) = itk.transformread(str(path))
    return np.array([list(transform.TransformPoint(point.tolist())) for point in points])


def by_ants(path: Path, points: np.ndarray, folder: Path) -> np.ndarray:
    ants = pytest.importorskip("ants")
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(points, columns=["x", "y", "z"])
    found = ants.apply_transforms_to_points(3, table, [str(path)])
    return found[["x", "y", "z"]].to_numpy()


def by_transformix(path: Path, points: np.ndarray, folder: Path) -> np.ndarray:
    """transformix reads a field by a parameter file that names it."""
    itk = pytest.importorskip("itk")
    if path.suffix == ".h5":
        transform = sitk.DisplacementFieldTransform(sitk.ReadTransform(str(path)))
        field = transform.GetDisplacementField()
    else:
        field = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    sitk.WriteImage(sitk.Cast(field, sitk.sitkVectorFloat32), str(folder / "field.mha"))
    (folder / "points.txt").write_text(
        f"point\n{len(points)}\n" + "\n".join(" ".join(f"{v:.9f}" for v in p) for p in points) + "\n"
    )
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(
        {
            "Transform": ["DeformationFieldTransform"],
            "DeformationFieldFileName": [str(folder / "field.mha")],
            "DeformationFieldInterpolationOrder": ["1"],
            "NumberOfParameters": ["0"],
            "InitialTransformParameterFileName": ["NoInitialTransform"],
            "HowToCombineTransforms": ["Compose"],
            "FixedImageDimension": ["3"],
            "MovingImageDimension": ["3"],
            "FixedInternalImagePixelType": ["float"],
            "MovingInternalImagePixelType": ["float"],
            "Size": [str(n) for n in field.GetSize()],
            "Index": ["0", "0", "0"],
            "Spacing": [repr(v) for v in field.GetSpacing()],
            "Origin": [repr(v) for v in field.GetOrigin()],
            "Direction": [repr(v) for v in np.array(field.GetDirection()).reshape(3, 3).T.ravel().tolist()],
            "UseDirectionCosines": ["true"],
            "ResampleInterpolator": ["FinalLinearInterpolator"],
            "Resampler": ["DefaultResampler"],
            "DefaultPixelValue": ["0"],
            "ResultImageFormat": ["mha"],
            "ResultImagePixelType": ["float"],
        }
    )
    image = itk.image_from_array(np.zeros(field.GetSize()[::-1], dtype=np.float32))
    image.SetSpacing(field.GetSpacing())
    image.SetOrigin(field.GetOrigin())
    image.SetDirection(itk.matrix_from_array(np.array(field.GetDirection()).reshape(3, 3)))
    run = itk.TransformixFilter.New(image)
    run.SetTransformParameterObject(parameters)
    run.SetFixedPointSetFileName(str(folder / "points.txt"))
    run.SetOutputDirectory(str(folder))
    run.SetLogToConsole(False)
    run.Update()
    rows = (folder / "outputpoints.txt").read_text().splitlines()
    found = [row.split("OutputPoint = [")[1].split("]")[0].split() for row in rows]
    return np.array(found, dtype=float)


def test_one_file_carries_points_forth_and_images_back(tmp_path: Path) -> None:
    """A blob of the moving scan is seen at the fixed voxel whose point goes to the blob."""
    grid = lattices()["lps"]
    shift = AffineTransform(np.array([[1, 0, 0, 8.0], [0, 1, 0, -4.0], [0, 0, 1, 12.0], [0, 0, 0, 1]]))
    write_transform(shift, tmp_path / "shift.tfm")
    data = np.zeros(grid.shape, dtype=np.float32)
    data[7, 5, 4] = 1.0
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection((affine[:3, :3] / grid.spacing).ravel().tolist())
    seen = sitk.GetArrayFromImage(
        sitk.Resample(image, image, sitk.ReadTransform(str(tmp_path / "shift.tfm")), sitk.sitkNearestNeighbor)
    ).transpose(2, 1, 0)
    fixed_voxel = np.argwhere(seen > 0)[0]
    assert np.allclose(shift.apply(grid.index_to_world(fixed_voxel)), grid.index_to_world([7, 5, 4]), atol=1e-6)


def test_learn2reg_displacements_are_voxels_of_the_moving_array(tmp_path: Path) -> None:
    """The error as the challenge computes it is zero where the field is right."""
    import nibabel

    fixed, moving = lattices()["ras"], lattices()["lps"]
    field = smooth_field(fixed)
    write_learn2reg(field, fixed, moving, tmp_path / "disp_1_0.nii.gz")
    stored = np.asarray(nibabel.load(tmp_path / "disp_1_0.nii.gz").dataobj)
    assert stored.shape == (*fixed.shape, 3)
    voxel = np.array([5, 6, 4])
    expected = moving.world_to_index(field.apply(fixed.index_to_world(voxel)[None]))[0]
    assert np.allclose(voxel + stored[tuple(voxel)], expected, atol=1e-4)
    with pytest.raises(OptionsError, match=r"\.nii\.gz"):
        write_learn2reg(field, fixed, moving, tmp_path / "disp.h5")


def test_the_sidecar_says_which_way_and_of_what(tmp_path: Path) -> None:
    grid = lattices()["oblique"]
    fixed, moving = Volume(np.zeros(grid.shape, np.int16), grid), Volume(np.ones(grid.shape, np.int16), grid)
    write_sidecar(transform_sidecar(fixed, moving), tmp_path / "t.transform.json")
    content = json.loads((tmp_path / "t.transform.json").read_text())
    assert content["direction"] == {"points": "fixed to moving", "images": "moving onto fixed"}
    assert content["fixed"]["sha256"] == fixed.digest() != content["moving"]["sha256"]
    assert np.allclose(content["fixed"]["affine_ras_mm"], grid.affine)
    turned = transform_sidecar(fixed, moving, inverse=True)
    assert turned["direction"]["points"] == "moving to fixed"


def test_the_sidecar_says_what_to_hang_under_it_in_slicer(tmp_path: Path) -> None:
    """As Slicer itself was seen to do (tests/exchange/test_slicer_files.py)."""
    grid = lattices()["oblique"]
    fixed, moving = Volume(np.zeros(grid.shape, np.int16), grid), Volume(np.ones(grid.shape, np.int16), grid)
    told = transform_sidecar(fixed, moving)["in_3d_slicer"]
    assert told["node"] == "moving-to-fixed"
    assert told["put_under_it"].startswith("the moving image, and points of the moving scan")
    assert told["never_put_under_it"].startswith("points of the fixed scan: they would be moved the wrong way")
    turned = transform_sidecar(fixed, moving, inverse=True)["in_3d_slicer"]
    assert turned["node"] == "fixed-to-moving"
    assert turned["put_under_it"].startswith("the fixed image, and points of the fixed scan")
    assert turned["never_put_under_it"].startswith("points of the moving scan")


@pytest.mark.parametrize(
    ("name", "beside"),
    [("T.h5", "T.transform.json"), ("a_Warp.nii.gz", "a_Warp.transform.json"), ("x.y.tfm", "x.y.transform.json")],
)
def test_the_sidecar_stands_beside_its_transform(name: str, beside: str) -> None:
    assert sidecar_path(Path("/some/where") / name) == Path("/some/where") / beside
