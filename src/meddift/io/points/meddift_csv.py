"""Our own table, `.csv`: the first line names version, frame and unit, then a header and one row a point.

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
from meddift.io.points.columns import read_records, table_rows
from meddift.io.points.content import Frame, PointsFile, format_number, points_file, quote_csv

FORMAT = "meddift points, .csv"
VERSION = 1

_NAMES: dict[Frame, str] = {"ras": "RAS", "lps": "LPS", "voxel": "voxel", "voxel1": "voxel1"}


def recognises(text: str) -> bool:
    """Whether the first line is that of our own format, even after a spreadsheet program has quoted it."""
    return bool(re.match(r'\s*"?#\s*meddift points\b', text))


def parse(text: str, path: Path) -> PointsFile:
    """A table of ours. Without `space=` in its first line it does not say its frame.

    Raises:
        PointsError: if it was written by a later version, the unit is not the frame's, or a row is malformed.
        FrameError: if the frame is none of RAS, LPS, voxel and voxel1.
    """
    first, rest, rest_line = _split_comments(text)
    fields = dict(part.strip().split("=", 1) for part in first.split(";") if "=" in part)
    values = {name.strip(): value.strip() for name, value in fields.items()}
    version = values.get("version", "1")
    if not (version.isascii() and version.isdecimal()):
        raise PointsError(f"{path}, line 1: the version must be a whole number, got {version!r}")
    if int(version) > VERSION:
        raise PointsError(f"{path}, line 1: written by a later meddift (version {version}); please update")
    frame = _frame(values.get("space"), path)
    unit = "voxel" if frame in ("voxel", "voxel1") else "mm"
    if frame is not None and values.get("unit", unit) != unit:
        raise PointsError(f"{path}, line 1: the unit of {_NAMES[frame]} is {unit}, got {values['unit']!r}")

    records = read_records(rest, path, first_line=rest_line)
    header_line, header = next(records, (rest_line, []))
    names = [name.strip().lower() for name in header]
    if not {"label", "x", "y", "z"} <= set(names):
        hint = " (separated by commas, not semicolons)" if ";" in ",".join(header) else ""
        raise PointsError(
            f"{path}, line {header_line}: the header must name label,x,y,z{hint}, got {','.join(header)!r}"
        )
    rows, labels, extra = table_rows(records, names, header, axes="xyz", path=path)
    return points_file(FORMAT, frame, rows, labels=labels, extra=extra, path=path)


def write(
    coordinates: NDArray[np.float64],
    labels: Sequence[str],
    extra: Mapping[str, Sequence[str]],
    *,
    frame: Frame,
) -> str:
    """The text of a table of ours.

    Args:
        coordinates: (N, 3) float64 in `frame`; missing points get empty coordinates.
        labels: N strings.
        extra: Further columns by name, N strings each.
        frame: Any of the four.
    """
    unit = "voxel" if frame in ("voxel", "voxel1") else "mm"
    lines = [
        f"# meddift points; version={VERSION}; space={_NAMES[frame]}; unit={unit}",
        ",".join(quote_csv(name) for name in ("label", "x", "y", "z", *extra)),
    ]
    for index, (position, label) in enumerate(zip(coordinates, labels, strict=True)):
        # A row of empty fields only is what spreadsheet programs leave behind, and readers skip it.
        missing = "" if label.strip() else "nan"
        numbers = [format_number(value, missing=missing) for value in position]
        texts = [quote_csv(values[index]) for values in extra.values()]
        lines.append(",".join([quote_csv(label), *numbers, *texts]))
    return "\n".join(lines) + "\n"


def _split_comments(text: str) -> tuple[str, str, int]:
    """The first line without its marks, the text after all leading comment lines, and the line it begins in."""
    first, line, rest = "", 1, text
    while re.match(r'[ \t]*"?#', rest) or (not first and not rest[:1].strip()):
        found = re.match(r"([^\r\n]*)(\r\n|\n|\r|$)", rest)
        comment = found.group(1).strip().strip(',"').strip() if found else ""
        first = first or comment
        rest = rest[found.end() :] if found else ""
        line += 1
        if not rest:
            break
    return first, rest, line


def _frame(space: str | None, path: Path) -> Frame | None:
    """The frame that the first line names."""
    if space is None:
        return None
    for frame, name in _NAMES.items():
        if space.lower() == name.lower():
            return frame
    raise FrameError(f"{path}, line 1: space must be one of {', '.join(_NAMES.values())}, got {space!r}")
