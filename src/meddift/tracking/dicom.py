"""A follow-up as DICOM: one segmentation and one measurement report a study, with tracking identifiers."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from meddift.errors import OptionsError
from meddift.io.dicom_objects import Segment, write_report, write_segmentation
from meddift.tracking.outputs import relabelled
from meddift.tracking.result import FollowUp
from meddift.tracking.timepoints import TimePoint


def check_dicom(points: Sequence[TimePoint]) -> None:
    """Say before any work that DICOM objects cannot be written.

    Raises:
        OptionsError: if highdicom is not installed, or no scan is a DICOM series with a mask.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise OptionsError('DICOM objects need the extra "dicom": pip install "meddift[dicom]"')
    if not any(isinstance(p.scan, Path) and p.scan.is_dir() and p.lesions is not None for p in points):
        raise OptionsError("DICOM objects are written beside DICOM series with masks, and no scan here is one")


def write_dicom(found: FollowUp, folder: Path) -> list[Path]:
    """Write `TIMEPOINT_lesions.dcm` (SEG) and `TIMEPOINT_sizes.dcm` (SR) for every DICOM series with a mask.

    A lesion of which it is not sure which one it is has no tracking identifier: a new one would say that it is none
    of those known.

    Returns:
        The files.

    Raises:
        GeometryError: if a mask does not lie on the voxels of its series.
        OutputError: if something cannot be written.
    """
    written = []
    # The same patient has the same identifiers in every run, and another patient others.
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
        write_segmentation(mask, segments, series, seg)
        write_report(seg, segments, series, report, timepoint=point.name)
        written += [seg, report]
    return written
