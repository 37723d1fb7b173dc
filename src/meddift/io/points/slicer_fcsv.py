"""3D Slicer fiducials, `.fcsv`: the format before `.mrk.json`, still found everywhere."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import FrameError, PointsError
from meddift.io.points.content import (
    Frame,
    PointsFile,
    format_number,
    is_flag,
    is_number,
    numbered_lines,
    parse_coordinates,
    points_file,
    quote_csv,
    rows_in_use,
    shown,
)

FORMAT = "Slicer fiducials, .fcsv"

_COLUMNS = ["id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID"]
#: What Slicer 5 writes after them without naming it.
_MORE_COLUMNS = ["position status", "auto created"]
_COLUMNS_SLICER3 = ["label", "x", "y", "z", "sel", "vis"]

#: PositionStatus of vtkMRMLMarkupsNode: undefined, preview, defined, missing. Only the third has been placed.
_UNDEFINED, _DEFINED = 0, 2
_STATUS = {"0": False, "1": False, "2": True, "3": False}

#: Older Slicer wrote numbers: 0 for RAS and 1 for LPS.
_SYSTEMS: dict[str, Frame] = {"LPS": "lps", "RAS": "ras", "0": "ras", "1": "lps"}


def recognises(text: str) -> bool:
    """Whether the first line is that of a Slicer fiducials file, whatever the file is called."""
    return bool(re.match(r"\s*#\s*(Markups fiducial file version|Fiducial List file|columns\s*=)", text))


def parse(text: str, path: Path) -> PointsFile:
    """Points of Slicer 4 and 5 (14 or 16 columns, header) and of Slicer 3 (`label,x,y,z,sel,vis`, always RAS).

    Slicer 5 says in the 15th column whether a point has been placed; one that has not is missing, whatever its
    coordinates. Without a `CoordinateSystem` line, what Slicer 4 and later assume depends on the version that reads
    the file: such a file does not say its frame.

    Raises:
        PointsError: if a row has too few or too many columns, one of them does not hold what it should, as where
            decimals were written with commas, or a coordinate is not a number.
        FrameError: if the header names a frame other than LPS and RAS.
    """
    lines = numbered_lines(text)
    header: dict[str, str] = {}
    for _, line in lines:
        if line.startswith("#"):
            name, _, value = line[1:].partition("=")
            header.setdefault(name.strip().lower(), value.strip())
    columns = [name.strip() for name in header["columns"].split(",")] if header.get("columns") else None
    if "markups fiducial file version" in header or "coordinatesystem" in header or (columns and columns[0] == "id"):
        # Slicer ignores the names and reads by position; so a shortened list of names changes nothing.
        columns, frame = _COLUMNS, _frame(header.get("coordinatesystem"), path)
    else:
        columns, frame = _COLUMNS_SLICER3, "ras"

    first, at_label = columns.index("x"), columns.index("label")
    at_description = columns.index("desc") if "desc" in columns else None
    rows: list[tuple[float, float, float]] = []
    labels, descriptions, blank = [], [], []
    for number, line in lines:
        if line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        fields = _fields(line, where)
        if len(fields) < first + 3:
            raise PointsError(f"{where}: {len(fields)} columns, expected {','.join(columns)}")
        placed = _check_row(fields, columns, where)
        position = fields[first : first + 3]
        there = placed and any(value.strip() for value in position)
        rows.append(parse_coordinates(position, where) if there else (math.nan,) * 3)
        labels.append(fields[at_label] if len(fields) > at_label else "")
        descriptions.append(fields[at_description] if at_description and len(fields) > at_description else "")
        blank.append(not any(field.strip() for field in fields))
    count = rows_in_use(blank)
    extra = {"description": descriptions[:count]} if any(descriptions) else None
    return points_file(FORMAT, frame, rows[:count], labels=labels[:count], extra=extra, path=path)


def write(
    coordinates: NDArray[np.float64],
    labels: Sequence[str],
    descriptions: Sequence[str],
    *,
    frame: Frame,
    path: Path,
) -> str:
    """The text of a file that Slicer opens, with the status of each point as Slicer 5 writes it.

    Args:
        coordinates: (N, 3) float64 in `frame`, mm; a row of NaN becomes a point that has not been placed.
        labels: N strings in one line each.
        descriptions: N strings in one line each.
        frame: "lps" or "ras".
        path: The file, for messages.

    Raises:
        PointsError: if a label or a description has a line break, which the format cannot hold.
    """
    lines = [
        "# Markups fiducial file version = 5.6",
        f"# CoordinateSystem = {frame.upper()}",
        f"# columns = {','.join(_COLUMNS)}",
    ]
    for index, (position, label, description) in enumerate(zip(coordinates, labels, descriptions, strict=True)):
        if re.search(r"[\r\n]", label + description):
            raise PointsError(f"{path}: .fcsv cannot hold the line break in {shown(label)}; write .mrk.json or .csv")
        missing = bool(np.isnan(position).any())
        numbers = ",".join(format_number(0.0 if missing else value) for value in position)
        status = _UNDEFINED if missing else _DEFINED
        texts = f"{quote_csv(label)},{quote_csv(description)}"
        lines.append(f"{index + 1},{numbers},0,0,0,1,1,1,0,{texts},,{status},0")
    return "\n".join(lines) + "\n"


def _fields(line: str, where: str) -> list[str]:
    """The fields of a line, without what spreadsheet programs add on the right."""
    try:
        fields = next(csv.reader([line]))
    except csv.Error as error:
        raise PointsError(f"{where}: {error}") from error
    while len(fields) > len(_COLUMNS) + len(_MORE_COLUMNS) and not fields[-1].strip():
        fields.pop()
    return fields


def _check_row(fields: Sequence[str], columns: Sequence[str], where: str) -> bool:
    """Refuse a row whose columns have been shifted; whether its point has been placed."""
    most = len(columns) + (len(_MORE_COLUMNS) if columns is _COLUMNS else 0)
    shifted = "Were decimals written with commas? They need a point"
    if len(fields) > most:
        raise PointsError(f"{where}: {len(fields)} columns where there are at most {most}. {shifted}")
    if not any(field.strip() for field in fields):
        return False
    named = dict(zip([*columns, *_MORE_COLUMNS], fields, strict=False))
    for name in ("vis", "sel", "lock", "auto created"):
        if not is_flag(named.get(name, "")):
            raise PointsError(f"{where}: {name} is 1 or 0, got {shown(named[name])}. {shifted}")
    for name in ("ow", "ox", "oy", "oz"):
        value = named.get(name, "").strip()
        # Components of a unit quaternion.
        if value and not (is_number(value) and abs(float(value)) <= 1.001):
            raise PointsError(f"{where}: {name} is a number between -1 and 1, got {shown(value)}. {shifted}")
    status = named.get("position status", str(_DEFINED)).strip()
    if status not in _STATUS:
        raise PointsError(
            f"{where}: the 15th column is the status of the position, {', '.join(_STATUS)}; got {shown(status)}. "
            f"{shifted}"
        )
    return _STATUS[status]


def _frame(system: str | None, path: Path) -> Frame | None:
    """The frame that a `CoordinateSystem` line names."""
    if system is None:
        return None
    # A spreadsheet program pads comment lines with commas.
    name = system.strip(', "').upper()
    if name not in _SYSTEMS:
        raise FrameError(f"{path}: CoordinateSystem must be LPS, RAS, 0 (RAS) or 1 (LPS), got {shown(system)}")
    return _SYSTEMS[name]
