"""Scans written by SimpleITK, nibabel and ITK lie here where those programs see them, and the other way round."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from image_geometries import SHAPE, SPACING, affines, corners, values

from meddift.geometry import Grid
from meddift.io import read_volume, write_volume
from meddift.volume import Volume

NAMES = list(affines())
LPS = np.array([-1, -1, 1])
#: Single precision of NIfTI headers at 400 mm.
TOLERANCE = 1e-4

needs_itk = pytest.mark.skipif(importlib.util.find_spec("itk") is None, reason="needs the package itk")


def _places(name: str) -> np.ndarray:
    """RAS mm of the corners, by hand."""
    affine = affines()[name]
    return corners() @ affine[:3, :3].T + affine[:3, 3]


def _check(path: Path, name: str) -> None:
    volume = read_volume(path)
    np.testing.assert_allclose(volume.grid.index_to_world(corners()), _places(name), atol=TOLERANCE)
    np.testing.assert_array_equal(volume.data, values())
    assert volume.data.dtype == np.int16


def _sitk_image(name: str) -> sitk.Image:
    affine = affines()[name]
    image = sitk.GetImageFromArray(values().transpose())
    image.SetSpacing(SPACING)
    image.SetOrigin((affine[:3, 3] * LPS).tolist())
    image.SetDirection((np.diag(LPS) @ affine[:3, :3] / SPACING).ravel().tolist())
    return image


@pytest.mark.parametrize("name", NAMES)
def test_simpleitk(tmp_path, name):
    image = _sitk_image(name)
    for suffix in ("nii.gz", "nii", "nrrd", "nhdr", "mha", "mhd"):
        for compressed in (False, True):
            sitk.WriteImage(image, str(tmp_path / f"there.{suffix}"), compressed)
            _check(tmp_path / f"there.{suffix}", name)
    for suffix in ("nii.gz", "nii", "nrrd", "mha"):
        write_volume(read_volume(tmp_path / f"there.{suffix}"), tmp_path / f"back.{suffix}")
        back = sitk.ReadImage(str(tmp_path / f"back.{suffix}"))
        seen = [back.TransformContinuousIndexToPhysicalPoint(list(map(float, c))) for c in corners()]
        np.testing.assert_allclose(np.array(seen) * LPS, _places(name), atol=TOLERANCE)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back).transpose(), values())


@pytest.mark.parametrize("name", NAMES)
def test_nibabel(tmp_path, name):
    affine = affines()[name]
    for kind, suffix in (
        (nibabel.Nifti1Image, "nii.gz"), (nibabel.Nifti2Image, "nii"), (nibabel.MGHImage, "mgz"),
    ):  # fmt: skip
        nibabel.save(kind(values(), affine), tmp_path / f"there.{suffix}")
        _check(tmp_path / f"there.{suffix}", name)
    for suffix in ("nii.gz", "nii"):
        write_volume(Volume(values(), Grid(SHAPE, affine)), tmp_path / f"back.{suffix}")
        back = nibabel.load(tmp_path / f"back.{suffix}")
        np.testing.assert_allclose(nibabel.affines.apply_affine(back.affine, corners()), _places(name), atol=TOLERANCE)
        np.testing.assert_array_equal(np.asarray(back.dataobj), values())
        assert nibabel.aff2axcodes(back.affine) == nibabel.aff2axcodes(affine)


@needs_itk
def test_itk(tmp_path):
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir(), back.mkdir()
    for name in NAMES:
        for suffix in ("nii.gz", "nii", "nrrd", "mha"):
            write_volume(Volume(values(), Grid(SHAPE, affines()[name])), back / f"{name}.{suffix}")
    program = [sys.executable, str(Path(__file__).with_name("itk_program.py")), str(there), str(back)]
    seen = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    assert len(seen) == 4 * len(NAMES)
    for file, told in seen.items():
        places = _places(file.partition(".")[0])[:8]
        np.testing.assert_allclose(np.array(told["places_lps"]) * LPS, places, atol=TOLERANCE)
        assert told["sum"] == int(values().astype(int).sum())
        assert told["second"] == values()[1, 0, 0]
    written = [path for path in sorted(there.iterdir()) if not path.name.endswith(("raw", "raw.gz", "zraw"))]
    assert len(written) == 6 * len(NAMES)
    for path in written:
        _check(path, path.name.partition(".")[0])


@pytest.mark.parametrize("name", NAMES)
def test_images_in_memory(name):
    from meddift.io import as_volume

    for image in (_sitk_image(name), nibabel.Nifti1Image(values(), affines()[name])):
        volume = as_volume(image)
        np.testing.assert_allclose(volume.grid.index_to_world(corners()), _places(name), atol=TOLERANCE)
        np.testing.assert_array_equal(volume.data, values())


@pytest.mark.parametrize("name", [name for name in NAMES if np.linalg.det(affines()[name][:3, :3]) < 0])
def test_dicom_of_gdcm(tmp_path, name):
    """Slices written by GDCM in SimpleITK. LPS of a left-handed RAS affine is left-handed, too: DICOM has none."""
    image = _sitk_image(name)
    assert np.linalg.det(np.array(image.GetDirection()).reshape(3, 3)) < 0
    image = image[:, ::-1, :]
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(SHAPE[2]):
        one = image[:, :, k : k + 1]
        direction = np.array(image.GetDirection()).reshape(3, 3)
        for key, value in {
            "0008|0060": "CT", "0020|000e": "1.2.3.1", "0020|000d": "1.2.3",
            "0020|0032": "\\".join(f"{v:.10g}" for v in one.GetOrigin()),
            "0020|0037": "\\".join(f"{v:.10g}" for v in direction[:, :2].T.ravel()),
        }.items():  # fmt: skip
            one.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(one)
    volume = read_volume(tmp_path)
    # The rows were turned round: index j here is the last minus j there.
    turned = corners() * [1, -1, 1] + [0, SHAPE[1] - 1, 0]
    np.testing.assert_allclose(volume.grid.index_to_world(turned), _places(name), atol=1e-3)
    np.testing.assert_array_equal(volume.data[:, ::-1], values())
