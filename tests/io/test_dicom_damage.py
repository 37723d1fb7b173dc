"""Damaged files in a DICOM folder: in the scan they stop the reading, the last slice too; beside it they are named."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import ORIGIN, SHAPE, SPACING, image, save, scout, series
from dicom_files import stored as stored_values

from meddift.errors import ImageError
from meddift.io import describe_image, list_dicom_series, read_volume

HU = stored_values().astype(int) - 1024
LAST = f"IM{SHAPE[2] - 1:03d}.dcm"

#: What a copy that broke off, a full disk or a bad sector leaves of a file.
DAMAGE = {
    "empty": lambda content: b"",
    "preamble": lambda content: content[:132],
    "half the header": lambda content: content[: content.index(b"\x20\x00\x32\x00")],
    "half the pixels": lambda content: content[:-20],
    "zeros": lambda content: bytes(len(content)),
    "broken length": lambda content: content.replace(b"\x28\x00\x02\x00US", b"\x28\x00\x02\x00SQ"),
}


@pytest.mark.parametrize("name", ["IM000.dcm", "IM003.dcm", LAST])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_slice_of_the_scan_is_named_and_the_scan_not_read_without_it(tmp_path, name, damage):
    folder = series(tmp_path / "scan")
    (folder / name).write_bytes(DAMAGE[damage]((folder / name).read_bytes()))
    with pytest.raises(ImageError, match=rf"{name}.*slices of the DICOM series 1\.2\.3\.1"):
        read_volume(folder)
    described = describe_image(folder)
    assert not described["readable"]
    assert name in described["problems"][0]


@pytest.mark.parametrize("damage", ["empty", "half the pixels", "zeros"])
def test_so_is_one_whose_name_has_no_suffix(tmp_path, damage):
    folder = series(tmp_path / "scan")
    for path in sorted(folder.iterdir()):
        path.rename(folder / path.stem)
    last = folder / LAST.removesuffix(".dcm")
    last.write_bytes(DAMAGE[damage](last.read_bytes()))
    with pytest.raises(ImageError, match=last.name):
        read_volume(folder)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_that_is_not_of_the_scan_is_left_out_and_named(tmp_path, damage, caplog):
    folder = series(tmp_path / "scan")
    stray = save(scout(), folder / "SCOUT.dcm")
    stray.write_bytes(DAMAGE[damage](stray.read_bytes()))
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.data, HU)
    ends = np.add(ORIGIN, ((0, 0, 0), np.multiply(SPACING, np.array(SHAPE) - 1)))
    np.testing.assert_allclose(volume.grid.index_to_world([[0, 0, 0], np.array(SHAPE) - 1]), ends * [-1, -1, 1])
    assert "damaged files: SCOUT.dcm (1)" in caplog.text
    assert len(list_dicom_series(folder)) == 1


def test_a_damaged_slice_of_another_scan_in_the_same_folder_does_not_block(tmp_path):
    """Its header says which series it is of, though its name is like those of the wanted one."""
    folder = series(tmp_path / "scan")
    broken = save(image(stored_values()[..., 0], SeriesInstanceUID="1.2.77"), folder / "IM900.dcm")
    broken.write_bytes(broken.read_bytes()[:-20])
    np.testing.assert_array_equal(read_volume(folder).data, HU)


def test_nothing_but_damage_is_said(tmp_path):
    folder = series(tmp_path / "scan")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"IM000\.dcm is cut off"):
        read_volume(folder)
