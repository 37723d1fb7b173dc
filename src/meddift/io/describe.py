"""Description of an image from its header, without reading its voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.errors import GeometryError
from meddift.io.dicom_series import SeveralSeriesError
from meddift.io.header import ImageHeader
from meddift.io.images import read_header

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm


def describe_image(
    path: Path | str,
    *,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
    series: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Describe an image by its header.

    Args:
        path: As for `read_volume`, and so are the options.
        nifti_form: "sform" or "qform".
        assume_geometry: Accept files that do not state where they lie in space.
        series: Which DICOM series.
        progress: Called with a sentence and the share that is done, while headers of a DICOM folder are read.

    Returns:
        Entries ready for JSON: `path`, `format`, `bytes` (on disk), `shape`, `dtype`, `kind`,
        `spacing_mm`, `origin_ras_mm` (centre of the first voxel), `center_ras_mm`, `extent_mm` (outer voxel faces),
        `orientation`, `obliqueness_degrees`, `affine_ras` (rows), `details` (codes and descriptions of the format),
        `notes` (sentences: what reading changes or leaves out), `problems` (sentences: why `read_volume` would refuse
        it), `readable`. What cannot be told is None. For a folder with several DICOM series and none chosen,
        `details["series"]` lists them.

    Raises:
        MissingFileError: if there is nothing at `path`.
        ImageError: if it is no image of a known format.
    """
    path = Path(path)
    try:
        header = read_header(
            path, nifti_form=nifti_form, assume_geometry=assume_geometry, series=series, progress=progress
        )
    except SeveralSeriesError as error:
        listing = [str(one) for one in error.series]
        size = sum(file.stat().st_size for one in error.series for file in one.files)
        return _entries(path, "DICOM", size, problems=[str(error)], details={"series": listing})
    details = dict(header.details)
    files = header.files or (header.path,)
    if header.file_format == "DICOM":
        details["number_of_files"] = len(files)
    return _entries(
        path,
        header.file_format,
        sum(file.stat().st_size for file in files if file.is_file()),
        problems=[str(problem) for problem in header.problems],
        details=details,
        header=header,
    )


def _entries(
    path: Path,
    file_format: str,
    size: int,
    *,
    problems: list[str],
    details: dict[str, Any],
    header: ImageHeader | None = None,
) -> dict[str, Any]:
    """All entries in their order; None for what cannot be told."""
    entries: dict[str, Any] = {
        "path": str(path),
        "format": file_format,
        "bytes": size,
        "shape": None if header is None else list(header.shape),
        "dtype": None if header is None else str(header.dtype),
        "kind": None if header is None else header.kind,
        **dict.fromkeys(
            ("spacing_mm", "origin_ras_mm", "center_ras_mm", "extent_mm", "orientation", "obliqueness_degrees")
        ),
        "affine_ras": None,
        "details": details,
        "notes": [] if header is None else list(header.notes),
        "problems": problems,
        "readable": not problems,
    }
    if header is None or header.affine is None or len(header.shape) != 3:
        return entries
    try:
        grid = header.grid
    except GeometryError:
        return entries  # said among the problems already
    entries.update(
        spacing_mm=[round(value, 6) for value in grid.spacing.tolist()],
        origin_ras_mm=[round(value, 4) for value in grid.origin.tolist()],
        center_ras_mm=[round(value, 4) for value in grid.center.tolist()],
        extent_mm=[round(value, 4) for value in grid.extent.tolist()],
        orientation=grid.orientation,
        obliqueness_degrees=round(grid.obliqueness_degrees, 3),
        affine_ras=grid.affine.tolist(),
    )
    return entries
