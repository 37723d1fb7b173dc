"""`read_points`: which format a file is, which frame it is in, and its points in world RAS mm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meddift.errors import FrameError, MeddiftError, PointsError
from meddift.geometry import Grid, flip_ras_lps
from meddift.io.points import (
    columns,
    elastix,
    headerless,
    label_map,
    meddift_csv,
    slicer_fcsv,
    slicer_json,
)
from meddift.io.points.content import Frame, PointsFile, read_text
from meddift.io.points.frames import parse_space, settle_frame, to_world
from meddift.io.sniff import what_it_is
from meddift.io.text_header import shortened
from meddift.points import Points

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm


def read_points(
    path: Path | str,
    *,
    space: Frame | None = None,
    grid: Grid | None = None,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
) -> Points:
    """Read labelled points of any supported format.

    Slicer `.mrk.json` and `.fcsv`; elastix `.txt` and `.pts`; `outputpoints.txt` of transformix (there, the points
    in the *moving* image); ANTs `.csv`; Slicer control point tables; our own `.csv` and `.tsv`; three columns
    without header (Learn2Reg, DIR-Lab); and label maps of any image format, a point for each label. What the content
    says counts more than the suffix.

    Args:
        path: The file.
        space: The frame of a file that does not say it: "lps" or "ras" in mm, "voxel" indices counted from 0 or
            "voxel1" from 1. For a file that says it, None or the same.
        grid: The grid of the image that voxel indices were counted in.
        nifti_form: Of a label map; see `read_volume`.
        assume_geometry: Of a label map; see `read_volume`.

    Returns:
        Points in world RAS mm, with the further columns of the file; a point without position is NaN.

    Raises:
        MissingFileError: if there is no such file.
        PointsError: if the file is malformed; the message names the line.
        FrameError: if the frame is unknown or contradicted, or voxels come without a grid.
        OptionsError: if `space` is none of the four.
    """
    path = Path(path)
    wanted = parse_space(space)
    content = parse_points_file(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
    frame = settle_frame(content.frame, wanted, path)
    if content.frame is None and frame == "voxel1":
        _check_counted_from_one(content, path)
    return Points(to_world(content.coordinates, frame, grid, path), content.labels, content.extra)


def parse_points_file(
    path: Path | str, *, nifti_form: NiftiForm | None = None, assume_geometry: bool = False
) -> PointsFile:
    """What a points file holds, unconverted: format, frame, coordinates, labels and extra columns.

    Args:
        path: The file.
        nifti_form: Of a label map; see `read_volume`.
        assume_geometry: Of a label map; see `read_volume`.

    Raises:
        MissingFileError: if there is no such file.
        PointsError: if the file is malformed or of no known format.
        FrameError: if it names a frame that is not known.
    """
    path = Path(path)
    text = _text_or_labels(path, nifti_form, assume_geometry)
    if isinstance(text, PointsFile):
        return text
    name = path.name.lower()
    if text.lstrip()[0] in "{[" or name.endswith(".json"):
        return slicer_json.parse(text, path)
    if meddift_csv.recognises(text):
        return meddift_csv.parse(text, path)
    if slicer_fcsv.recognises(text) or name.endswith(".fcsv"):
        return slicer_fcsv.parse(text, path)
    if elastix.recognises_output(text):
        return elastix.parse_output(text, path)
    if elastix.recognises(text):
        return elastix.parse(text, path)
    if headerless.recognises(text):
        return headerless.parse(text, path)
    if name.endswith((".csv", ".tsv", ".txt", ".pts")):
        return columns.parse(text, path)
    raise PointsError(
        f"{path} is of no format known here. Points are read from Slicer .mrk.json and .fcsv, elastix .txt and .pts, "
        f"ANTs, Learn2Reg and meddift .csv, and DIR-Lab .txt"
    )


def describe_points(path: Path | str, *, space: Frame | None = None, grid: Grid | None = None) -> dict[str, Any]:
    """What `meddift info` tells about a points file; it needs neither `space` nor `grid`.

    Args:
        path: The file.
        space: As in `read_points`.
        grid: As in `read_points`; with it, points outside the image are counted.

    Returns:
        `path`, `format`, `frame` (None where neither file nor caller says it), `unit`, `count`, `missing`, `labels`,
        `columns` (names of extra columns), `bounds` (lowest and highest coordinate along each axis, in `frame` as
        stored; None where all points are missing), `bounds_ras_mm` (the same in world RAS mm; None where that
        cannot be told), `outside` (number of points outside `grid`) and `looks_like_flipped`; both None without grid.

    Raises:
        MissingFileError: if there is no such file.
        PointsError: if the file is malformed.
        FrameError: if `space` contradicts the file.
        OptionsError: if `space` is none of the four.
    """
    path = Path(path)
    wanted = parse_space(space)
    content = parse_points_file(path)
    frame = content.frame if content.frame is None and wanted is None else settle_frame(content.frame, wanted, path)
    present = content.coordinates[~np.isnan(content.coordinates).any(axis=1)]
    points = None
    if frame in ("ras", "lps") or (frame is not None and grid is not None):
        points = Points(to_world(content.coordinates, frame, grid, path), content.labels)
    outside = flipped = None
    if points is not None and grid is not None:
        outside = int((~grid.contains(points.positions) & ~points.missing).sum())
        flipped = looks_like_flipped(points, grid)
    world = None if points is None else points.positions[~points.missing]
    return {
        "path": str(path),
        "format": content.format,
        "frame": frame,
        "unit": None if frame is None else "mm" if frame in ("ras", "lps") else "voxel",
        "count": len(content.labels),
        "missing": len(content.labels) - len(present),
        "labels": list(content.labels),
        "columns": list(content.extra),
        "bounds": _bounds(present),
        "bounds_ras_mm": None if world is None else _bounds(world),
        "outside": outside,
        "looks_like_flipped": flipped,
    }


def looks_like_flipped(points: Points, grid: Grid) -> bool:
    """Whether points look like LPS taken for RAS or the reverse.

    True if more than 20 % of the points lie outside the field of view, and with x and y flipped at most a quarter as
    many do. Where the field of view is symmetric about x = y = 0, a mix-up cannot be seen this way.

    Args:
        points: World RAS mm; missing points do not count.
        grid: The image that they should lie in.
    """
    present = points.positions[~points.missing]
    if not len(present):
        return False
    outside = 1.0 - float(grid.contains(present).mean())
    outside_flipped = 1.0 - float(grid.contains(flip_ras_lps(present)).mean())
    return outside > 0.2 and outside_flipped <= outside / 4


def _text_or_labels(path: Path, nifti_form: NiftiForm | None, assume_geometry: bool) -> str | PointsFile:
    """The text of a points file, or what a label map holds; anything else is refused by its name.

    Raises:
        MissingFileError: if there is no such file.
        PointsError: if it is neither.
    """
    try:
        if path.exists():
            if _is_image(path):
                return label_map.parse(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
            found = what_it_is(path) if path.is_file() else None
            if found is not None:
                raise PointsError(f"{path} holds no points: it is {found}")
    except MeddiftError:
        raise
    except OSError as error:
        name = shortened(str(path))
        raise PointsError(f"cannot read the points file {name}: {error.strerror or error}") from error
    return read_text(path)


def _check_counted_from_one(content: PointsFile, path: Path) -> None:
    """Refuse indices below 1 in a file said to count from 1: it is the slip that shifts everything by one voxel."""
    low = content.coordinates < 0.5
    if low.any():
        row = int(low.any(axis=1).argmax())
        raise FrameError(
            f"{path}: point {content.labels[row]} has voxel indices {content.coordinates[row].tolist()}, but "
            f"counted from 1 the first voxel is 1. If the file counts from 0, its frame is voxel"
        )


def _bounds(coordinates: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[float]] | None:
    """Lowest and highest value along each axis; None where there are no points."""
    if not len(coordinates):
        return None
    return [coordinates.min(axis=0).tolist(), coordinates.max(axis=0).tolist()]


def _is_image(path: Path) -> bool:
    """Whether a file or folder is an image by its name, so that its labels can be read."""
    from meddift.io.images import IMAGE_SUFFIXES, suffix_of

    if path.is_dir():
        return any(child.is_file() for child in path.iterdir())
    return suffix_of(path, IMAGE_SUFFIXES) is not None
