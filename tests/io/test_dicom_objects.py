"""DICOM SEG and SR beside a drawn series: read back by highdicom and pydicom."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import CT, above, image, save

from meddift.errors import GeometryError, ImageError
from meddift.io import read_volume
from meddift.io.dicom_objects import (
    Segment,
    is_segmentation,
    read_segmentation,
    tracking_uid,
    write_report,
    write_segmentation,
)
from meddift.volume import Volume

hd = pytest.importorskip("highdicom")

SHAPE = (24, 20, 9)
PATIENT = {
    "PatientID": "P7", "PatientName": "Drawn^One", "PatientBirthDate": "", "PatientSex": "", "StudyID": "1",
    "StudyDate": "20240102", "StudyTime": "120000", "AccessionNumber": "", "ReferringPhysicianName": "",
    "StudyInstanceUID": "1.2.826.0.1.3680043.9.1", "SeriesInstanceUID": "1.2.826.0.1.3680043.9.2",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.9.3", "Manufacturer": "drawn", "SeriesNumber": 3,
    "PositionReferenceIndicator": "", "SOPClassUID": CT,
}  # fmt: skip


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Slices whose names run against their order in space."""
    values = np.random.default_rng(0).integers(900, 1100, SHAPE).astype(np.uint16)
    for k in range(SHAPE[2]):
        one = image(values[..., k], above(k), InstanceNumber=SHAPE[2] - k, **PATIENT)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.9.4.{k + 1}"
        save(one, tmp_path / "ct" / f"slice-{SHAPE[2] - k:02d}.dcm")
    return tmp_path / "ct"


@pytest.fixture
def mask(series: Path) -> Volume:
    scan = read_volume(series)
    data = np.zeros(scan.grid.shape, np.int16)
    data[3:8, 4:9, 2:4] = 3
    data[12:20, 10:16, 5:8] = 11
    return Volume(data, scan.grid)


SEGMENTS = (
    Segment(3, "lesion 3", "patient 3", measurements=(("long", 6.4), ("short", 5.1), ("volume", 90.0))),
    Segment(11, "lesion 11", None, measurements=(("long", 8.25), ("short", 7.0), ("volume", 259.2))),
)


def places(volume: Volume, label: int) -> np.ndarray:
    points = volume.grid.index_to_world(np.argwhere(volume.data == label))
    return points[np.lexsort(np.round(points, 3).T)]


@pytest.mark.parametrize("orientation", ["as it is", "RAS", "SPL"])
def test_every_voxel_comes_back_where_it_was(series: Path, mask: Volume, tmp_path: Path, orientation: str) -> None:
    path = tmp_path / "seg.dcm"
    given = mask if orientation == "as it is" else mask.reoriented(orientation)
    write_segmentation(given, SEGMENTS, series, path)
    assert is_segmentation(path)
    back = read_segmentation(path, series=series)
    # Segments are numbered from 1 in the order given.
    for place, segment in enumerate(SEGMENTS, start=1):
        np.testing.assert_allclose(places(back, place), places(mask, segment.number), atol=1e-3)
    # Empty slices are there too.
    stored = hd.seg.segread(path)
    assert stored.get_volume(segment_numbers=[1], combine_segments=True).spatial_shape[0] == SHAPE[2]


def test_voxels_lie_where_pydicom_alone_says(series: Path, mask: Volume, tmp_path: Path) -> None:
    """Without highdicom: frame by frame, from the position and orientation that each frame states."""
    path = tmp_path / "seg.dcm"
    write_segmentation(mask, SEGMENTS, series, path)
    stored = pydicom.dcmread(path)
    frames = stored.pixel_array.reshape(-1, stored.Rows, stored.Columns)
    shared = stored.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    found: dict[int, list[np.ndarray]] = {1: [], 2: []}
    for frame, groups in zip(frames, stored.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            lps = origin + orientation[:3] * column * spacing[1] + orientation[3:] * row * spacing[0]
            found[number].append(lps * [-1, -1, 1])
    for number, segment in enumerate(SEGMENTS, start=1):
        points = np.array(found[number])
        np.testing.assert_allclose(points[np.lexsort(np.round(points, 3).T)], places(mask, segment.number), atol=1e-3)


def test_a_lesion_has_the_same_tracking_identifier_in_every_study_and_an_unknown_one_has_none(
    series: Path, mask: Volume, tmp_path: Path
) -> None:
    uids = []
    for name in ("a.dcm", "b.dcm"):
        write_segmentation(mask, SEGMENTS, series, tmp_path / name)
        first, second = pydicom.dcmread(tmp_path / name).SegmentSequence
        assert first.TrackingID == "lesion 3"
        uids.append(first.TrackingUID)
        assert "TrackingUID" not in second
        assert "TrackingID" not in second
    assert uids[0] == uids[1] == tracking_uid("patient 3")
    assert tracking_uid("patient 4") != uids[0]


def test_sizes_are_in_the_report_with_units_and_segments(series: Path, mask: Volume, tmp_path: Path) -> None:
    seg, path = tmp_path / "seg.dcm", tmp_path / "sr.dcm"
    write_segmentation(mask, SEGMENTS, series, seg)
    write_report(seg, SEGMENTS, series, path, timepoint="T1")
    report = hd.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    for place, (group, segment) in enumerate(zip(groups, SEGMENTS, strict=True), start=1):
        assert group.tracking_identifier == segment.name
        told = {m.name.value: (m.value, m.unit.value) for m in group.get_measurements()}
        sizes = dict(segment.measurements)
        assert told == {
            "103339001": (sizes["long"], "mm"),
            "103340004": (sizes["short"], "mm"),
            "118565006": (sizes["volume"], "mm3"),
        }
        assert group.referenced_segment.referenced_segment_numbers[0] == place
        assert group.finding_type.value == "52988006"
    assert groups[0].tracking_uid == tracking_uid("patient 3")
    assert groups[1].tracking_uid is None
    # The time point stands as text in each group (TID 1502, concept 126070 of DCM).
    stored = pydicom.dcmread(path)
    texts: list[str] = []

    def walk(items: pydicom.Sequence) -> None:
        for item in items:
            if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeMeaning == "Time Point":
                texts.append(item.TextValue)
            walk(item.get("ContentSequence", []))

    walk(stored.ContentSequence)
    assert texts == ["T1", "T1"]


def test_dcmqi_reads_both(series: Path, mask: Volume, tmp_path: Path) -> None:
    """An implementation of its own, on DCMTK."""
    dcmqi = Path(pytest.importorskip("dcmqi").__file__).parent / "bin"
    seg, report = tmp_path / "seg.dcm", tmp_path / "sr.dcm"
    write_segmentation(mask, SEGMENTS, series, seg)
    write_report(seg, SEGMENTS, series, report, timepoint="T1")

    def call(tool: str, *arguments: str) -> None:
        subprocess.run([str(dcmqi / tool), *arguments], check=True, capture_output=True, timeout=120)

    call("segimage2itkimage", "--inputDICOM", str(seg), "--outputDirectory", str(tmp_path), "-t", "nrrd")
    for place, segment in enumerate(SEGMENTS, start=1):
        back = read_volume(tmp_path / f"{place}.nrrd", check=False)
        label = int(back.data.max())
        np.testing.assert_allclose(places(back, label), places(mask, segment.number), atol=1e-3)
    call("tid1500reader", "--inputDICOM", str(report), "--outputMetadata", str(tmp_path / "report.json"))
    groups = json.loads((tmp_path / "report.json").read_text())["Measurements"]
    told = [{m["quantity"]["CodeValue"]: float(m["value"]) for m in g["measurementItems"]} for g in groups]
    assert told == [{"103339001": 6.4, "103340004": 5.1, "118565006": 90.0},
                    {"103339001": 8.25, "103340004": 7.0, "118565006": 259.2}]  # fmt: skip
    assert [g["TrackingIdentifier"] for g in groups] == ["lesion 3", "lesion 11"]
    assert groups[0]["TrackingUniqueIdentifier"] == tracking_uid("patient 3")
    assert "TrackingUniqueIdentifier" not in groups[1]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not here (apt-get install dicom3tools)")
def test_both_are_what_the_standard_asks_for(series: Path, mask: Volume, tmp_path: Path) -> None:
    """By dciodvfy, which knows the modules and attributes of every kind of object."""
    seg, report = tmp_path / "seg.dcm", tmp_path / "sr.dcm"
    write_segmentation(mask, SEGMENTS, series, seg)
    write_report(seg, SEGMENTS, series, report, timepoint="T1")

    def said(path: Path) -> list[str]:
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
        return done.stderr.splitlines()

    assert said(seg) == ["Segmentation"]
    assert said(report) == ["Comprehensive3DSR"]
    # It does see what is missing: the drawn slices have only what their reader needs.
    assert any(line.startswith("Error") for line in said(next(series.iterdir())))


def test_a_mask_of_other_voxels_is_not_written(series: Path, mask: Volume, tmp_path: Path) -> None:
    other = Volume(mask.data, mask.grid.cropped((1, 0, 0), mask.grid.shape))
    with pytest.raises(GeometryError, match="does not lie on the voxels of the series"):
        write_segmentation(other, SEGMENTS, series, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_segmentation_of_another_series_is_refused(series: Path, mask: Volume, tmp_path: Path) -> None:
    write_segmentation(mask, SEGMENTS, series, tmp_path / "seg.dcm")
    for path in series.iterdir():
        one = pydicom.dcmread(path)
        one.FrameOfReferenceUID = "1.2.826.0.1.3680043.9.99"
        one.save_as(path)
    with pytest.raises(GeometryError, match="frame of reference"):
        read_segmentation(tmp_path / "seg.dcm", series=series)
    with pytest.raises(ImageError, match="no DICOM segmentation"):
        read_segmentation(next(series.iterdir()))


def test_a_follow_up_of_dicom_series_goes_in_and_out_as_dicom(series: Path, mask: Volume, tmp_path: Path) -> None:
    from meddift.tracking.dicom import check_dicom, dicom_writers
    from meddift.tracking.follow import follow
    from meddift.tracking.loading import read_lesions, read_scan
    from meddift.tracking.outputs import write_outputs
    from meddift.tracking.result import FollowUp, SeenTimePoint
    from meddift.tracking.timepoints import TimePoint

    write_segmentation(mask, SEGMENTS, series, tmp_path / "seg.dcm")
    points = [TimePoint(name, series, lesions=tmp_path / "seg.dcm") for name in ("T0", "T1")]
    check_dicom(points)
    scan = read_scan(points[0])
    lesions = read_lesions(points[0], scan, components=False, minimum_mm3=0.0)
    assert [item.label for item in lesions.items] == ["1", "2"]
    for item, segment in zip(lesions.items, SEGMENTS, strict=True):
        np.testing.assert_allclose(item.center, places(mask, segment.number).mean(axis=0), atol=1e-3)
        assert item.measures.volume_mm3 == pytest.approx((mask.data == segment.number).sum() * 0.9 * 0.8 * 2.5)

    class Still:
        def carry(self, source: int, target: int, lesions: list) -> list:
            from meddift.tracking.carried import Carried

            return [Carried(lesion.center, lesion.cloud, "ok") for lesion in lesions]

    course = follow([lesions, lesions], Still(), names=("T0", "T1"))
    seen = [SeenTimePoint(p.name, None, "", "", str(series), lesions, scan.grid, "0" * 64) for p in points]
    found = FollowUp("P7", tuple(seen), course)
    written = write_outputs(found, tmp_path, more=dicom_writers(found, tmp_path))[-4:]
    assert [path.name for path in written] == ["T0_lesions.dcm", "T0_sizes.dcm", "T1_lesions.dcm", "T1_sizes.dcm"]
    uids = [[s.TrackingUID for s in pydicom.dcmread(written[n]).SegmentSequence] for n in (0, 2)]
    assert uids[0] == uids[1]
    assert len(set(uids[0])) == 2
    np.testing.assert_allclose(places(read_segmentation(written[2]), 2), places(mask, 11), atol=1e-3)
