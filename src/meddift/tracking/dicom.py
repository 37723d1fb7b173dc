"""A follow-up as DICOM: for each study a segmentation and a measurement report with tracking identifiers."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meddift.errors import OptionsError
from meddift.io.dicom_objects import Segment, write_report, write_segmentation
from meddift.tracking.outputs import relabelled
from meddift.tracking.result import FollowUp
from meddift.tracking.timepoints import TimePoint
from meddift.volume import Volume


def check_dicom(points: Sequence[TimePoint]) -> None:
    """Check before any other work that DICOM objects can be written.

    Raises:
        OptionsError: if highdicom is not installed, or no scan is a DICOM series with a mask.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise OptionsError('DICOM objects need the extra "dicom": pip install "meddift[dicom]"')
    if not any(isinstance(p.scan, Path) and p.scan.is_dir() and p.lesions is not None for p in points):
        raise OptionsError("DICOM objects are written beside DICOM series with masks, and no scan here is one")


def dicom_writers(found: FollowUp, folder: Path) -> dict[Path, Callable[[Path], None]]:
    """Prepare writing `TIMEPOINT_lesions.dcm` (SEG) and `TIMEPOINT_sizes.dcm` (SR) for each DICOM series with a mask.

    A lesion of uncertain identity has no tracking identifier, since a new one would declare it a new lesion.

    Args:
        found: The follow-up.
        folder: Folder of the files.

    Returns:
        Path -> function that writes this file; the segmentation of a time point comes before its report, which refers
        to it. The functions raise GeometryError if a mask does not lie on the voxels of its series.
    """
    writers: dict[Path, Callable[[Path], None]] = {}
    # Identifiers are the same in every run for one patient, and differ between patients.
    patient = hashlib.sha256(f"{found.subject} {found.time_points[0].digest}".encode()).hexdigest()
    for k, point in enumerate(found.time_points):
        mask, series = relabelled(found, k), Path(point.scan)
        segments = []
        for row in found.at(k):
            sizes = found.sizes(row)
            if not row.carries_sizes or sizes is None or sizes.measured != "mask":
                continue
            segments.append(
                Segment(
                    number=int(row.lesion),
                    name=f"lesion {row.lesion}",
                    tracking=None if row.state == "uncertain" else f"{patient} {row.lesion}",
                    organ=found.kinds.get(row.lesion, ("", ""))[1],
                    measurements=(
                        ("long", sizes.long_mm),
                        ("short", sizes.short_mm),
                        ("volume", sizes.volume_mm3),
                    ),
                )
            )
        if mask is None or not series.is_dir() or not segments:
            continue
        seg, report = folder / f"{point.name}_lesions.dcm", folder / f"{point.name}_sizes.dcm"
        one = _Objects(mask, tuple(segments), series, point.name)
        writers |= {seg: one.write_segmentation, report: one.write_report}
    return writers


@dataclass
class _Objects:
    """The two objects of one time point; the report is made from the segmentation as it was written."""

    mask: Volume
    segments: tuple[Segment, ...]
    series: Path
    name: str
    written: Path = Path()

    def write_segmentation(self, place: Path) -> None:
        write_segmentation(self.mask, self.segments, self.series, place)
        self.written = place

    def write_report(self, place: Path) -> None:
        write_report(self.written, self.segments, self.series, place, timepoint=self.name)
