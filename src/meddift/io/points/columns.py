"""Comma-separated tables whose header names the columns: ANTs, Slicer's control point table, and plain ones."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.io.points.content import (
    Frame,
    PointsFile,
    format_number,
    has_decimal_comma,
    is_number,
    is_set,
    numbered_lines,
    parse_coordinates,
    points_file,
    quote_csv,
    rows_in_use,
    shown,
)

FORMAT_ANTS = "ANTs points, .csv"
FORMAT_SLICER = "Slicer control point table"
FORMAT_PLAIN = "table with a header"

#: Names of the column that holds labels, in any case; where there are several, the first of these.
_LABELS = ("label", "name", "lesion", "id")

#: Names of the column with Slicer's words for whether a point has been placed; `status` may mean something else.
_STATUS_COLUMNS = ("positionstatus", "position status", "position_status", "status")
_STATUS = {"defined": True, "undefined": False, "preview": False, "missing": False}

_MISSING = (math.nan, math.nan, math.nan)

#: What ANTs writes in place of every text.
_LOST = "nan"


def parse(text: str, path: Path) -> PointsFile:
    """A table with a header.

    `x,y,z,t` is ANTs: LPS mm. `l,p,s` and `r,a,s` are Slicer's control point table. `x,y,z` alone does not say its
    frame. `label`, `name`, `lesion` or `id`, in any case, names the points; `defined` says which of them have a
    position; other columns are kept as extra columns. A row without any content is a point without position.

    Raises:
        PointsError: if the header names no coordinates or two sets of them, or a row does not fit the header.
    """
    first = next((line for _, line in numbered_lines(text)), "")
    records = read_records(text, path, delimiter=delimiter_of(first))
    header_line, header = next(records, (1, []))
    names = [name.strip().lower() for name in header]
    sets = [axes for axes in ("xyz", "lps", "ras") if set(axes) <= set(names)]
    if len(sets) != 1:
        what = "two sets of coordinates" if sets else "no coordinate columns (x,y,z or l,p,s or r,a,s)"
        raise PointsError(
            f"{path}, line {header_line}: the header {shown(','.join(header))} names {what}.{_hint(header, sets)}"
        )
    axes = sets[0]
    is_ants = axes == "xyz" and "t" in names
    frame: Frame | None = "ras" if axes == "ras" else "lps" if axes == "lps" or is_ants else None
    form = FORMAT_ANTS if is_ants else FORMAT_PLAIN if axes == "xyz" else FORMAT_SLICER
    if is_ants:
        records = _three_dimensional(records, names, path)
    rows, labels, extra = table_rows(records, names, header, axes=axes, path=path)
    if is_ants:
        labels, extra = _without_lost_texts(labels, extra)
    skipped = {"t"} if is_ants else {"selected", "visible", "locked"} if axes != "xyz" else set()
    extra = {name: values for name, values in extra.items() if name.strip().lower() not in skipped}
    return points_file(form, frame, rows, labels=labels, extra=extra, path=path)


def write_ants(
    coordinates: NDArray[np.float64], labels: Sequence[str], extra: Mapping[str, Sequence[str]], *, path: Path
) -> str:
    """The text of a file that `antsApplyTransformsToPoints` takes: `x,y,z,t`, then label and extra columns.

    Args:
        coordinates: (N, 3) float64, LPS mm; missing points are written as nan.
        labels: N strings in one line each.
        extra: Columns by name, N strings each.
        path: The file, for messages.

    Raises:
        PointsError: if a label or value has a line break, at which ANTs would begin a new point.
    """
    for text in (*labels, *extra, *(value for values in extra.values() for value in values)):
        if "\n" in text or "\r" in text:
            raise PointsError(
                f"{path}: ANTs files cannot hold the line break in {text!r}; write .mrk.json or our .csv"
            )
    lines = [",".join(quote_csv(name) for name in ("x", "y", "z", "t", "label", *extra))]
    for index, (position, label) in enumerate(zip(coordinates, labels, strict=True)):
        numbers = [format_number(value) for value in position]
        texts = [quote_csv(text) for text in (label, *(values[index] for values in extra.values()))]
        lines.append(",".join([*numbers, "0", *texts]))
    return "\n".join(lines) + "\n"


def delimiter_of(header: str) -> str:
    """What separates the columns of a table, told from its header: tabulators or commas."""
    return "\t" if header.count("\t") > header.count(",") else ","


def read_records(
    text: str, path: Path, *, delimiter: str = ",", first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Records of all lines that are not empty, each with the number of the line in which it ends.

    Raises:
        PointsError: if the quoting is broken.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise PointsError(f"{path}, line {reader.line_num + first_line - 1}: {error}") from error
        if record is None:
            return
        # A record of nothing but empty fields is a row all the same, such as the one of a point that was deleted.
        if len(record) > 1 or any(field.strip() for field in record):
            yield reader.line_num + first_line - 1, record


def table_rows(
    records: Iterator[tuple[int, list[str]]], names: Sequence[str], header: Sequence[str], *, axes: str, path: Path
) -> tuple[list[tuple[float, float, float]], list[str] | None, dict[str, list[str]]]:
    """Rows below a header: positions, labels (None where there is no such column), and the other columns.

    Three empty coordinates are a missing point, and so is a row whose column `defined` says no, or whose position
    status is `undefined`, `preview` or `missing`.

    Args:
        records: What `read_records` still yields.
        names: Column names in lower case.
        header: Column names as they stand.
        axes: The names of the coordinate columns.
        path: The file, for messages.

    Raises:
        PointsError: if a name stands twice, a row has another number of columns than the header, or a coordinate
            is not a number.
    """
    repeated = sorted(name for name, times in Counter(names).items() if name and times > 1)
    if repeated:
        raise PointsError(f"{path}: the header names the column {shown(repeated[0])} twice")
    at = [names.index(axis) for axis in axes]
    at_label = next((names.index(name) for name in _LABELS if name in names), None)
    at_defined = names.index("defined") if "defined" in names else None
    others = [i for i, name in enumerate(names) if name and i not in (*at, at_label, at_defined)]
    rows: list[tuple[float, float, float]] = []
    blank: list[bool] = []
    labels: list[str] = []
    extra: dict[str, list[str]] = {header[i]: [] for i in others}
    for number, record in records:
        where = f"{path}, line {number}"
        # Spreadsheet programs pad short lines with empty columns.
        surplus = record[len(names) :]
        if len(record) < len(names) or any(surplus):
            hint = "; write decimals with a point, not a comma" if len(record) == len(names) + 3 else ""
            raise PointsError(f"{where}: {len(record)} columns, but the header names {len(names)}{hint}")
        tokens = [record[i].strip() for i in at]
        row = parse_coordinates(tokens, where) if any(tokens) else _MISSING
        if at_defined is not None and not is_set(record[at_defined], where, "defined"):
            row = _MISSING
        rows.append(row)
        blank.append(not any(field.strip() for field in record))
        labels.append(record[at_label] if at_label is not None else "")
        for i in others:
            extra[header[i]].append(record[i])
    count = rows_in_use(blank)
    extra = {name: values[:count] for name, values in extra.items()}
    for name in [name for name in extra if name.strip().lower() in _STATUS_COLUMNS]:
        placed = [_STATUS.get(value.strip().lower()) for value in extra[name]]
        if None not in placed:
            rows[:count] = [row if there else _MISSING for row, there in zip(rows, placed, strict=False)]
            del extra[name]
    return rows[:count], labels[:count] if at_label is not None else None, extra


def _hint(header: Sequence[str], sets: Sequence[str]) -> str:
    """What may have gone wrong with a header that names no coordinates."""
    if sets:
        return ""
    if any(has_decimal_comma(word) for field in header for word in field.split(";")) or (
        len(header) > 3 and all(is_number(word) for field in header for word in field.split())
    ):
        return " Write decimals with a point, not a comma."
    if ";" in ",".join(header):
        return " Columns are separated by commas here."
    return " Is the header line missing?" if sum(is_number(name) for name in header) >= 3 else ""


def _without_lost_texts(
    labels: list[str] | None, extra: dict[str, list[str]]
) -> tuple[list[str] | None, dict[str, list[str]]]:
    """Labels and columns without those of which ANTs has left nothing: it writes nan for every text."""

    def is_lost(values: list[str]) -> bool:
        return all(value.strip() == _LOST for value in values)

    kept = None if labels is None or is_lost(labels) else labels
    return kept, {name: values for name, values in extra.items() if not is_lost(values)}


def _three_dimensional(
    records: Iterator[tuple[int, list[str]]], names: Sequence[str], path: Path
) -> Iterator[tuple[int, list[str]]]:
    """Rows of an ANTs file, whose `t` is 0 for points of a 3D image.

    Where decimals were written with commas, the digits after them end up in other columns.
    """
    at_time, at = names.index("t"), [names.index(axis) for axis in "xyz"]
    for number, record in records:
        if len(record) > max(at_time, *at):
            time = record[at_time].strip()
            if time and not is_number(time):
                raise PointsError(f"{path}, line {number}: t must be a number, got {shown(time)}")
            whole = all(record[i].strip().lstrip("+-").isdecimal() for i in at)
            # antsApplyTransformsToPoints does not know quotes: a comma in a label makes one more column of nan.
            while len(record) > len(names) and record[-1].strip() == _LOST:
                record.pop()
            if time and float(time) != 0 and whole:
                raise PointsError(
                    f"{path}, line {number}: t is {time}, but points of a 3D image have t = 0. Were decimals written "
                    f"with commas? They need a point"
                )
        yield number, record
