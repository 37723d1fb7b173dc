"""Scans survive every format, and lie where nibabel and SimpleITK see them."""

from __future__ import annotations

import gzip
import signal

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import SHAPE, axis_aligned_affines, oblique_affines, rotation, sitk_positions, some_indices, voxels

from meddift.errors import GeometryError, ImageError, OptionsError, OutputError
from meddift.geometry import Grid
from meddift.io import read_volume, write_volume
from meddift.volume import Volume

FORMATS = ["nii", "nii.gz", "nrrd", "mha"]
AFFINES = axis_aligned_affines() + oblique_affines()


def _assert_lies_there(volume: Volume, affine: np.ndarray, tolerance: float = 1e-4) -> None:
    wanted = some_indices() @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(volume.grid.index_to_world(some_indices()), wanted, atol=tolerance)


@pytest.mark.parametrize("suffix", FORMATS)
def test_written_scans_lie_in_the_same_place_for_everybody(tmp_path, suffix):
    data = voxels()
    for affine in AFFINES:
        path = tmp_path / f"scan.{suffix}"
        write_volume(Volume(data, Grid(SHAPE, affine)), path)
        back = read_volume(path)
        _assert_lies_there(back, affine)
        np.testing.assert_array_equal(back.data, data)
        assert back.data.dtype == np.int16
        image = sitk.ReadImage(str(path))
        wanted = some_indices() @ affine[:3, :3].T + affine[:3, 3]
        np.testing.assert_allclose(sitk_positions(image, some_indices()), wanted, atol=1e-4)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), data.transpose())
        if suffix.startswith("nii"):
            other = nibabel.load(path)
            np.testing.assert_allclose(other.affine, affine, atol=1e-4)
            np.testing.assert_array_equal(np.asarray(other.dataobj), data)


def test_nifti_forms_agree_and_have_code_one(tmp_path):
    for affine in AFFINES:
        write_volume(Volume(voxels(), Grid(SHAPE, affine)), tmp_path / "scan.nii")
        header = nibabel.load(tmp_path / "scan.nii").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=2e-3)
        assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("forms", [(1, 0), (0, 1), (1, 1), (2, 2), (4, 1), (1, 2), (3, 0)])
def test_nifti_of_nibabel_is_read_as_nibabel_and_itk_see_it(tmp_path, forms):
    for affine in AFFINES[::5]:
        image = nibabel.Nifti1Image(voxels(), affine)
        image.set_sform(affine, forms[0])
        image.set_qform(affine, forms[1])
        nibabel.save(image, tmp_path / "scan.nii.gz")
        volume = read_volume(tmp_path / "scan.nii.gz")
        np.testing.assert_allclose(volume.grid.affine, nibabel.load(tmp_path / "scan.nii.gz").affine, atol=1e-5)
        seen = sitk_positions(sitk.ReadImage(str(tmp_path / "scan.nii.gz")), some_indices())
        np.testing.assert_allclose(volume.grid.index_to_world(some_indices()), seen, atol=2e-3)


@pytest.mark.parametrize("suffix", ["mgz", "mgh"])
def test_mgh_of_nibabel(tmp_path, suffix):
    for affine in AFFINES[::4]:
        for dtype in (np.uint8, np.int16, np.int32, np.float32):
            nibabel.save(nibabel.MGHImage(voxels(dtype), affine), tmp_path / f"scan.{suffix}")
            volume = read_volume(tmp_path / f"scan.{suffix}")
            _assert_lies_there(volume, affine, tolerance=1e-3)
            np.testing.assert_array_equal(volume.data, voxels(dtype))
            assert volume.data.dtype == np.dtype(dtype)


@pytest.mark.parametrize("suffix", ["nhdr", "mhd", "nrrd", "mha", "nii"])
def test_files_of_simpleitk(tmp_path, suffix):
    for affine in AFFINES[::6]:
        image = sitk.GetImageFromArray(voxels(np.float32).transpose())
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        lps = np.diag([-1, -1, 1]) @ affine[:3, :3] / spacing
        image.SetSpacing(spacing.tolist())
        image.SetOrigin((affine[:3, 3] * [-1, -1, 1]).tolist())
        image.SetDirection(lps.ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / f"scan.{suffix}"))
        volume = read_volume(tmp_path / f"scan.{suffix}")
        _assert_lies_there(volume, affine)
        np.testing.assert_array_equal(volume.data, voxels(np.float32))


@pytest.mark.parametrize(
    ("space", "to_ras"),
    [
        ("left-posterior-superior", (-1, -1, 1)), ("LPS", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1)),
    ],
)  # fmt: skip
def test_nrrd_spaces(tmp_path, space, to_ras):
    affine = oblique_affines()[7]
    vectors = " ".join("(" + ",".join(repr(float(v)) for v in affine[:3, i]) + ")" for i in range(3))
    origin = ",".join(repr(float(v)) for v in affine[:3, 3])
    head = (
        f"NRRD0005\n# a comment: with a colon\ntype: short\ndimension: 3\nsizes: 4 5 6\nspace: {space}\n"
        f"space directions: {vectors}\nspace origin: ({origin})\nendian: little\nencoding: raw\n\n"
    )
    (tmp_path / "scan.nrrd").write_bytes(head.encode() + voxels("<i2").tobytes(order="F"))
    volume = read_volume(tmp_path / "scan.nrrd")
    _assert_lies_there(volume, np.diag([*to_ras, 1.0]) @ affine)
    np.testing.assert_array_equal(volume.data, voxels())


angles = st.floats(-180, 180, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(
    turns=st.tuples(angles, angles, angles),
    nearly=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2, None]),
    spacing=st.tuples(*[st.floats(0.2, 6.0)] * 3),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
    which=st.integers(0, 47),
    suffix=st.sampled_from(["nii", "nrrd", "mha"]),
)
def test_any_rigid_geometry_survives(tmp_path_factory, turns, nearly, spacing, origin, which, suffix):
    # Slightly turned scans are where the quaternion of a qform is least precise.
    turn = rotation(np.array(turns) if nearly is None else np.array(turns) * nearly)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.sign(axis_aligned_affines()[which][:3, :3]) * spacing
    affine[:3, 3] = origin
    shape = (512, 3, 2)
    data = np.zeros(shape, dtype=np.uint8)
    data[5, 1, 0] = 1
    path = tmp_path_factory.mktemp("scan") / f"scan.{suffix}"
    write_volume(Volume(data, Grid(shape, affine)), path)
    back = read_volume(path)
    assert back.grid.same_as(Grid(shape, affine), tolerance_mm=1e-3)
    np.testing.assert_array_equal(back.data, data)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("written", "read"),
    [
        (np.uint8, np.uint8), (np.int8, np.int8), (np.int16, np.int16), (np.uint16, np.uint16), (np.int32, np.int32),
        (np.uint32, np.uint32), (np.int64, np.int32), (np.float32, np.float32), (np.float64, np.float32),
        (np.float16, np.float32), (np.bool_, np.uint8), (">i2", np.int16), (">f4", np.float32),
    ],
)  # fmt: skip
def test_types(tmp_path, suffix, written, read):
    data = (voxels(np.uint8) > 40) if np.dtype(written).kind == "b" else voxels(written)
    write_volume(Volume(data, Grid(SHAPE, AFFINES[3])), tmp_path / f"scan.{suffix}")
    back = read_volume(tmp_path / f"scan.{suffix}").data
    assert back.dtype == np.dtype(read)
    assert back.dtype.isnative
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, data)


def test_large_64_bit_integers_stay_exact(tmp_path):
    data = voxels(np.int64) + 2**40
    write_volume(Volume(data, Grid(SHAPE, AFFINES[3])), tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").data, data)


def test_like_dtype_rounds_and_clips(tmp_path):
    data = np.zeros(SHAPE, dtype=np.float32)
    data.flat[:6] = [1.4, 1.6, -3.0, 300.0, np.nan, 7]
    write_volume(Volume(data, Grid(SHAPE, AFFINES[0])), tmp_path / "a.nii", like_dtype=np.uint8)
    back = read_volume(tmp_path / "a.nii").data
    assert back.dtype == np.uint8
    assert back.flat[:6].tolist() == [1, 2, 0, 255, 0, 7]
    write_volume(Volume(voxels(np.int32) * 1000, Grid(SHAPE, AFFINES[0])), tmp_path / "b.nii", like_dtype=np.int16)
    np.testing.assert_array_equal(
        read_volume(tmp_path / "b.nii").data, np.clip(voxels(np.int32) * 1000, -32768, 32767)
    )


def test_a_single_channel_is_written_and_several_are_not(tmp_path):
    grid = Grid(SHAPE, AFFINES[0])
    write_volume(Volume(voxels()[None], grid), tmp_path / "one.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "one.nii").data, voxels())
    with pytest.raises(ImageError, match="channels"):
        write_volume(Volume(np.zeros((2, *SHAPE)), grid), tmp_path / "two.nii")
    with pytest.raises(ImageError, match="complex64"):
        write_volume(Volume(np.zeros(SHAPE, np.complex64), grid), tmp_path / "two.nii")
    assert not (tmp_path / "two.nii").exists()


def test_scaled_nifti_equals_nibabel(tmp_path):
    image = nibabel.Nifti1Image(voxels(np.float64) * 0.37 + 5, AFFINES[1])
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    other = nibabel.load(tmp_path / "scan.nii.gz")
    assert other.dataobj.slope != 1
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.data, other.get_fdata(), rtol=1e-6)


@pytest.mark.parametrize("endian", "<>")
def test_byte_orders_and_nifti_2(tmp_path, endian):
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        header = kind.header_class(endianness=endian)
        header.set_data_dtype(np.int16)
        nibabel.save(kind(voxels(), AFFINES[60], header), tmp_path / "scan.nii")
        volume = read_volume(tmp_path / "scan.nii")
        _assert_lies_there(volume, AFFINES[60])
        np.testing.assert_array_equal(volume.data, voxels())


def test_trailing_axes_of_length_one_are_dropped(tmp_path):
    for extra in [(1,), (1, 1)]:
        nibabel.save(nibabel.Nifti1Image(voxels().reshape(SHAPE + extra), AFFINES[9]), tmp_path / "scan.nii.gz")
        np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").data, voxels())
    sitk.WriteImage(sitk.JoinSeries(sitk.GetImageFromArray(voxels().transpose())), str(tmp_path / "scan.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.mha").data, voxels())


def test_names_with_uncommon_letters_and_upper_case(tmp_path):
    folder = tmp_path / "Ünïcode folder [1]"
    folder.mkdir()
    for name in ("Scan é.NII.GZ", "scan 1.5mm.Nrrd", "x.MHA"):
        write_volume(Volume(voxels(), Grid(SHAPE, AFFINES[0])), folder / name)
        np.testing.assert_array_equal(read_volume(folder / name).data, voxels())


def test_gzip_is_recognised_by_content_and_the_file_is_reproducible(tmp_path):
    volume = Volume(voxels(), Grid(SHAPE, AFFINES[0]))
    write_volume(volume, tmp_path / "a.nii.gz")
    write_volume(volume, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    (tmp_path / "misnamed.nii").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    for name in ("misnamed.nii", "plain.nii.gz"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, voxels())


@pytest.mark.parametrize("name", ["scan.nhdr", "scan.mhd", "scan.dcm", "scan.mgz", "scan", "scan.gz", "scan.png"])
def test_formats_that_cannot_be_written(tmp_path, name):
    with pytest.raises(OptionsError, match=r"\.nii\.gz, \.nii, \.nrrd, \.mha"):
        write_volume(Volume(voxels(), Grid(SHAPE, AFFINES[0])), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_volume_is_not_written(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.01
    with pytest.raises(GeometryError, match="not orthogonal"):
        write_volume(Volume(voxels(), Grid(SHAPE, affine)), tmp_path / "scan.nii")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="file size limits are a thing of Unix")
def test_a_full_disk_is_noticed_and_the_old_file_stays(tmp_path, suffix):
    import resource

    path = tmp_path / f"scan.{suffix}"
    write_volume(Volume(voxels(), Grid(SHAPE, AFFINES[0])), path)
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"scan\."):
            write_volume(Volume(noise, Grid(noise.shape, AFFINES[0])), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
