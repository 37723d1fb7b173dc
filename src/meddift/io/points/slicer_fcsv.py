"""3D Slicer fiducials, `.fcsv`: the format before `.mrk.json`, still found everywhere."""

from __future__ import annotations

import csv
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
    numbered_lines,
    parse_coordinates,
    points_file,
    quote_csv,
)

FORMAT = "Slicer fiducials, .fcsv"

_COLUMNS = ["id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID"]
_COLUMNS_SLICER3 = ["label", "x", "y", "z", "sel", "vis"]

#: Older Slicer wrote numbers: 0 for RAS and 1 for LPS.
_SYSTEMS: dict[str, Frame] = {"LPS": "lps", "RAS": "ras", "0": "ras", "1": "lps"}


def recognises(text: str) -> bool:
    """Whether the first line is that of a Slicer fiducials file, whatever the file is called."""
    return bool(re.match(r"\s*#\s*(Markups fiducial file version|Fiducial List file|columns\s*=)", text))


def parse(text: str, path: Path) -> PointsFile:
    """Points of Slicer 4 and 5 (14 columns, header) and of Slicer 3 (`label,x,y,z,sel,vis`, always RAS).

    Without a `CoordinateSystem` line, what Slicer 4 and later assume depends on the version that reads the file:
    such a file does not say its frame.

    Raises:
        PointsError: if a row has too few columns or a coordinate is not a number.
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

    first = columns.index("x")
    at_label = columns.index("label")
    at_description = columns.index("desc") if "desc" in columns else None
    rows, labels, descriptions = [], [], []
    for number, line in lines:
        if line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        try:
            fields = next(csv.reader([line]))
        except csv.Error as error:
            raise PointsError(f"{where}: {error}") from error
        if len(fields) < first + 3:
            raise PointsError(f"{where}: {len(fields)} columns, expected {','.join(columns)}")
        rows.append(parse_coordinates(fields[first : first + 3], where))
        labels.append(fields[at_label] if len(fields) > at_label else "")
        descriptions.append(fields[at_description] if at_description and len(fields) > at_description else "")
    extra = {"description": descriptions} if any(descriptions) else None
    return points_file(FORMAT, frame, rows, labels=labels, extra=extra, path=path)


def write(
    coordinates: NDArray[np.float64],
    labels: Sequence[str],
    descriptions: Sequence[str],
    *,
    frame: Frame,
    path: Path,
) -> str:
    """The text of a file that Slicer opens.

    Args:
        coordinates: (N, 3) float64 in `frame`, mm, none missing.
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
            raise PointsError(f"{path}: .fcsv cannot hold the line break in {label!r}; write .mrk.json or .csv")
        numbers = ",".join(format_number(value) for value in position)
        lines.append(f"{index + 1},{numbers},0,0,0,1,1,1,0,{quote_csv(label)},{quote_csv(description)},")
    return "\n".join(lines) + "\n"


def _frame(system: str | None, path: Path) -> Frame | None:
    """The frame that a `CoordinateSystem` line names."""
    if system is None:
        return None
    # A spreadsheet program pads comment lines with commas.
    name = system.strip(', "').upper()
    if name not in _SYSTEMS:
        raise FrameError(f"{path}: CoordinateSystem must be LPS, RAS, 0 (RAS) or 1 (LPS), got {system!r}")
    return _SYSTEMS[name]
