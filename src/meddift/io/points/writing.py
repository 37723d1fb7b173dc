"""`write_points`: points in world RAS mm written in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import FrameError, OptionsError, PointsError
from meddift.geometry import Grid
from meddift.io.points import columns, elastix, headerless, meddift_csv, slicer_fcsv, slicer_json
from meddift.io.points.content import Frame, format_value
from meddift.io.points.frames import from_world, parse_space
from meddift.points import Points
from meddift.system.atomic import json_text, write_text

#: Formats that can be written.
PointsFormat = Literal["slicer", "fcsv", "elastix", "ants", "learn2reg", "dirlab", "meddift"]

_BY_SUFFIX: dict[str, PointsFormat] = {
    ".json": "slicer",
    ".fcsv": "fcsv",
    ".txt": "elastix",
    ".pts": "elastix",
    ".csv": "meddift",
    ".tsv": "meddift",
}

#: Formats that hold coordinates and nothing else.
_BARE: tuple[PointsFormat, ...] = ("elastix", "learn2reg", "dirlab")
#: Formats that cannot say that a point has no position.
_COMPLETE: tuple[PointsFormat, ...] = ("elastix", "dirlab")
#: Reserved column names, which extra columns cannot have.
_TAKEN = {"label", "x", "y", "z", "t", "defined"}

#: Frames that each format can hold; the first is written unless another is asked for.
_FRAMES: dict[PointsFormat, tuple[Frame, ...]] = {
    "slicer": ("lps", "ras"),
    "fcsv": ("lps", "ras"),
    "elastix": ("lps",),
    "ants": ("lps",),
    "learn2reg": ("voxel",),
    "dirlab": ("voxel1",),
    "meddift": ("ras", "lps", "voxel", "voxel1"),
}


def write_points(
    points: Points,
    path: Path | str,
    *,
    grid: Grid | None = None,
    space: Frame | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
    format: PointsFormat | None = None,
) -> None:
    """Write labelled points; the suffix decides the format unless `format` names it.

    | suffix | format | frame | labels | missing points | extra columns |
    |---|---|---|---|---|---|
    | `.mrk.json`, `.json` | slicer | LPS, or RAS by `space` | yes | yes | in the description |
    | `.fcsv` | fcsv | LPS, or RAS by `space` | yes | yes | in the description |
    | `.csv`, `.tsv` | meddift | RAS, or any by `space` | yes | yes | yes |
    | `.csv`, `format="ants"` | ants | LPS | yes | `nan` | yes |
    | `.csv`, `format="learn2reg"` | learn2reg | voxels from 0 | no | `nan` | error |
    | `.txt`, `.pts` | elastix | LPS, keyword `point` | no | error | error |
    | `.txt`, `format="dirlab"` | dirlab | voxels from 1, **rounded to whole voxels** | no | error | error |

    Coordinates have up to 9 decimals, with a point whatever the locale. The columns of the points themselves are
    written where the format has room for them; `what_is_lost` says where it has not.

    Args:
        points: World RAS mm.
        path: The file; its folder must exist. It is replaced at the end, or not at all.
        grid: The image in which voxel indices are counted; needed for frames in voxels.
        space: The frame to write, where the format leaves a choice.
        extra: Further columns by name, one value a point: numbers, strings, booleans or None.
        format: The format, where the suffix does not say it.

    Raises:
        PointsError: if the format cannot hold missing points, extra columns or these labels, or the columns do not
            fit the points; nothing is written then.
        FrameError: if the format cannot hold `space`, or voxels are asked for without a grid.
        OptionsError: if the format or `space` is unknown.
        OutputError: if the file cannot be written.
    """
    write_text(format_points(points, path, grid=grid, space=space, extra=extra, format=format), path)


def format_points(
    points: Points,
    path: Path | str,
    *,
    grid: Grid | None = None,
    space: Frame | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
    format: PointsFormat | None = None,
) -> str:
    """What `write_points` would write, as text; arguments and errors are the same, but nothing is written.

    Returns:
        The whole content of the file.
    """
    path = Path(path)
    chosen = points_format(path, format)
    frame = _frame(chosen, parse_space(space), path)
    texts = {**_carried(points, chosen, extra or {}), **_checked_extra(points, extra or {}, path)}
    _check_text([*points.labels, *texts, *(value for values in texts.values() for value in values)], path)
    if not len(points):
        raise PointsError(f"there are no points to write to {path}")
    if points.missing.any() and chosen in _COMPLETE:
        names = [label for label, missing in zip(points.labels, points.missing, strict=True) if missing]
        raise PointsError(
            f"{path}: the {chosen} format cannot say that a point has no position, and {len(names)} have none "
            f"({', '.join(names[:10])}{', ...' if len(names) > 10 else ''}); write .mrk.json, .fcsv or .csv"
        )
    if texts and chosen in _BARE:
        raise PointsError(f"{path}: the {chosen} format cannot hold {', '.join(texts)}; write .csv")

    coordinates = from_world(points.positions, frame, grid, path)
    match chosen:
        case "slicer":
            text = json_text(slicer_json.write(coordinates, points.labels, _descriptions(points, texts), frame=frame))
        case "fcsv":
            descriptions = _descriptions(points, texts)
            text = slicer_fcsv.write(coordinates, points.labels, descriptions, frame=frame, path=path)
        case "elastix":
            text = elastix.write(coordinates)
        case "ants":
            text = columns.write_ants(coordinates, points.labels, texts, path=path)
        case "learn2reg":
            text = headerless.write_learn2reg(coordinates)
        case "dirlab":
            _check_inside(points, coordinates, grid, path)
            text = headerless.write_dirlab(coordinates)
        case "meddift":
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            text = meddift_csv.write(coordinates, points.labels, texts, frame=frame, delimiter=delimiter)
    return text


def what_is_lost(points: Points, path: Path | str, format: PointsFormat | None = None) -> list[str]:
    """What a format has no room for, in words: nothing, or "labels" and "columns a, b".

    Args:
        points: What would be written.
        path: The file; the suffix decides the format unless `format` names it.
        format: The format.

    Raises:
        OptionsError: if the format is unknown.
    """
    if points_format(Path(path), format) not in _BARE:
        return []
    numbered = points.labels == tuple(str(i + 1) for i in range(len(points)))
    columns = [f"columns {', '.join(points.columns)}"] if points.columns else []
    return ([] if numbered else ["labels"]) + columns


def points_format(path: Path, wanted: PointsFormat | None) -> PointsFormat:
    """The format of a points file, by name or else by suffix.

    Raises:
        OptionsError: if the name is unknown, or the suffix says nothing, or that it is an image.
    """
    if wanted is not None:
        if wanted not in _FRAMES:
            raise OptionsError(f"the format of points is one of {', '.join(_FRAMES)}; got {wanted!r}")
        from meddift.io.images import IMAGE_SUFFIXES, suffix_of

        if suffix_of(path, IMAGE_SUFFIXES) is not None:  # a scan that stands there would be lost
            raise OptionsError(f"{path.name!r} is the name of an image, and points would be written to it")
        return wanted
    suffix = path.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise OptionsError(
            f"cannot tell the format of points from the name {path.name!r}: end it with .mrk.json (3D Slicer), .csv, "
            f".fcsv or .txt (elastix), or name the format"
        )
    return _BY_SUFFIX[suffix]


def _frame(chosen: PointsFormat, wanted: Frame | None, path: Path) -> Frame:
    """The frame to write."""
    possible = _FRAMES[chosen]
    if wanted is not None and wanted not in possible:
        raise FrameError(f"{path}: the {chosen} format holds {' or '.join(possible)} coordinates, not {wanted}")
    return wanted or possible[0]


def _checked_extra(points: Points, extra: Mapping[str, Sequence[Any]], path: Path) -> dict[str, list[str]]:
    """Extra columns as text, one value a point."""
    texts: dict[str, list[str]] = {}
    taken = set(_TAKEN)
    for name, values in extra.items():
        if not name.strip() or name.strip().lower() in taken:
            raise PointsError(f"{path}: an extra column needs a name of its own, got {name!r}")
        if len(values) != len(points):
            raise PointsError(f"{path}: the column {name!r} has {len(values)} values for {len(points)} points")
        taken.add(name.strip().lower())
        texts[name] = [format_value(value) for value in values]
    return texts


def _carried(points: Points, chosen: PointsFormat, extra: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[str]]:
    """The columns that the points bring along, as far as the format has room and nothing newer has their name."""
    if chosen in _BARE:
        return {}
    newer = {"", *_TAKEN, *(name.strip().lower() for name in extra)}
    return {name: values for name, values in points.columns.items() if name.strip().lower() not in newer}


def _check_text(texts: Sequence[str], path: Path) -> None:
    """Refuse null characters and lone surrogates, which no reader would get back."""
    for text in texts:
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise PointsError(f"{path}: {text!r} cannot be written as text; change this label or value")


def _check_inside(points: Points, coordinates: NDArray[np.float64], grid: Grid | None, path: Path) -> None:
    """DIR-Lab names voxels; a point outside the image has none."""
    shape = np.asarray(grid.shape if grid is not None else (0, 0, 0))
    whole = np.floor(coordinates + 0.5)
    inside = [bool(row.all()) for row in (whole >= 1) & (whole <= shape)]
    if not all(inside):
        names = [label for label, is_inside in zip(points.labels, inside, strict=True) if not is_inside]
        raise PointsError(f"{path}: DIR-Lab files name voxels, and {', '.join(names[:10])} lie outside the image")


def _descriptions(points: Points, texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Extra columns as one line a point, for Slicer's column of descriptions."""
    if list(texts) == ["description"]:
        return list(texts["description"])
    return [
        "; ".join(f"{name}={values[i]}" for name, values in texts.items() if values[i]) for i in range(len(points))
    ]
