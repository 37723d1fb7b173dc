"""Folders as archives and scanners export them: the scan in them is found, and what was left out is said."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import (
    CSA,
    ORIGIN,
    REPORT,
    SECONDARY,
    SHAPE,
    SPACING,
    above,
    enhanced,
    image,
    no_image,
    save,
    scout,
    series,
)
from dicom_files import stored as stored_values
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from meddift.errors import GeometryError, ImageError
from meddift.io import describe_image, list_dicom_series, read_volume
from meddift.io.dicom_unpack import unpacked

HU = stored_values().astype(int) - 1024


def _read(folder, **options):
    """The scan that `series` writes, in the right place: LPS, voxel (0, 0, 0) at ORIGIN."""
    volume = read_volume(folder, **options)
    np.testing.assert_array_equal(volume.data, HU)
    assert volume.data.dtype == np.int16
    ends = np.add(ORIGIN, ((0, 0, 0), np.multiply(SPACING, np.array(SHAPE) - 1)))
    np.testing.assert_allclose(volume.grid.index_to_world([[0, 0, 0], np.array(SHAPE) - 1]), ends * [-1, -1, 1])
    return volume


# ------------------------------------------------------------------ what lies beside the scan

BESIDE = {
    "scout": lambda folder: save(scout(), folder / "SCOUT.dcm"),
    "scout_in_series": lambda folder: save(scout(SeriesInstanceUID="1.2.3.1"), folder / "SCOUT.dcm"),
    "two_scouts": lambda folder: [
        save(scout(), folder / "S1"),
        save(scout(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), folder / "S2"),
    ],
    "three_planes": lambda folder: [
        save(
            image(
                stored_values()[..., k],
                above(k),
                SeriesInstanceUID="1.2.9",
                ImageOrientationPatient=np.roll([[1, 0, 0], [0, 1, 0]], turn, axis=1).ravel().tolist(),
            ),
            folder / "localizer" / f"{turn}{k}",
        )
        for turn in range(3)
        for k in range(3)
    ],
    "capture": lambda folder: save(image(stored_values()[..., 0], SOPClassUID=SECONDARY), folder / "sc"),
    "captures": lambda folder: series(folder / "sc", SOPClassUID=SECONDARY, SeriesInstanceUID="1.2.8"),
    "color_capture": lambda folder: save(
        image(
            np.zeros((8, 7), np.uint16),
            SOPClassUID=SECONDARY,
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelData=bytes(8 * 7 * 3),
            PlanarConfiguration=0,
        ),
        folder / "sc.dcm",
    ),
    "capture_without_place": lambda folder: save(
        image(stored_values()[..., 0], SOPClassUID=SECONDARY, ImagePositionPatient=None, PixelSpacing=None),
        folder / "sc.dcm",
    ),
    "report": lambda folder: save(no_image(REPORT), folder / "sr.dcm"),
    "vendor": lambda folder: save(no_image(CSA, SeriesInstanceUID="1.2.8"), folder / "csa.dcm"),
    "unknown_vendor": lambda folder: save(no_image("1.2.752.24.3.1"), folder / "x.dcm"),
    "copy": lambda folder: (folder / "copy.dcm").write_bytes((folder / "IM001.dcm").read_bytes()),
}
SILENT = {
    "appledouble": lambda folder: [
        (folder / f"._IM{k:03d}.dcm").write_bytes(b"\0\x05\x16\x07" + bytes(120)) for k in range(6)
    ],
    "appledouble_renamed": lambda folder: (folder / "IM999.dcm").write_bytes(b"\0\x05\x16\x07" + bytes(120)),
    "macosx": lambda folder: [
        (folder / "__MACOSX").mkdir(),
        (folder / "__MACOSX" / "junk.dcm").write_bytes(b"junk"),
    ],
    "other_files": lambda folder: [
        (folder / "viewer.exe").write_bytes(bytes(300)),
        (folder / "README").write_text("hello"),
        (folder / "short").write_bytes(b"\x08\0\x05\0"),
    ],
    "dicomdir": lambda folder: save(no_image("1.2.840.10008.1.3.10"), folder / "DICOMDIR"),
}


@pytest.mark.parametrize("what", [*BESIDE, *SILENT])
def test_the_scan_is_read_and_what_lies_beside_it_is_said(tmp_path, what, caplog):
    folder = series(tmp_path / "scan")
    {**BESIDE, **SILENT}[what](folder)
    volume = _read(folder)
    told = [note for note in volume.notes if "left out of the folder" in note]
    assert len(told) == (what in BESIDE or what == "dicomdir")
    assert [record.message for record in caplog.records] == list(volume.notes)
    description = describe_image(folder)
    assert description["readable"]
    assert description["notes"] == list(volume.notes)


def test_archives_nest_patient_study_and_series(tmp_path):
    series(tmp_path / "P1" / "ST1" / "SE1" / "deep" / "er")
    save(scout(), tmp_path / "P1" / "ST1" / "SE0" / "IM0")
    save(scout(SeriesInstanceUID="1.2.99"), tmp_path / "SCOUT.dcm")
    for folder in (tmp_path, tmp_path / "P1" / "ST1"):
        _read(folder)
    save(no_image("1.2.840.10008.1.3.10"), tmp_path / "DICOMDIR")
    _read(tmp_path / "DICOMDIR")


def test_links_to_folders_are_followed_and_circles_do_not_matter(tmp_path):
    series(tmp_path / "data")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "link").symlink_to(tmp_path / "data")
    (tmp_path / "scan" / "circle").symlink_to(tmp_path / "scan")
    _read(tmp_path / "scan")


def test_several_series_are_listed_with_a_command_that_works(tmp_path):
    folder = tmp_path / "a folder's name"
    series(folder / "one")
    series(folder / "two", SeriesInstanceUID="1.2.3.2", SeriesDescription="Lung")
    save(scout(), folder / "IM0")
    with pytest.raises(ImageError, match="2 DICOM series") as caught:
        read_volume(folder)
    text = str(caught.value)
    assert ", in one" in text
    assert "--fixed-series and --moving-series" in text
    words = shlex.split(text.rpartition("for instance: ")[2])
    assert words[0] == "meddift"
    program = [sys.executable, "-c", "from meddift.cli import main; main()", *words[1:], "--json"]
    told = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    assert told["readable"]
    assert told["shape"] == list(SHAPE)


def test_one_file_names_its_series(tmp_path):
    series(tmp_path)
    series(tmp_path, prefix="B", SeriesInstanceUID="1.2.3.2", values=stored_values() + np.uint16(7))
    _read(tmp_path / "IM003.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path / "B000.dcm").data, HU + 7)


def test_a_folder_with_scouts_only_says_so(tmp_path):
    save(scout(), tmp_path / "S1")
    save(scout(SeriesInstanceUID="1.2.10"), tmp_path / "S2")
    with pytest.raises(ImageError, match="none of them a 3D scan"):
        read_volume(tmp_path)
    (tmp_path / "S2").unlink()
    with pytest.raises(ImageError, match="2D"):
        read_volume(tmp_path)


# ------------------------------------------------------------------ text


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "Thorax nativ für Ärzte"), ("ISO_IR 192", "胸部 CT"), ("ISO_IR 144", "Грудь"),
        ("GB18030", "胸部"), (["", "ISO 2022 IR 87"], "胸部"),
    ],
)  # fmt: skip
def test_descriptions_of_every_alphabet_choose_a_series(tmp_path, charset, text):
    series(tmp_path / "a", SpecificCharacterSet=charset, SeriesDescription=text)
    series(tmp_path / "b", SeriesInstanceUID="1.2.3.2")
    assert {one.description for one in list_dicom_series(tmp_path)} == {text, "Thorax"}
    _read(tmp_path, series=text.upper())
    assert json.loads(json.dumps(describe_image(tmp_path, series=text)))["details"]["description"] == text


def test_a_description_whose_alphabet_is_not_named(tmp_path):
    for number, raw in enumerate(("Größe".encode(), "Größe".encode("latin-1"))):
        folder = series(tmp_path / str(number))
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes().replace(b"Thorax", (raw + b" ")[:6].ljust(6)))
        assert list_dicom_series(folder)[0].description.startswith("Größ")


# ------------------------------------------------------------------ values


def test_monochrome1_changes_nothing_about_values(tmp_path):
    _read(series(tmp_path / "scan", PhotometricInterpretation="MONOCHROME1"))


def test_unused_bits_do_not_count(tmp_path):
    """Overlays in the upper bits, and a sign in the twelfth."""
    values = stored_values() | np.uint16(0xA000)
    _read(series(tmp_path / "unsigned", values=values, BitsStored=12, HighBit=11))
    signed = (stored_values().astype(np.int16) - 100) & 0xFFF | 0x3000
    folder = series(tmp_path / "signed", values=signed.astype(np.int16), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_volume(folder).data, HU - 100)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_transfer_syntaxes(tmp_path, syntax):
    for k in range(SHAPE[2]):
        one = image(stored_values()[..., k], above(k))
        if syntax == ExplicitVRBigEndian:
            one.PixelData = stored_values()[..., k].T.astype(">u2").tobytes()
        one.file_meta.TransferSyntaxUID = syntax
        one.save_as(tmp_path / f"{k}", implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    _read(tmp_path)


def _compressed(folder, **tags):
    """A series compressed by SimpleITK's GDCM, which is the independent witness of the stored values."""
    series(folder, **tags)
    for k, path in enumerate(sorted(folder.iterdir())):
        plain = sitk.GetImageFromArray(stored_values()[..., k].T[None])
        plain.SetMetaData("0008|0060", "OT")
        writer = sitk.ImageFileWriter()
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG2000")
        writer.SetFileName(str(folder.parent / "packed.dcm"))
        writer.Execute(plain)
        packed = pydicom.dcmread(folder.parent / "packed.dcm")
        assert packed.file_meta.TransferSyntaxUID == JPEG2000Lossless
        one = pydicom.dcmread(path)
        one.PixelData = packed.PixelData
        one["PixelData"].VR = "OB"
        one["PixelData"].is_undefined_length = True
        one.file_meta.TransferSyntaxUID = JPEG2000Lossless
        one.save_as(path, enforce_file_format=True)
    return folder


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_compressed_slices(tmp_path, photometric):
    _read(_compressed(tmp_path / "scan", PhotometricInterpretation=photometric))


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_other_ways_of_compression(name):
    """Files of pydicom's own tests: the same image stored plainly and compressed, read plainly by pydicom."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    plain, packed = folder / "MR_small.dcm", folder / f"MR_small_{name}.dcm"
    if not packed.is_file():
        pytest.skip("this pydicom brings no such file")
    with unpacked([packed]) as found:
        np.testing.assert_array_equal(found.frames(packed)[0], pydicom.dcmread(plain).pixel_array)


def test_a_compressed_slice_that_is_damaged(tmp_path):
    folder = _compressed(tmp_path / "scan")
    content = (folder / "IM003.dcm").read_bytes()
    start = content.rindex(b"\xff\x4f\xff\x51")
    (folder / "IM003.dcm").write_bytes(content[: start + 40] + bytes(20) + content[start + 60 :])
    with pytest.raises(ImageError, match=r"IM003\.dcm cannot be decompressed"):
        read_volume(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="plays a process that dies with a script of the shell")
def test_a_decoder_that_dies_is_an_error_and_no_crash(tmp_path, monkeypatch):
    """GDCM 3.0 does at some damaged streams; which ones is not the same from build to build."""
    folder = _compressed(tmp_path / "scan")
    (tmp_path / "python").write_text(
        '#!/bin/sh\ntouch "$3/0.begun"; echo x > "$3/0.npy"; touch "$3/1.begun"; kill -SEGV $$\n'
    )
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ImageError, match=r"IM001\.dcm cannot be decompressed: the decoder failed"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"RescaleSlope": 0}, "rescaled"),
        ({"PixelSpacing": None}, "does not state where it lies"),
        ({"BitsAllocated": 12}, "12 bits"),
    ],
)
def test_values_and_places_that_make_no_sense(tmp_path, tags, says):
    with pytest.raises((ImageError, GeometryError), match=says):
        read_volume(series(tmp_path / "scan", **tags))


def test_a_spacing_that_is_no_number_is_told_as_such(tmp_path):
    folder = series(tmp_path / "scan")
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.count(b"0.8\\0.9 ") == 1
        path.write_bytes(content.replace(b"0.8\\0.9 ", b"a.b\\0,9 "))
    with pytest.raises(ImageError, match=r"PixelSpacing is not 2 numbers: 'a\.b"):
        read_volume(folder)


# ------------------------------------------------------------------ several scans in one series


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_slices_of_two_frames_of_reference_are_not_one_scan(tmp_path, modality):
    """The places in one say nothing about those in the other, even where they seem to go on."""
    series(tmp_path, FrameOfReferenceUID="1.2.70.1", Modality=modality)
    further = [above(k + SHAPE[2]) for k in range(SHAPE[2])]
    series(tmp_path, prefix="B", positions=further, FrameOfReferenceUID="1.2.70.2", Modality=modality)
    with pytest.raises(ImageError, match=r"frame of reference 1\.2\.70\.2"):
        read_volume(tmp_path)
    _read(tmp_path, series="1.2.3.1:1")


def test_two_interleaved_acquisitions_are_not_one_scan(tmp_path):
    """Each with a step of 2.5 mm, the second one between the slices of the first: an even grid, and nonsense."""
    series(tmp_path, AcquisitionNumber=1)
    between = [above(k + 0.5) for k in range(SHAPE[2])]
    series(tmp_path, prefix="B", positions=between, AcquisitionNumber=2)
    with pytest.raises(ImageError, match="acquisition 2"):
        read_volume(tmp_path)
    keys = [one.uid for one in list_dicom_series(tmp_path)]
    assert keys == ["1.2.3.1:1", "1.2.3.1:2"]
    _read(tmp_path, series=keys[0])
    assert read_volume(tmp_path, series=keys[1]).grid.origin[2] == pytest.approx(101.25)


@pytest.mark.parametrize(
    "tags",
    [
        {"AcquisitionNumber": 2},
        {"TemporalPositionIdentifier": 2},
        {"KVP": 80},
        {"AcquisitionTime": "101500"},
        {"ImageType": ["DERIVED", "SECONDARY"]},
    ],
)
def test_two_scans_of_one_place_in_one_series_can_be_chosen(tmp_path, tags):
    series(tmp_path)
    series(tmp_path, prefix="B", values=stored_values() + np.uint16(1000), **tags)
    with pytest.raises(ImageError, match=r"2 DICOM series[\s\S]*1\.2\.3\.1:2"):
        read_volume(tmp_path)
    _read(tmp_path, series="1.2.3.1:1")
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.3.1:2").data, HU + 1000)


def test_a_scan_recorded_in_steps_is_one_scan(tmp_path):
    _read(series(tmp_path / "steps", AcquisitionNumber=(1, 1, 1, 2, 2, 2)))
    volume = _read(series(tmp_path / "passes", AcquisitionNumber=(1, 2, 1, 2, 1, 2), Modality="MR"))
    assert volume.notes == ()


# ------------------------------------------------------------------ enhanced objects


def test_enhanced_ct_one_frame_a_file(tmp_path):
    for k in range(SHAPE[2]):
        save(enhanced([k]), tmp_path / f"{k}.dcm")
    _read(tmp_path)


def test_enhanced_ct_all_frames_in_one_file_in_any_order(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    path = save(enhanced(order), tmp_path / "scan" / "all.dcm")
    _read(path.parent)
    _read(path)
    assert describe_image(path)["shape"] == list(SHAPE)


def test_frames_without_places_are_refused_with_the_reason(tmp_path):
    one = image(stored_values()[..., 0], NumberOfFrames=6)
    one.PixelData = one.PixelData * 6
    save(one, tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="the 6 frames do not say where"):
        read_volume(tmp_path)


# ------------------------------------------------------------------ speed


def test_two_thousand_slices_in_three_levels_are_listed_quickly(tmp_path):
    """Headers of the usual size, with private groups of a vendor; the pixels are never read."""
    template = image(np.zeros((64, 64), np.uint16), SeriesInstanceUID="1.2.3.1000")
    for number in range(60):
        template.add_new((0x0019, 0x1000 + number), "LO", "y" * 40)
    path = save(template, tmp_path / "template")
    content, uid = path.read_bytes(), template.SOPInstanceUID.encode()
    path.unlink()
    assert content.count(b"\\100 ") >= 1
    for patient in range(2):
        for study in range(2):
            for group in range(2):
                folder = tmp_path / f"P{patient}" / f"ST{study}" / f"SE{group}"
                folder.mkdir(parents=True)
                own = content.replace(b"1.2.3.1000", b"1.2.3.1%d%d%d" % (patient, study, group))
                for k in range(250):
                    one = own.replace(b"\\100 ", b"\\%03d " % k).replace(uid, uid[:-3] + b"%03d" % k)
                    (folder / f"IM{k}").write_bytes(one)
    told: list[float] = []
    start = time.process_time()
    description = describe_image(tmp_path, progress=lambda stage, fraction: told.append(fraction))
    seconds = time.process_time() - start
    assert len(description["details"]["series"]) == 8
    assert all("250 slices of 64 x 64" in line for line in description["details"]["series"])
    assert told == sorted(told)
    assert len(told) == 40
    assert seconds < 5
