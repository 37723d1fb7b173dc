"""meddift's own table, `.csv` or `.tsv`: a line with version, frame and unit, a header, one row a point.

    # meddift points; version=1; space=RAS; unit=mm
    label,x,y,z,similarity
    "nodule, left",-41.25,12.5,103,0.93
    carina,,,,

A point without coordinates is missing: it has a label but no position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import FrameError, PointsError
from meddift.io.points.columns import delimiter_of, read_records, table_rows
from meddift.io.points.content import (
    Frame,
    PointsFile,
    format_number,
    numbered_lines,
    points_file,
    quote_csv,
    shown,
)

FORMAT = "meddift points, .csv"
VERSION = 1

_LINE = re.compile(r"([^\r\n]*)(\r\n|\n|\r|$)")
_COMMENT = re.compile(r'[ \t]*"?#')

_NAMES: dict[Frame, str] = {"ras": "RAS", "lps": "LPS", "voxel": "voxel", "voxel1": "voxel1"}


def recognises(text: str) -> bool:
    """Whether the first line is that of our own format, even after a spreadsheet program has quoted it."""
    return bool(re.match(r'\s*"?#\s*meddift points\b', text))


def parse(text: str, path: Path) -> PointsFile:
    """Parse a table of meddift. Without `space=` in its first line it does not say its frame.

    Raises:
        PointsError: if it was written by a later version, the unit is not the frame's, or a row is malformed.
        FrameError: if the frame is none of RAS, LPS, voxel and voxel1.
    """
    first, rest, rest_line = _split_comments(text)
    fields = dict(part.strip().split("=", 1) for part in first.split(";") if "=" in part)
    values = {name.strip(): value.strip() for name, value in fields.items()}
    version = values.get("version", "1")
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise PointsError(f"{path}, line 1: the version must be a whole number, got {shown(version)}")
    if int(version) > VERSION:
        raise PointsError(f"{path}, line 1: written by a later meddift (version {version}); please update")
    frame = _frame(values.get("space"), path)
    unit = "voxel" if frame in ("voxel", "voxel1") else "mm"
    if frame is not None and values.get("unit", unit) != unit:
        raise PointsError(f"{path}, line 1: the unit of {_NAMES[frame]} is {unit}, got {shown(values['unit'])}")

    table_begin = next((line for _, line in numbered_lines(rest)), "")
    records = read_records(rest, path, delimiter=delimiter_of(table_begin), first_line=rest_line)
    header_line, header = next(records, (rest_line, []))
    names = [name.strip().lower() for name in header]
    if not {"label", "x", "y", "z"} <= set(names):
        hint = " (separated by commas, not semicolons)" if ";" in ",".join(header) else ""
        raise PointsError(
            f"{path}, line {header_line}: the header must name label,x,y,z{hint}, got {shown(','.join(header))}"
        )
    rows, labels, extra = table_rows(records, names, header, axes="xyz", path=path)
    return points_file(FORMAT, frame, rows, labels=labels, extra=extra, path=path)


def write(
    coordinates: NDArray[np.float64],
    labels: Sequence[str],
    extra: Mapping[str, Sequence[str]],
    *,
    frame: Frame,
    delimiter: str = ",",
) -> str:
    """The text of a table of meddift.

    Args:
        coordinates: (N, 3) float64 in `frame`; missing points get empty coordinates.
        labels: N strings.
        extra: Further columns by name, N strings each.
        frame: Any of the four.
        delimiter: What separates columns: a comma or a tabulator.
    """
    unit = "voxel" if frame in ("voxel", "voxel1") else "mm"
    lines = [
        f"# meddift points; version={VERSION}; space={_NAMES[frame]}; unit={unit}",
        delimiter.join(quote_csv(name) for name in ("label", "x", "y", "z", *extra)),
    ]
    for index, (position, label) in enumerate(zip(coordinates, labels, strict=True)):
        # A row of empty fields only is what spreadsheet programs leave behind, and readers skip it.
        missing = "" if label.strip() else "nan"
        numbers = [format_number(value, missing=missing) for value in position]
        texts = [quote_csv(values[index]) for values in extra.values()]
        lines.append(delimiter.join([quote_csv(label), *numbers, *texts]))
    return "\n".join(lines) + "\n"


def _split_comments(text: str) -> tuple[str, str, int]:
    """The first line without its marks, the text after all leading comment lines, and the line it begins in."""
    first, line, at = "", 1, 0
    while at < len(text):
        found = _LINE.match(text, at)
        content = found.group(1) if found else ""
        if not _COMMENT.match(content) and (first or content.strip()):
            break
        first = first or content.strip().strip(',"').strip()
        at = found.end() if found else len(text)
        line += 1
    return first, text[at:], line


def _frame(space: str | None, path: Path) -> Frame | None:
    """The frame that the first line names."""
    if space is None:
        return None
    for frame, name in _NAMES.items():
        if space.lower() == name.lower():
            return frame
    raise FrameError(f"{path}, line 1: space must be one of {', '.join(_NAMES.values())}, got {shown(space)}")
