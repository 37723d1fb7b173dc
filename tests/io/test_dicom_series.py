"""DICOM series lie where their slices say they lie, or are refused with the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import axis_aligned_affines, oblique_affines, rotation, sitk_positions

from meddift.errors import GeometryError, ImageError, MissingFileError
from meddift.io import describe_image, list_dicom_series, read_volume, write_volume

COLUMNS, ROWS, SLICES = 5, 4, 6
SPACING = (0.8, 0.6)  # between columns, between rows
STEP = 2.5


def _values(k: int) -> np.ndarray:
    """(ROWS, COLUMNS) HU of slice k."""
    return (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 100 * k - 1000).astype(np.int16)


def _write_slice(path, values, position, direction=None, **tags):
    """One DICOM file; `tags` are given as t0020_000e="..."."""
    direction = np.eye(3) if direction is None else direction
    image = sitk.GetImageFromArray(values[None]) if values.ndim == 2 else sitk.GetImageFromArray(values, isVector=True)
    image.SetSpacing((*tags.pop("spacing", SPACING), 1.0))
    orientation = "\\".join(f"{value:.10f}" for value in direction[:, :2].T.ravel())
    metadata = {
        "0008|0060": "CT",
        "0008|103e": "Thorax",
        "0020|000e": "1.2.3.1",
        "0020|000d": "1.2.3",
        "0020|0032": "\\".join(f"{value:.8f}" for value in position),
        "0020|0037": orientation,
        **{key[1:].replace("_", "|"): value for key, value in tags.items()},
    }
    for key, value in metadata.items():
        image.SetMetaData(key, value)
    if image.GetDimension() == 3:
        image.SetOrigin([float(value) for value in position])
        image.SetDirection(direction.ravel().tolist())
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def _write_series(folder, *, direction=None, step=None, names=None, heights=None, skip=(), prefix="", **tags):
    """A series along the normal of `direction`, or along `step`; the file names say nothing about the order."""
    folder.mkdir(exist_ok=True)
    direction = np.eye(3) if direction is None else direction
    step = direction[:, 2] * STEP if step is None else step
    origin = np.array([-101.5, 33.25, -870.0])
    for k in range(SLICES):
        if k in skip:
            continue
        height = k if heights is None else heights[k]
        name = names[k] if names else f"{prefix}{(k * 5) % 7:02d}.dcm"
        _write_slice(folder / name, _values(k), origin + height * step, direction, **tags)
    return folder


def _refused(folder, error, match, **options) -> str:
    with pytest.raises(error, match=match) as caught:
        read_volume(folder, **options)
    text = str(caught.value)
    assert str(folder) in text
    assert "Exception thrown" not in text
    return text


def _expected_data() -> np.ndarray:
    return np.stack([_values(k).T for k in range(SLICES)], axis=-1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_series_lies_where_its_slices_say(tmp_path, turned):
    """All 24 right-handed directions (DICOM has no left-handed images), straight and oblique."""
    affines = [a for a in (oblique_affines() if turned else axis_aligned_affines()) if np.linalg.det(a[:3, :3]) > 0]
    for number, affine in enumerate(affines):
        direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        folder = _write_series(tmp_path / str(number), direction=direction)
        volume = read_volume(folder)
        np.testing.assert_array_equal(volume.data, _expected_data())
        assert volume.data.dtype == np.int16
        index = np.array([[0, 0, 0], [4, 0, 0], [0, 3, 0], [0, 0, 5], [1.5, 2.25, 3.75]])
        lps = np.array([-101.5, 33.25, -870.0]) + (index * (*SPACING, STEP)) @ direction.T
        np.testing.assert_allclose(volume.grid.index_to_world(index), lps * [-1, -1, 1], atol=1e-5)
        if number % 6 == 0:  # the independent witness: GDCM's own ordering and ITK's series reader
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
            image = reader.Execute()
            np.testing.assert_allclose(volume.grid.index_to_world(index), sitk_positions(image, index), atol=1e-4)
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(), volume.data)


def test_series_is_the_same_after_conversion(tmp_path):
    volume = read_volume(_write_series(tmp_path / "scan", direction=rotation((3, 8, -5))))
    write_volume(volume, tmp_path / "scan.nii.gz")
    back = read_volume(tmp_path / "scan.nii.gz")
    assert back.grid.same_as(volume.grid, tolerance_mm=1e-4)
    np.testing.assert_array_equal(back.data, volume.data)


def test_rescaling_gives_hounsfield_units(tmp_path):
    folder = _write_series(tmp_path / "ct", t0028_1052="-1024", t0028_1053="1")
    # What stands in the file differs from what is meant: the check must not pass by accident.
    raw = (folder / "00.dcm").read_bytes()[-2 * ROWS * COLUMNS :]
    assert np.frombuffer(raw, "<i2")[0] == _values(0)[0, 0] + 1024
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.data, _expected_data())
    assert volume.data.dtype == np.int16


def test_slopes_that_differ_from_slice_to_slice(tmp_path):
    """As in PET: every slice has a slope of its own."""
    folder = tmp_path / "pet"
    folder.mkdir()
    for k in range(SLICES):
        slope = 0.5 + k / 4
        values = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * slope
        stored = {"t0028_0100": "16", "t0028_0101": "16", "t0028_0102": "15", "t0028_0103": "1"}
        tags = {"t0028_1052": "0", "t0028_1053": str(slope), **stored}
        _write_slice(folder / f"{k}.dcm", values, (0, 0, 3.0 * k), **tags)
    volume = read_volume(folder)
    assert volume.data.dtype == np.float32
    expected = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).T[..., None] * (0.5 + np.arange(SLICES) / 4)
    np.testing.assert_allclose(volume.data, expected, atol=1e-5)


def test_names_without_suffix_other_files_and_one_level_down(tmp_path):
    _write_series(tmp_path / "DICOM", prefix="IM")
    for file in list((tmp_path / "DICOM").iterdir()):
        file.rename(file.with_suffix(""))
    (tmp_path / "DICOM" / "readme.txt").write_text("not an image")
    (tmp_path / "DICOM" / "empty").write_bytes(b"")
    # A structured report: DICOM, and no image.
    report = b"\0" * 128 + b"DICM" + b"\x02\x00\x02\x00UI\x1e\x001.2.840.10008.5.1.4.1.1.88.11\0"
    (tmp_path / "DICOM" / "report").write_bytes(report + b"\0" * 100)
    for folder in (tmp_path / "DICOM", tmp_path):
        np.testing.assert_array_equal(read_volume(folder).data, _expected_data())


def test_several_series(tmp_path):
    folder = tmp_path / "study"
    _write_series(folder, prefix="a")
    _write_series(folder, prefix="b", t0020_000e="1.2.3.15", t0008_103e="Lung")
    _write_series(folder, prefix="c", t0020_000e="1.2.4", t0008_103e="Lung", skip=(0,))
    found = list_dicom_series(folder)
    assert [(one.uid, one.description, one.number_of_slices, one.size, one.modality) for one in found] == [
        ("1.2.3.1", "Thorax", 6, (COLUMNS, ROWS), "CT"),
        ("1.2.3.15", "Lung", 6, (COLUMNS, ROWS), "CT"),
        ("1.2.4", "Lung", 5, (COLUMNS, ROWS), "CT"),
    ]
    text = _refused(folder, ImageError, "3 DICOM series.*--series")
    for one in ("1.2.3.1:", "1.2.3.15:", "1.2.4:", '"Thorax"', "6 slices of 5 x 4", "5 slices of 5 x 4"):
        assert one in text
    assert read_volume(folder, series="1.2.3.1").data.shape == (5, 4, 6)  # a whole UID, though also a beginning
    assert read_volume(folder, series="1.2.4").data.shape == (5, 4, 5)
    assert read_volume(folder, series="1.2.3.15").data.shape == (5, 4, 6)
    assert read_volume(folder, series="thorax").data.shape == (5, 4, 6)
    _refused(folder, ImageError, "2 DICOM series .* fit 'Lung'", series="Lung")
    _refused(folder, ImageError, "2 DICOM series .* fit '1.2.3'", series="1.2.3")
    _refused(folder, ImageError, "no DICOM series .* fits 'Head'", series="Head")
    description = describe_image(folder)
    assert not description["readable"]
    assert len(description["details"]["series"]) == 3
    assert describe_image(folder, series="Thorax")["readable"]


def test_a_missing_slice(tmp_path):
    text = _refused(_write_series(tmp_path / "scan", skip=(3,)), GeometryError, "uneven distances")
    assert "2.5 mm as a rule but 5 mm between slices 3 and 4" in text


def test_small_unevenness_is_rounding_and_larger_is_not(tmp_path):
    """Up to a tenth of a voxel; the grid is the line of least squares through what is stated."""
    heights = np.arange(SLICES) + np.array([0, 0.03, -0.03, 0.02, 0, 0])
    volume = read_volume(_write_series(tmp_path / "fine", heights=heights))
    slope, first = np.polyfit(np.arange(SLICES), heights * STEP - 870, 1)
    np.testing.assert_allclose(volume.grid.spacing, [*SPACING, slope], rtol=1e-6)
    np.testing.assert_allclose(volume.grid.origin[2], first, atol=1e-4)
    assert "rounded" in volume.notes[0]
    heights = np.arange(SLICES) + np.array([0, 0.3, 0, 0, 0, 0])
    text = _refused(_write_series(tmp_path / "coarse", heights=heights), GeometryError, "uneven distances")
    assert "missing" not in text


def test_two_time_points(tmp_path):
    folder = _write_series(tmp_path / "scan")
    _write_series(folder, prefix="again")
    _refused(folder, ImageError, "12 slices at only 6 places")


def test_a_tilted_image_is_not_a_tilted_gantry(tmp_path):
    """Slices turned as a whole, with the table moving along their normal, are oblique and no problem."""
    volume = read_volume(_write_series(tmp_path / "scan", direction=rotation((15, 0, 0))))
    assert volume.grid.obliqueness_degrees == pytest.approx(15, abs=1e-3)
    assert volume.grid.shear < 1e-6


def test_slices_that_do_not_belong_together(tmp_path):
    for name, tags, error, says in [
        ("spacing", {"spacing": (0.8, 0.7)}, GeometryError, "mixes pixel spacings"),
    ]:
        folder = _write_series(tmp_path / name)
        _write_slice(folder / "odd.dcm", _values(6), (-101.5, 33.25, -855.0), **tags)
        assert "odd.dcm" in _refused(folder, error, says)
    folder = _write_series(tmp_path / "size")
    _write_slice(folder / "odd.dcm", _values(6)[:, :3], (-101.5, 33.25, -855.0))
    assert "3 x 4" in _refused(folder, ImageError, "different sizes")
    folder = _write_series(tmp_path / "moved")
    _write_slice(folder / "odd.dcm", _values(6), (-100.5, 33.25, -855.0))
    _refused(folder, GeometryError, "straight grid")
    folder = _write_series(tmp_path / "turned")
    _write_series(folder, prefix="turned", direction=rotation((0, 90, 0)))
    _refused(folder, GeometryError, "mixes orientations.*localizer")


def test_a_single_slice_is_no_scan(tmp_path):
    _refused(_write_series(tmp_path / "scan", skip=range(1, SLICES)), ImageError, "2D")
    with pytest.raises(ImageError, match="2D"):
        read_volume(tmp_path / "scan" / "00.dcm")


def test_color_slices(tmp_path):
    (tmp_path / "scan").mkdir()
    for k in range(3):
        _write_slice(tmp_path / "scan" / f"{k}.dcm", np.zeros((ROWS, COLUMNS, 3), np.uint8), (0, 0, k * 1.0))
    _refused(tmp_path / "scan", (ImageError, GeometryError), "color")


def test_damaged_slices(tmp_path):
    folder = _write_series(tmp_path / "scan")
    whole = (folder / "05.dcm").read_bytes()
    for keep in (200, 500, len(whole) - 2 * ROWS * COLUMNS - 4, len(whole) - 6):
        (folder / "05.dcm").write_bytes(whole[:keep])
        with pytest.raises(ImageError, match=r"05\.dcm"):
            read_volume(folder)


def test_no_position(tmp_path):
    folder = _write_series(tmp_path / "scan")
    for path in folder.iterdir():  # (0020,0032) becomes (0020,0033), which nobody knows
        content = path.read_bytes()
        assert content.count(b"\x20\x00\x32\x00") == 1
        path.write_bytes(content.replace(b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"))
    _refused(folder, GeometryError, "does not state where it lies")


def test_folders_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    _refused(tmp_path / "empty", ImageError, "holds no DICOM images")
    with pytest.raises(ImageError, match="no DICOM images"):
        describe_image(tmp_path / "empty")
    with pytest.raises(MissingFileError):
        list_dicom_series(tmp_path / "nowhere")
    assert list_dicom_series(tmp_path / "empty") == []


def test_nothing_of_gdcm_reaches_the_terminal(tmp_path, capfd):
    folder = _write_series(tmp_path / "scan")
    (folder / "77.dcm").write_bytes(b"\x01" * 3000)
    with pytest.raises(ImageError, match=r"77\.dcm"):
        read_volume(folder)
    (folder / "77.dcm").unlink()
    read_volume(folder)
    assert capfd.readouterr() == ("", "")
