"""Headers are described without reading voxels; scans of other libraries are taken as they are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import SHAPE, axis_aligned_affines, oblique_affines, sitk_positions, some_indices, voxels

import meddift.io
from meddift.errors import GeometryError, ImageError, MissingFileError, OptionsError
from meddift.geometry import Grid
from meddift.io import as_volume, describe_image, read_volume, write_volume
from meddift.io.convert import from_sitk
from meddift.volume import Volume

AFFINES = axis_aligned_affines() + oblique_affines()
AFFINE = AFFINES[60]


def _volume(affine=AFFINE, dtype=np.int16) -> Volume:
    return Volume(voxels(dtype), Grid(SHAPE, affine))


# ------------------------------------------------------------------ describe


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha"])
def test_description_equals_what_is_read(tmp_path, suffix):
    path = tmp_path / f"scan.{suffix}"
    for affine in AFFINES[::8]:
        write_volume(_volume(affine), path)
        told, volume = describe_image(path), read_volume(path)
        assert told["readable"]
        assert told["problems"] == []
        assert told["shape"] == list(volume.data.shape)
        assert told["dtype"] == "int16"
        assert told["bytes"] == path.stat().st_size
        assert told["orientation"] == volume.grid.orientation
        if suffix.startswith("nii"):
            assert told["orientation"] == "".join(nibabel.aff2axcodes(nibabel.load(path).affine))
        np.testing.assert_allclose(told["affine_ras"], volume.grid.affine)
        np.testing.assert_allclose(told["spacing_mm"], [1.5, 0.7, 3.0], atol=1e-5)
        np.testing.assert_allclose(told["origin_ras_mm"], affine[:3, 3], atol=1e-3)
        np.testing.assert_allclose(told["extent_mm"], [6, 3.5, 18], atol=1e-3)
        assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_description_does_not_read_voxels(tmp_path):
    """A file cut off behind its header still says what it says."""
    for suffix in ("nii", "nrrd", "mha"):
        path = tmp_path / f"scan.{suffix}"
        write_volume(_volume(), path)
        path.write_bytes(path.read_bytes()[:-60])
        assert describe_image(path)["shape"] == list(SHAPE)
        with pytest.raises(ImageError):
            read_volume(path)


def test_problems_are_told_and_not_raised(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6, 3), np.float32), AFFINE)
    image.set_qform(np.eye(4), 1)
    image.set_sform(AFFINE, 1)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    told = describe_image(tmp_path / "scan.nii.gz")
    assert not told["readable"]
    assert len(told["problems"]) == 2
    assert "4D" in told["problems"][0]
    assert "sform and qform differ" in told["problems"][1]
    assert told["details"]["sform_code"] == 1
    assert told["spacing_mm"] is None
    with pytest.raises(MissingFileError):
        describe_image(tmp_path / "none.nii")
    (tmp_path / "text.nii").write_text("hello")
    with pytest.raises(ImageError, match="not a NIfTI"):
        describe_image(tmp_path / "text.nii")


# ------------------------------------------------------------------ as_volume


def test_volumes_and_paths(tmp_path):
    volume = _volume()
    assert as_volume(volume) is volume
    write_volume(volume, tmp_path / "scan.nii.gz")
    for path in (tmp_path / "scan.nii.gz", str(tmp_path / "scan.nii.gz")):
        assert as_volume(path).digest() == read_volume(tmp_path / "scan.nii.gz").digest()


def test_simpleitk_images_there_and_back():
    for affine in AFFINES:
        image = _volume(affine).to_sitk()
        wanted = some_indices() @ affine[:3, :3].T + affine[:3, 3]
        np.testing.assert_allclose(sitk_positions(image, some_indices()), wanted, atol=1e-9)
        assert image[2, 3, 1] == voxels()[2, 3, 1]
        back = as_volume(image)
        np.testing.assert_allclose(back.grid.affine, affine, atol=1e-9)
        np.testing.assert_array_equal(back.data, voxels())
    image *= 0  # what is handed out is a copy
    np.testing.assert_array_equal(back.data, voxels())


def test_nibabel_images_there_and_back():
    for affine in AFFINES:
        image = _volume(affine).to_nibabel()
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)  # single precision, as on disk
        np.testing.assert_array_equal(np.asarray(image.dataobj), voxels())
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
        back = as_volume(image)
        np.testing.assert_array_equal(back.grid.affine, image.affine)
        np.testing.assert_array_equal(back.data, voxels())
    assert as_volume(nibabel.MGHImage(voxels(np.float32), AFFINE)).data.dtype == np.float32
    assert as_volume(nibabel.Nifti1Image(voxels()[..., None], AFFINE)).data.shape == SHAPE


def test_a_nibabel_image_that_was_read_may_state_two_geometries(tmp_path):
    image = nibabel.Nifti1Image(voxels(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINES[0], 1)
    nibabel.save(image, tmp_path / "scan.nii")
    loaded = nibabel.load(tmp_path / "scan.nii")
    with pytest.raises(GeometryError, match=r"scan\.nii.*sform and qform differ"):
        as_volume(loaded)
    np.testing.assert_allclose(as_volume(loaded, nifti_form="qform").grid.affine, AFFINES[0], atol=1e-4)


def test_a_nibabel_image_in_memory_is_judged_as_its_file_would_be(tmp_path):
    """What it says in two ways, and its unit; a header that came from elsewhere is no excuse."""
    image = nibabel.Nifti1Image(voxels(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINES[0], 1)
    with pytest.raises(GeometryError, match="sform and qform differ"):
        as_volume(image)
    np.testing.assert_allclose(as_volume(image, nifti_form="qform").grid.affine, AFFINES[0], atol=1e-4)
    image = nibabel.Nifti1Image(voxels(), AFFINE)
    for unit in ("meter", "micron"):
        image.header.set_xyzt_units(unit)
        with pytest.raises(GeometryError, match="metres"):
            as_volume(image)
        with pytest.raises(GeometryError, match="metres"):
            as_volume(image, nifti_form="sform")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.MGHImage])
def test_an_affine_that_was_edited_after_its_header_is_not_overlooked(kind):
    image = kind(voxels(np.float32), AFFINE)
    image.affine[:3, 3] += 5
    with pytest.raises(GeometryError, match="changed after its header"):
        as_volume(image)
    moved = type(image)(image.dataobj, image.affine)
    np.testing.assert_allclose(as_volume(moved).grid.affine[:3, 3], AFFINE[:3, 3] + 5, atol=1e-3)


def test_a_nibabel_image_that_does_not_tell_left_from_right():
    with pytest.raises(GeometryError, match="Analyze"):
        as_volume(nibabel.AnalyzeImage(voxels(), np.diag([-1.0, 1, 1, 1])))
    with pytest.raises(GeometryError, match="assume-geometry"):
        as_volume(nibabel.Nifti1Image(voxels(), None))


@pytest.mark.parametrize(
    ("scan", "error", "says"),
    [
        (np.zeros(SHAPE), OptionsError, "bare array"),
        (None, OptionsError, "NoneType"),
        (7, OptionsError, "int"),
        (sitk.Image(4, 5, sitk.sitkInt16), ImageError, "2D"),
        (sitk.Image([4, 5, 6], sitk.sitkVectorFloat32, 3), ImageError, "vector"),
        (sitk.Image([4, 5, 6], sitk.sitkComplexFloat32), ImageError, "complex"),
        (sitk.Image([4, 5, 6], sitk.sitkInt16), ImageError, "constant"),
        (nibabel.Nifti1Image(np.zeros((*SHAPE, 3)), np.eye(4)), ImageError, "4D"),
        (nibabel.Nifti1Image(np.zeros(SHAPE, np.complex64), np.eye(4)), ImageError, "complex"),
        (nibabel.Nifti1Image(np.zeros(SHAPE), np.eye(4)), ImageError, "constant"),
    ],
)
def test_what_is_no_scan_is_refused(scan, error, says):
    with pytest.raises(error, match=says):
        as_volume(scan)


def test_sheared_objects_are_refused():
    affine = np.diag([1.0, 2, 3, 1])
    affine[0, 1] = 0.1
    with pytest.raises(GeometryError, match="not orthogonal"):
        as_volume(nibabel.Nifti1Image(voxels(), affine))
    with pytest.raises(GeometryError, match="not orthogonal"):
        _volume(affine).to_sitk()
    with pytest.raises(GeometryError, match="not orthogonal"):
        as_volume(_volume(affine))
    image = sitk.GetImageFromArray(voxels().transpose())
    image.SetDirection([1, 0.1, 0, 0, 1, 0, 0, 0, 1])
    with pytest.raises(GeometryError, match="not orthogonal"):
        as_volume(image)


class _Tensor:
    """What a MONAI MetaTensor looks like from outside; importing MONAI here would take longer than all tests."""

    def __init__(self, data, affine, meta):
        self._data, self.meta = np.asarray(data), meta
        self.affine = affine if isinstance(affine, _Tensor) or affine is None else _Tensor(affine, None, {})

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self._data


def test_metatensors():
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    for data in (voxels(np.float32), voxels(np.float32)[None]):
        for affine, meta in [(AFFINE, {}), (AFFINE, {"space": "RAS"}), (lps, {"space": "LPS"})]:
            volume = as_volume(_Tensor(data, affine, meta))
            np.testing.assert_allclose(volume.grid.affine, AFFINE)
            np.testing.assert_array_equal(volume.data, voxels(np.float32))
    with pytest.raises(GeometryError, match="'XYZ'"):
        as_volume(_Tensor(voxels(np.float32), AFFINE, {"space": "XYZ"}))
    with pytest.raises(ImageError, match="4D"):
        as_volume(_Tensor(np.zeros((2, *SHAPE)), AFFINE, {}))


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["NibabelReader", "ITKReader"])
def test_real_metatensors(reader, tmp_path):
    """In a process of its own: ITK's Python package and SimpleITK do not live together in one."""
    pytest.importorskip("monai.data")
    if reader == "ITKReader" and importlib.util.find_spec("itk") is None:
        pytest.skip("needs the package itk")
    write_volume(_volume(), tmp_path / "scan.nii.gz")
    program = f"""
import numpy as np
from monai.data import MetaTensor
from monai.transforms import LoadImage
from meddift.io import as_volume
tensor = LoadImage(image_only=True, reader="{reader}")(r"{tmp_path / "scan.nii.gz"}")
assert isinstance(tensor, MetaTensor)
volume = as_volume(tensor)
np.savez(r"{tmp_path / "seen.npz"}", affine=volume.grid.affine, data=volume.data)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    seen = np.load(tmp_path / "seen.npz")
    np.testing.assert_allclose(seen["affine"], AFFINE, atol=1e-4)
    np.testing.assert_array_equal(seen["data"], voxels())


def test_unchecked_objects_may_be_constant():
    assert from_sitk(sitk.Image([4, 5, 6], sitk.sitkUInt8), check=False).data.shape == (4, 5, 6)
    assert as_volume(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), check=False).data.dtype == np.uint8


# ------------------------------------------------------------------ imports


def test_importing_io_loads_nothing_heavy():
    code = (
        "import sys, meddift.io, meddift.io.images, meddift.io.describe, meddift.io.convert, meddift.io.dicom;"
        "heavy = {'SimpleITK', 'nibabel', 'pydicom', 'torch', 'monai', 'scipy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reading_a_scan_loads_no_network_library(tmp_path):
    write_volume(_volume(), tmp_path / "scan.nii.gz")
    write_volume(_volume(), tmp_path / "scan.mha")
    code = (
        "import sys; from meddift.io import describe_image, read_volume;"
        f"[(describe_image(p), read_volume(p)) for p in {[str(tmp_path / n) for n in ('scan.nii.gz', 'scan.mha')]}];"
        "heavy = {'torch', 'monai', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_unknown_ones_do_not():
    for name in meddift.io.__all__:
        assert callable(getattr(meddift.io, name))
    assert meddift.io.__all__ == sorted(meddift.io.__all__)
    assert not hasattr(meddift.io, "read_everything")
