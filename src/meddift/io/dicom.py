"""DICOM series in folders. Headers are read by pydicom, compressed pixels by GDCM in SimpleITK.

The grid is built from where each slice says it lies (`dicom_grid`). A series whose slices do not lie on one
even grid is refused: a missing slice or a second time point would shift points. Slices of a tilted gantry are
resampled onto orthogonal axes, and a note says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, MeddiftError
from meddift.io.dicom_grid import SliceLayout, grid_of_slices
from meddift.io.dicom_grouping import DicomSeries
from meddift.io.dicom_pixels import read_values
from meddift.io.dicom_series import Progress, choose_series, left_out, read_folder
from meddift.io.header import ImageHeader, content_problems, geometry_problems
from meddift.system.text import one_line


def list_dicom_series(folder: Path | str, *, progress: Progress | None = None) -> list[DicomSeries]:
    """List the series of images in a folder and below it.

    Args:
        folder: The folder.
        progress: Called with a sentence and the share that is done.

    Returns:
        Series; 3D scans first, the one with most slices first.

    Raises:
        MissingFileError: if the folder does not exist.
        ImageError: if none of its DICOM files can be read.
    """
    return list(read_folder(Path(folder), progress=progress).series)


@np.errstate(all="ignore")  # numbers of damaged headers overflow; what is not finite is refused with a sentence
def read_dicom_header(
    path: Path, *, series: str | None, holding: Path | None = None, progress: Progress | None = None
) -> ImageHeader:
    """Read the headers of all slices of a series and build its grid.

    Args:
        path: The folder, or a file that holds all frames of a scan.
        series: UID, unique beginning of a UID, or description; needed where there are several series.
        holding: A file of the wanted series, which names it as well.
        progress: Called with a sentence and the share that is done.

    Returns:
        The header, with every problem found; `source` is a `SliceLayout`.

    Raises:
        ImageError: if there is no series, or several and none is chosen.
    """
    content = read_folder(path, progress=progress)
    chosen = choose_series(content, path, series, holding=holding)
    slices = chosen.slices
    columns, rows = chosen.size
    shape: tuple[int, ...] = (columns, rows, len(slices))
    name = f"the DICOM series {one_line(chosen.uid)} in {path}"
    dtype = np.result_type(*[item.pixels.scaled_dtype for item in slices])
    kind = next((item.kind for item in slices if item.kind != "scalar"), "scalar")
    odd = next((item for item in slices if item.problem), None)
    problems: list[MeddiftError] = content_problems(shape, kind, name)
    if odd is not None:
        problems.insert(0, ImageError(f"{name} cannot be used: of {odd.path.name}, {odd.problem}."))
    damage = content.damage_in(chosen)
    if damage is not None:
        problems.insert(0, damage)
    layout: SliceLayout | None = None
    if not problems:
        try:
            layout = grid_of_slices(slices, name)
        except MeddiftError as error:
            problems.append(error)
        else:
            shape = layout.grid.shape
            problems += geometry_problems(shape, layout.grid.affine, name)
    beside = left_out(content, chosen, asked=series is not None or holding is not None)
    notes = [f"{name}: {note}" for note in (layout.notes if layout else ())]
    notes += [f"{path}: {beside}"] if beside else []
    details: dict[str, Any] = {
        "series": chosen.uid,
        "description": chosen.description,
        "modality": chosen.modality,
        "number_of_slices": len(slices),
    }
    if layout is not None and layout.tilt_degrees:
        details["gantry_tilt_degrees"] = round(layout.tilt_degrees, 4)
    files = tuple(dict.fromkeys(item.path for item in (layout.slices if layout else slices)))
    affine = None if layout is None else layout.grid.affine
    return ImageHeader(
        path, "DICOM", shape, dtype, affine, kind, tuple(problems), details, tuple(notes), files=files, source=layout
    )


def read_dicom_voxels(header: ImageHeader) -> NDArray[Any]:
    """Read the slices that belong to a header without problems; rescale slope and intercept are applied.

    Returns:
        (X, Y, Z) array: whole numbers where all slices have such after rescaling (HU), else float32.

    Raises:
        ImageError: if a slice is damaged.
    """
    return read_values(header.source, header.dtype if header.dtype.kind in "iu" else np.dtype(np.float32))
