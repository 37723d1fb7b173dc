"""DICOM segmentations and measurement reports, by highdicom: written beside a series, and segmentations read.

Slices of a mask are paired with the images of its series in the order of the grid, along the normal; highdicom
pairs them in the order given. Empty slices are stored too, so that every reader gets the mask back where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import GeometryError, ImageError, MissingFileError, OptionsError
from meddift.geometry import Grid, flip_affine_ras_lps
from meddift.io.images import read_header
from meddift.system.atomic import atomic_write
from meddift.volume import Volume

_EXTRA = 'DICOM objects need the extra "dicom": pip install "meddift[dicom]"'
#: SOP class of segmentations (PS3.6 annex A).
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class Segment:
    """One lesion of a segmentation or a report.

    Attributes:
        number: Its number in the mask.
        name: For people, such as "lesion 3".
        tracking: Text from which its tracking UID is made, the same for the same lesion in every study; None if it is
            not known which lesion it is, because a new UID would declare it a different one.
        organ: Finding site in words, or "".
        measurements: Name ("long", "short", "volume") -> value in mm or mm3.
    """

    number: int
    name: str
    tracking: str | None = None
    organ: str = ""
    measurements: tuple[tuple[str, float], ...] = ()


def write_segmentation(mask: Volume, segments: Sequence[Segment], series: Path, path: Path) -> None:
    """Write a label map as a DICOM segmentation of a series.

    Args:
        mask: (X, Y, Z) whole numbers, on the voxels of the series, in any order of axes.
        segments: One for each number above 0 that is to be written.
        series: Folder of the series.
        path: The file.

    Raises:
        OptionsError: if highdicom is not installed, or there is no segment.
        GeometryError: if the mask does not lie on the voxels of the series.
        OutputError: if it cannot be written.
    """
    hd = _highdicom()
    sources, grid = _sources(series)
    if not segments:
        raise OptionsError(f"cannot write {path}: there is no segment")
    data = _on_grid(mask, grid, str(path))
    frames = np.stack([data == segment.number for segment in segments], axis=-1).transpose(2, 1, 0, 3)
    described = [_described(hd, place, segment) for place, segment in enumerate(segments, start=1)]
    made = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(frames).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=900,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="meddift",
        manufacturer_model_name="meddift track",
        software_versions=_version(),
        device_serial_number="0",
        content_label="LESIONS",
        content_description="Lesions over time",
        omit_empty_frames=False,
    )
    with atomic_write(path) as temporary:
        made.save_as(temporary)


def write_report(segmentation: Path, segments: Sequence[Segment], series: Path, path: Path, *, timepoint: str) -> None:
    """Write the sizes of lesions as an imaging measurement report (TID 1500) of one study.

    Args:
        segmentation: As written by `write_segmentation` from the same segments.
        segments: In the same order.
        series: Folder of the series.
        path: The file.
        timepoint: Name of the time point.

    Raises:
        OptionsError: if highdicom is not installed.
        OutputError: if it cannot be written.
    """
    hd = _highdicom()
    import pydicom
    from pydicom.sr.codedict import codes

    sources, _ = _sources(series)
    stored = pydicom.dcmread(segmentation)
    units = {"long": codes.UCUM.Millimeter, "short": codes.UCUM.Millimeter, "volume": codes.UCUM.CubicMillimeter}
    groups = []
    for place, segment in enumerate(segments, start=1):
        groups.append(
            hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(
                    uid=tracking_uid(segment.tracking) if segment.tracking else None, identifier=segment.name
                ),
                referenced_segment=hd.sr.ReferencedSegment.from_segmentation(stored, place),
                time_point_context=hd.sr.TimePointContext(time_point=timepoint),
                finding_type=codes.SCT.Lesion,
                measurements=[
                    hd.sr.Measurement(name=_NAMES[name](codes, hd), value=round(value, 2), unit=units[name])
                    for name, value in segment.measurements
                ],
            )
        )
        if segment.tracking is None:
            _without_tracking_uid(groups[-1])
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=tracking_uid("observer"), name="meddift", manufacturer_name="meddift", model_name="meddift track"
        ),
    )
    procedures = {
        "CT": codes.LN.CTUnspecifiedBodyRegion,
        "MR": hd.sr.CodedConcept("25056-3", "LN", "MR unspecified body region"),
    }
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=procedures.get(sources[0].Modality, codes.SCT.ImagingProcedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=sources,
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=[*sources, stored],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=901,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="meddift",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    with atomic_write(path) as temporary:
        made.save_as(temporary)


def read_segmentation(path: Path, *, series: Path | None = None) -> Volume:
    """Read a DICOM segmentation as a label map: the number of each segment, 0 = none.

    Args:
        path: The file.
        series: Folder of the scan it shall belong to, to check that it does; None where the scan is no DICOM series.

    Returns:
        Volume of int16 over the slices that the segmentation has.

    Raises:
        OptionsError: if highdicom is not installed.
        ImageError: if it is no segmentation, or its segments overlap.
        GeometryError: if it belongs to another frame of reference than the series.
    """
    hd = _highdicom()
    try:
        stored = hd.seg.segread(path)
    except Exception as error:
        raise ImageError(f"{path} is no DICOM segmentation that can be read: {_first_line(error)}") from error
    if series is not None:
        sources, _ = _sources(series)
        wanted, got = getattr(sources[0], "FrameOfReferenceUID", ""), getattr(stored, "FrameOfReferenceUID", "")
        if wanted and got and wanted != got:
            raise GeometryError(
                f"{path} belongs to another frame of reference than the scan in {series}: it is of another series"
            )
    try:
        volume = stored.get_volume(combine_segments=True, allow_missing_positions=True)
    except Exception as error:
        raise ImageError(
            f"{path} cannot be read as one label map: {_first_line(error)}; segments must not overlap"
        ) from error
    shape = volume.spatial_shape
    grid = Grid((shape[0], shape[1], shape[2]), flip_affine_ras_lps(volume.affine))
    return Volume(np.asarray(volume.array).astype(np.int16), grid)


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(2048)
    return head[128:132] == b"DICM" and SEGMENTATION.encode() in head


def tracking_uid(name: str) -> str:
    """A UID that depends on the name only: that of a name-based UUID (PS3.5 B.2; RFC 4122, version 5)."""
    import uuid

    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'https://github.com/meddift/meddift/{name}').int}"


#: Codes of measurements: SNOMED CT.
_NAMES = {
    "long": lambda codes, hd: hd.sr.CodedConcept("103339001", "SCT", "Long axis"),
    "short": lambda codes, hd: hd.sr.CodedConcept("103340004", "SCT", "Short axis"),
    "volume": lambda codes, hd: codes.SCT.Volume,
}


def _described(hd: Any, place: int, segment: Segment) -> Any:
    from pydicom.sr.codedict import codes

    tracking = {}
    if segment.tracking is not None:
        tracking = {"tracking_id": segment.name, "tracking_uid": tracking_uid(segment.tracking)}
    return hd.seg.SegmentDescription(
        segment_number=place,
        segment_label=segment.name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        **tracking,
    )


def _without_tracking_uid(group: Any) -> None:
    """Remove the tracking UID that highdicom generates: it would declare this lesion different from all others."""
    items = group[0].ContentSequence
    for number in reversed(range(len(items))):
        # (112040, DCM): tracking unique identifier.
        if items[number].ConceptNameCodeSequence[0].CodeValue == "112040":
            del items[number]


def _sources(series: Path) -> tuple[list[Any], Grid]:
    """Images of a series without their pixels, in the order of the grid."""
    import pydicom

    if not series.is_dir():
        raise MissingFileError(f"{series} is no folder of a DICOM series")
    header = read_header(series)
    if header.problems:
        raise header.problems[0]
    if "gantry_tilt_degrees" in header.details:
        raise GeometryError(f"the series in {series} was tilted: a mask on straightened voxels is none of its slices")
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in header.files], header.grid


def _on_grid(mask: Volume, grid: Grid, name: str) -> Any:
    """The mask's voxels in the order of a grid."""
    turned = mask.reoriented(grid.orientation)
    if not turned.grid.same_as(grid, tolerance_mm=1e-2):
        raise GeometryError(f"cannot write {name}: the mask does not lie on the voxels of the series")
    return turned.data


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ImportError as error:
        raise OptionsError(_EXTRA) from error
    return highdicom


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("meddift")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
