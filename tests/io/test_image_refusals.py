"""What cannot be a scan is refused in one message that names the file and the way out."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import logging
import shutil
import time

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import SHAPE, oblique_affines, rotation, sitk_positions, some_indices, voxels

from meddift.errors import GeometryError, ImageError, MemoryLimitError, MissingFileError, OptionsError
from meddift.geometry import Grid
from meddift.io import describe_image, read_volume, write_volume
from meddift.io.images import check_scan
from meddift.system import memory
from meddift.volume import Volume

AFFINE = oblique_affines()[5]


def _refused(path, error=ImageError, match=None, **options) -> str:
    with pytest.raises(error, match=match or None) as caught:
        read_volume(path, **options)
    text = str(caught.value)
    assert path.name in text
    assert "Exception thrown" not in text
    assert "/src/" not in text
    return text


def _nifti(path, *, sform=None, qform=None, data=None, affine=AFFINE):
    """A NIfTI file whose forms are (affine, code) pairs, written as they are."""
    image = nibabel.Nifti1Image(voxels() if data is None else data, affine)
    image.set_sform(*(sform or (None, 0)))
    image.set_qform(*(qform or (None, 0)))
    image.header["sform_code"] = sform[1] if sform else 0
    nibabel.save(image, path)
    return path


def _patched(path, field, value):
    """Change a field of a NIfTI-1 header on disk."""
    raw = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    header[field] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


# ------------------------------------------------------------------ not there, not an image


def test_missing_files(tmp_path):
    write_volume(Volume(voxels(), Grid(SHAPE, AFFINE)), tmp_path / "baseline.nii.gz")
    for wrong in ("baseline.nii", "basline.nii.gz", "baseline.nrrd"):
        assert "Did you mean" in _refused(tmp_path / wrong, MissingFileError, r"baseline\.nii\.gz")
    assert "Did you mean" not in _refused(tmp_path / "elsewhere.nrrd", MissingFileError)
    _refused(tmp_path / "none" / "scan.nii", MissingFileError, "folder")
    (tmp_path / "link.nii").symlink_to(tmp_path / "gone.nii")
    _refused(tmp_path / "link.nii", MissingFileError, r"link to .*gone\.nii")
    assert issubclass(MissingFileError, FileNotFoundError)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd", "mgz", "mgh"])
@pytest.mark.parametrize("content", [b"", b"hello world", b"\x00" * 1000, b"\x1f\x8b\x08\x00broken", b"\xff" * 5000])
def test_files_that_are_no_images(tmp_path, suffix, content):
    path = tmp_path / f"scan.{suffix}"
    path.write_bytes(content)
    _refused(path, ImageError, "empty" if not content else "")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scan", "a NIfTI image by its content; give it a name that ends with .nii"),
        ("scan.img", "a NIfTI image by its content"),
        ("nrrd", "an NRRD image by its content"),
        ("meta.img", "a MetaImage by its content"),
        ("mgh", "an MGH image by its content"),
        ("half.hdr", r"no half.img beside .*, and the header of a NIfTI pair .* by its content"),
        ("half.nii", "one half of a pair .* by its header, not by its name"),
        ("old.hdr", "Analyze 7.5 format, which does not tell left from right"),
        ("picture.png", "a PNG picture"),
        ("scan.zip", "a zip archive or an Excel workbook; unpack it"),
        ("field.h5", "an HDF5 file"),
        ("scan.nii.bz2", "a bzip2 archive; unpack it first"),
    ],
)
def test_the_message_says_what_was_found(tmp_path, name, says):
    nibabel.save(nibabel.Nifti1Image(voxels(), AFFINE), tmp_path / "a.nii.gz")
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "scan")
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "scan.img")
    nibabel.save(nibabel.Nifti1Pair(voxels(), AFFINE), tmp_path / "pair.hdr")
    for half in ("half.hdr", "half.nii"):
        shutil.copy(tmp_path / "pair.hdr", tmp_path / half)
    nibabel.save(nibabel.AnalyzeImage(voxels(), np.diag([-1.0, 1, 1, 1])), tmp_path / "old.hdr")
    nibabel.save(nibabel.MGHImage(voxels(np.float32), AFFINE), tmp_path / "a.mgh")
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / "a.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / "a.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(voxels(np.uint8)[0]), str(tmp_path / "picture.png"))
    for source, target in (("a.nrrd", "nrrd"), ("a.mha", "meta.img"), ("a.mgh", "mgh")):
        shutil.move(tmp_path / source, tmp_path / target)
    (tmp_path / "scan.nii.bz2").write_bytes(bz2.compress((tmp_path / "a.nii.gz").read_bytes()))
    shutil.make_archive(str(tmp_path / "scan"), "zip", tmp_path, "pair.img")
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "field.h5"))
    _refused(tmp_path / name, ImageError, says)


def test_names_longer_than_the_file_system_allows(tmp_path):
    for path in (tmp_path / ("a" * 300 + ".nii.gz"), tmp_path / ("b" * 300) / "scan.nrrd"):
        with pytest.raises(MissingFileError) as caught:
            read_volume(path)
        assert len(str(caught.value)) < 200 + len(str(tmp_path))
    with pytest.raises(MissingFileError):
        read_volume("a\0b.nii")


def test_unknown_names(tmp_path):
    for name in ("scan.txt", "scan", "scan.hdr", "scan.png"):
        (tmp_path / name).write_bytes(b"x" * 500)
        _refused(tmp_path / name, ImageError, r"\.nii\.gz")
    (tmp_path / "slice.bin").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    _refused(tmp_path / "slice.bin", ImageError, "holds no pixels")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha", "mgz", "mgh"])
@pytest.mark.parametrize("keep", [0.99, 0.5, 0.9])
def test_cut_off_files(tmp_path, suffix, keep):
    path = tmp_path / f"scan.{suffix}"
    data = np.random.default_rng(1).integers(0, 30000, (12, 13, 14)).astype(np.int16)
    if suffix.startswith("mg"):
        nibabel.save(nibabel.MGHImage(data, AFFINE), path)
        if suffix == "mgh":
            keep *= 0.9  # what stands behind the voxels is not needed
    else:
        write_volume(Volume(data, Grid(data.shape, AFFINE)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    _refused(path, ImageError)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha", "mgz"])
def test_damage_in_compressed_files_is_noticed(tmp_path, suffix):
    """One changed byte anywhere in the voxels: nibabel alone reads some of these files without a word."""
    path = tmp_path / f"scan.{suffix}"
    data = np.random.default_rng(1).integers(-1000, 1000, (20, 21, 22)).astype(np.int16)
    if suffix == "mgz":
        nibabel.save(nibabel.MGHImage(data, AFFINE), path)
    else:
        write_volume(Volume(data, Grid(data.shape, AFFINE)), path)
    whole, harmless = path.read_bytes(), 0
    for place in np.linspace(len(whole) // 3, len(whole) - 12, 12).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        with contextlib.suppress(ImageError):
            np.testing.assert_array_equal(read_volume(path).data, data)
            harmless += 1
    assert harmless <= 2  # a byte of a gzip header may not matter


def test_nrrd_header_without_its_data(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / "scan.nhdr"))
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / "scan.mhd"))
    for data in [*tmp_path.glob("*.raw*"), *tmp_path.glob("*.zraw")]:
        data.unlink()
    for name in ("scan.nhdr", "scan.mhd"):
        _refused(tmp_path / name, ImageError)


def test_a_nifti_pair_and_analyze(tmp_path):
    path = _nifti(tmp_path / "scan.nii", sform=(AFFINE, 1))
    _refused(_patched(path, "magic", b"ni1"), ImageError, "pair")
    _refused(_patched(path, "magic", b""), ImageError, "left from right")


# ------------------------------------------------------------------ not one 3D scalar scan


def test_two_and_four_dimensions(tmp_path):
    for shape, says in [
        ((4, 5), "2D"),
        ((4, 5, 1), "2D"),
        ((4, 5, 6, 3), "4D.*extract one frame"),
        ((4, 5, 1, 3), "4D"),
    ]:
        nibabel.save(nibabel.Nifti1Image(voxels(shape=shape), AFFINE), tmp_path / "scan.nii.gz")
        _refused(tmp_path / "scan.nii.gz", ImageError, says)
    for suffix in ("nrrd", "mha"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels(shape=(4, 5))), str(tmp_path / f"flat.{suffix}"))
        _refused(tmp_path / f"flat.{suffix}", ImageError, "2D")
        four = sitk.JoinSeries([sitk.GetImageFromArray(voxels()), sitk.GetImageFromArray(voxels())])
        sitk.WriteImage(four, str(tmp_path / f"frames.{suffix}"))
        # NRRD stores frames as components, so it cannot tell these from vectors.
        _refused(tmp_path / f"frames.{suffix}", ImageError, "4D|vector")


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_vectors_colors_and_complex_numbers(tmp_path, suffix):
    path = tmp_path / f"scan.{suffix}"
    for count in (2, 3):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*SHAPE, count), np.float32), isVector=True), str(path))
        _refused(path, ImageError, "vector")
    if suffix != "nrrd":  # whose writer stores complex numbers as pairs
        values = np.zeros(SHAPE, np.complex64)
        if suffix == "nii.gz":
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
            _refused(path, ImageError, "complex.*magnitude")
            colors = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
            nibabel.save(nibabel.Nifti1Image(colors, AFFINE), path)
            _refused(path, ImageError, "color")


def test_zero_size(tmp_path):
    path = _nifti(tmp_path / "scan.nii", sform=(AFFINE, 1))
    for length in (0, -4):
        _patched(path, "dim", [3, 4, length, 6, 1, 1, 1, 1])
        _refused(path, ImageError, "no voxels")


# ------------------------------------------------------------------ values


def test_constant_and_nan(tmp_path, caplog):
    grid = Grid(SHAPE, AFFINE)
    for value in (0.0, 7.0, np.nan, np.inf):
        write_volume(Volume(np.full(SHAPE, value, np.float32), grid), tmp_path / "scan.nii")
        _refused(tmp_path / "scan.nii", ImageError, "constant" if np.isfinite(value) else "no finite number")
        assert read_volume(tmp_path / "scan.nii", check=False).data.shape == SHAPE
    data = voxels(np.float32)
    data[1, 2, 3], data[0, 0, 1], data[0, 0, 2] = np.nan, np.inf, -np.inf
    write_volume(Volume(data, grid), tmp_path / "scan.nii")
    with caplog.at_level(logging.WARNING, logger="meddift"):
        volume = read_volume(tmp_path / "scan.nii")
    assert "3 of 120 voxels" in caplog.text
    assert "scan.nii" in caplog.text
    expected = np.where(np.isfinite(data), data, -50)
    np.testing.assert_array_equal(volume.data, expected)
    kept = read_volume(tmp_path / "scan.nii", check=False).data
    np.testing.assert_array_equal(kept, data)


def test_check_scan_returns_clean_scans_unchanged():
    volume = Volume(voxels(), Grid(SHAPE, AFFINE))
    assert check_scan(volume, "x") is volume


def test_memory_is_estimated_before_it_is_taken(tmp_path, monkeypatch):
    write_volume(Volume(voxels(), Grid(SHAPE, AFFINE)), tmp_path / "scan.nii.gz")
    monkeypatch.setattr(memory, "available_memory", lambda: 500)
    _refused(tmp_path / "scan.nii.gz", MemoryLimitError, "GB")
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert read_volume(tmp_path / "scan.nii.gz").data.shape == SHAPE
    # A header of 2 kB that announces 30 thousand million voxels: memory is not the reason.
    huge = nibabel.Nifti1Header()
    huge.set_data_shape((30000, 30000, 32767))
    huge.set_data_dtype(np.float64)
    huge.set_sform(np.eye(4), 1)
    huge["magic"], huge["vox_offset"] = b"n+1", 352
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(huge.binaryblock + bytes(1000)))
    monkeypatch.undo()
    if memory.available_memory() is not None:
        _refused(tmp_path / "huge.nii.gz", ImageError, "more than a file of")


def test_available_memory_is_plausible():
    available = memory.available_memory()
    assert available is None or 1e7 < available < 1e14


# ------------------------------------------------------------------ NIfTI geometry


def _shifted(mm: float) -> np.ndarray:
    other = AFFINE.copy()
    other[:3, 3] += (0, mm, 0)
    return other


def test_two_geometries_in_one_file(tmp_path):
    for codes in [(1, 1), (1, 2), (2, 1), (4, 1), (2, 2)]:
        path = _nifti(tmp_path / "scan.nii.gz", sform=(AFFINE, codes[0]), qform=(_shifted(2.5), codes[1]))
        text = _refused(path, GeometryError, "sform and qform differ by 2.5 mm")
        assert "--nifti-form sform" in text
        assert "--nifti-form qform" in text
        for form, affine in (("sform", AFFINE), ("qform", _shifted(2.5))):
            got = read_volume(path, nifti_form=form).grid.affine
            np.testing.assert_allclose(got, affine, atol=1e-4)
            assert describe_image(path, nifti_form=form)["readable"]
        assert not describe_image(path)["readable"]


def test_forms_that_differ_by_less_than_a_micrometre_are_the_same(tmp_path):
    read_volume(_nifti(tmp_path / "scan.nii.gz", sform=(AFFINE, 1), qform=(_shifted(5e-4), 1)))
    _refused(_nifti(tmp_path / "scan.nii.gz", sform=(AFFINE, 1), qform=(_shifted(5e-3), 1)), GeometryError, "differ")


def test_a_turned_qform_is_not_taken_for_rounding(tmp_path):
    """About 180 degrees a qform is imprecise; a real turn of the smallest size that matters is still noticed."""
    start = np.eye(4)
    start[:3, :3] = rotation((0, 0.05, 180))
    shape = (300, 300, 300)
    data = np.zeros(shape, np.uint8)
    data[0, 0, 0] = 1
    image = nibabel.Nifti1Image(data, start)
    image.set_sform(start, 1)
    image.set_qform(start, 1)
    nibabel.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").grid.affine, start, atol=1e-6)
    turned = start.copy()
    turned[:3, :3] = rotation((0.3, 0.05, 180))
    image.set_qform(turned, 1)
    nibabel.save(image, tmp_path / "scan.nii")
    _refused(tmp_path / "scan.nii", GeometryError, "sform and qform differ")


def test_the_choice_of_a_form_is_for_files_that_state_two(tmp_path):
    """One option serves a pair of scans of which one states two geometries and the other one only."""
    for forms in ({"sform": (AFFINE, 1)}, {"qform": (AFFINE, 1)}):
        path = _nifti(tmp_path / "scan.nii.gz", **forms)
        for form in ("sform", "qform"):
            np.testing.assert_allclose(read_volume(path, nifti_form=form).grid.affine, AFFINE, atol=1e-4)
    path = _nifti(tmp_path / "both.nii.gz", sform=(AFFINE, 1), qform=(_shifted(2.5), 1))
    assert "--fixed-nifti-form, --moving-nifti-form" in _refused(path, GeometryError, "two geometries")
    with pytest.raises(OptionsError, match="pform"):
        read_volume(path, nifti_form="pform")


def test_no_geometry_stated(tmp_path):
    path = _nifti(tmp_path / "scan.nii", affine=np.diag([1.5, 0.7, 3, 1]))
    _refused(path, GeometryError, "--assume-geometry")
    volume = read_volume(path, assume_geometry=True)
    seen = sitk_positions(sitk.ReadImage(str(path)), some_indices())
    np.testing.assert_allclose(volume.grid.index_to_world(some_indices()), seen, atol=1e-5)


def test_spacing_stated_twice(tmp_path):
    path = _patched(_nifti(tmp_path / "scan.nii", sform=(AFFINE, 1)), "pixdim", [1, 1, 1, 1, 0, 0, 0, 0])
    _refused(path, GeometryError, "pixdim")
    # The disagreement is real: these two programs see different corners.
    corner = np.array([[n - 1 for n in SHAPE]])
    other = nibabel.load(path).affine
    distance = sitk_positions(sitk.ReadImage(str(path)), corner) - (corner @ other[:3, :3].T + other[:3, 3])
    assert np.abs(distance).max() > 1
    np.testing.assert_allclose(read_volume(path, nifti_form="sform").grid.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("unit", [1, 3])
def test_other_units(tmp_path, unit):
    path = _patched(_nifti(tmp_path / "scan.nii", sform=(AFFINE, 1), qform=(AFFINE, 1)), "xyzt_units", unit)
    _refused(path, GeometryError, "metres")
    for form in ("sform", "qform"):  # choosing a form says nothing about its unit
        _refused(path, GeometryError, "metres", nifti_form=form)


@pytest.mark.parametrize("value", [0.0, -1.5, np.nan, np.inf])
def test_impossible_spacing(tmp_path, value):
    pixdim = [1, 1.5, value, 3, 0, 0, 0, 0]
    for forms in ({"qform": (AFFINE, 1)}, {"sform": (AFFINE, 1), "qform": (AFFINE, 1)}, {}):
        path = _patched(_nifti(tmp_path / "scan.nii", **forms), "pixdim", pixdim)
        _refused(path, GeometryError)
        _refused(path, GeometryError, assume_geometry=True)
    broken = AFFINE.copy()
    broken[:3, 1] = 0 if value == 0 or value == -1.5 else value
    path = _nifti(tmp_path / "scan.nii", sform=(AFFINE, 1))
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        _patched(path, name, broken[row])
    _refused(path, GeometryError)


def test_an_impossible_quaternion(tmp_path):
    path = _patched(_nifti(tmp_path / "scan.nii", qform=(AFFINE, 1)), "quatern_b", 3.0)
    _refused(path, GeometryError, "qform")
    path = _patched(_nifti(tmp_path / "scan.nii", qform=(AFFINE, 1), sform=(AFFINE, 1)), "quatern_b", 3.0)
    _refused(path, GeometryError, "qform")
    np.testing.assert_allclose(read_volume(path, nifti_form="sform").grid.affine, AFFINE, atol=1e-5)


def test_a_quaternion_that_is_longer_than_one_by_rounding(tmp_path):
    """b^2 + c^2 + d^2 = 1 + 4.8e-7, as float32 leaves it for a turn by 180 degrees."""
    affine = np.diag([-1.5, -1.5, 3, 1.0])
    path = _nifti(tmp_path / "scan.nii", sform=(affine, 1), qform=(affine, 1), affine=affine)
    _patched(path, "quatern_d", np.float32(1 + 2.4e-7))
    header = nibabel.load(path).header
    assert 1 - float(header["quatern_d"]) ** 2 < -3.6e-7  # beyond what nibabel takes for rounding
    np.testing.assert_allclose(read_volume(path).grid.affine, affine, atol=1e-6)
    _patched(path, "quatern_d", np.float32(1.001))
    _refused(path, GeometryError, "qform")


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_voxels_that_begin_nowhere(tmp_path, offset):
    path = _patched(_nifti(tmp_path / "scan.nii", sform=(AFFINE, 1)), "vox_offset", offset)
    _refused(path, ImageError, "voxels begin at byte")
    assert not describe_image(path)["readable"]


def test_an_offset_beyond_the_end(tmp_path):
    path = _patched(_nifti(tmp_path / "scan.nii", sform=(AFFINE, 1)), "vox_offset", 1e9)
    _refused(path, ImageError, "cut off")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mgh"])
def test_sizes_are_believed_up_to_what_the_file_can_hold(tmp_path, suffix, monkeypatch):
    """Headers that announce more than memory, and more than 64 bits can count; nothing of it is allocated."""
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    path = tmp_path / f"scan.{suffix}"
    for shape in [(30000, 30000, 30000), (32767, 32767, 2000)]:
        if suffix == "mgh":
            nibabel.save(nibabel.MGHImage(voxels(np.float32), AFFINE), path)
            raw = bytearray(path.read_bytes())
            raw[4:16] = np.array(shape, ">i4").tobytes()
            path.write_bytes(bytes(raw))
        else:
            nibabel.save(nibabel.Nifti1Image(voxels(), AFFINE), tmp_path / "plain.nii")
            _patched(tmp_path / "plain.nii", "dim", [3, *shape, 1, 1, 1, 1])
            raw = (tmp_path / "plain.nii").read_bytes()
            path.write_bytes(gzip.compress(raw) if suffix == "nii.gz" else raw)
        _refused(path, ImageError, "cut off")
    if suffix == "nii":
        image = nibabel.Nifti2Image(voxels(), AFFINE)
        image.to_filename(path)
        raw = bytearray(path.read_bytes())
        raw[16:48] = np.array([3, 2**62, 2**62, 2**62], "<i8").tobytes()
        path.write_bytes(bytes(raw))
        _refused(path, (ImageError, GeometryError))


def test_thousands_of_millions_of_zeros_after_the_voxels_are_not_read(tmp_path):
    """Some hundred MB of them here: 20 kB compressed twice over would be the same."""
    path = _nifti(tmp_path / "scan.nii", sform=(AFFINE, 1))
    packed = gzip.compress(path.read_bytes() + bytes(300 << 20), compresslevel=1)
    (tmp_path / "scan.nii.gz").write_bytes(packed)
    start = time.process_time()
    _refused(tmp_path / "scan.nii.gz", ImageError, "much more than")
    assert time.process_time() - start < 1
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(1 << 20)))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").data, voxels())


def test_shear(tmp_path):
    for shear, refused in ((2e-2, True), (5e-4, True), (5e-5, False)):
        affine = AFFINE.copy()
        unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        affine[:3, 1] += shear * unit[:, 0] * np.linalg.norm(affine[:3, 1])
        path = _nifti(tmp_path / "scan.nii", sform=(affine, 1), affine=affine)
        if not refused:
            np.testing.assert_allclose(read_volume(path).grid.affine, affine, atol=1e-5)
            continue
        text = _refused(path, GeometryError, "not orthogonal")
        # The distance told is that between the corners of the sheared box and of the closest orthogonal one:
        # half of the shear angle goes to each axis, seen from the middle of the box.
        half = (np.array(SHAPE) - 1) / 2 * np.linalg.norm(affine[:3, :3], axis=0)
        told = float(text.rsplit("up to ", 1)[1].split(" mm")[0])
        assert told == pytest.approx(shear / 2 * np.hypot(half[0], half[1]), rel=0.05)


# ------------------------------------------------------------------ NRRD, MetaImage and MGH geometry


def _nrrd(path, *lines: str):
    head = ["NRRD0005", "type: short", "dimension: 3", "sizes: 4 5 6", "endian: little", "encoding: raw", *lines]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + voxels("<i2").tobytes(order="F"))
    return path


_DIRECTIONS = ("space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (10,20,30)")


def test_nrrd_geometry(tmp_path):
    path = tmp_path / "scan.nrrd"
    for lines, says in [
        (("spacings: 1 2 3",), "no space"),
        (("space dimension: 3", *_DIRECTIONS), "no space"),
        (("space: LPS", _DIRECTIONS[0]), "no space origin"),
        (("space: scanner-xyz", *_DIRECTIONS), "scanner-xyz"),
        (("space: 3D-left-handed", *_DIRECTIONS), "3d-left-handed"),
    ]:
        assert "--assume-geometry" in _refused(_nrrd(path, *lines), GeometryError, says)
        np.testing.assert_allclose(read_volume(path, assume_geometry=True).grid.spacing, [1, 2, 3])
    for lines, says in [
        (("space: LPS", 'space units: "um" "um" "um"', *_DIRECTIONS), "um"),
        (("space: LPS", "space directions: (1,0,0) (0.1,2,0) (0,0,3)", _DIRECTIONS[1]), "not orthogonal"),
        (("space: LPS", "space directions: (0,0,0) (0,2,0) (0,0,3)", _DIRECTIONS[1]), ""),
        (("space: LPS", "space directions: (nan,0,0) (0,2,0) (0,0,3)", _DIRECTIONS[1]), ""),
    ]:
        _refused(_nrrd(path, *lines), (GeometryError, ImageError), says)
        _refused(path, (GeometryError, ImageError), says, assume_geometry=True)
    read_volume(_nrrd(path, "space: LPS", 'space units: "mm" "mm" "mm"', *_DIRECTIONS))


def _meta(path, *lines: str):
    head = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False", *lines]
    head += ["DimSize = 4 5 6", "ElementType = MET_SHORT", "ElementDataFile = LOCAL"]
    path.write_bytes(("\n".join(head) + "\n").encode() + voxels("<i2").tobytes(order="F"))
    return path


def test_metaimage_geometry(tmp_path):
    path = tmp_path / "scan.mha"
    matrix, offset, spacing = "TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = 1 2 3", "ElementSpacing = 1 2 3"
    read_volume(_meta(path, matrix, offset, spacing))
    assert "--assume-geometry" in _refused(_meta(path, spacing), GeometryError, "TransformMatrix")
    np.testing.assert_allclose(read_volume(path, assume_geometry=True).grid.affine, np.diag([-1, -2, 3, 1]))
    for lines, says in [((matrix, offset), "ElementSpacing"), ((matrix, spacing), "Offset")]:
        _refused(_meta(path, *lines), GeometryError, says)
        read_volume(path, assume_geometry=True)
    for lines, says in [
        ((matrix, offset, "ElementSpacing = 0 2 3"), "not positive"),
        ((matrix, offset, "ElementSpacing = -1 2 3"), "negative"),
        ((matrix, "Offset = nan 2 3", spacing), "Offset .* not finite"),
        (("TransformMatrix = 1 0 0 nan 1 0 0 0 1", offset, spacing), "not finite"),
        (("TransformMatrix = 1 0 0 0.1 0.995 0 0 0 1", offset, spacing), "not orthogonal"),
        (("TransformMatrix = 1 0 0 1 0 0 0 0 1", offset, spacing), ""),
    ]:
        _refused(_meta(path, *lines), GeometryError, says)
        _refused(path, GeometryError, says, assume_geometry=True)
    _refused(_meta(path, matrix, offset, spacing, "ElementToIntensityFunctionSlope = 2"), ImageError, "slope 2")
    read_volume(_meta(path, matrix, offset, spacing, "ElementToIntensityFunctionSlope = 1"))


def test_mgh_without_geometry(tmp_path):
    path = tmp_path / "scan.mgh"
    nibabel.save(nibabel.MGHImage(voxels(), AFFINE), path)
    raw = bytearray(path.read_bytes())
    raw[28:30] = b"\0\0"
    path.write_bytes(raw)
    _refused(path, GeometryError, "goodRASFlag")
    _refused(path, GeometryError, "goodRASFlag", assume_geometry=True)


def test_nothing_of_itk_reaches_the_terminal(tmp_path, capfd):
    path = tmp_path / "scan.mha"
    write_volume(Volume(voxels(), Grid(SHAPE, AFFINE)), path)
    path.write_bytes(path.read_bytes()[:-20])
    _refused(path, ImageError)
    shutil.copy(path, tmp_path / "scan.nrrd")
    _refused(tmp_path / "scan.nrrd", ImageError)
    assert capfd.readouterr() == ("", "")
