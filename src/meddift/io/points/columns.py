"""Comma-separated tables whose header names the columns: ANTs, Slicer's control point table, and plain ones."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.io.points.content import (
    Frame,
    PointsFile,
    format_number,
    is_number,
    parse_coordinates,
    points_file,
    quote_csv,
)

FORMAT_ANTS = "ANTs points, .csv"
FORMAT_SLICER = "Slicer control point table"
FORMAT_PLAIN = "table with a header"


def parse(text: str, path: Path) -> PointsFile:
    """A table with a header.

    `x,y,z,t` is ANTs: LPS mm. `l,p,s` and `r,a,s` are Slicer's control point table, whose column `defined` says
    which points have a position. `x,y,z` alone does not say its frame. `label` names the points; other columns
    are kept as extra columns.

    Raises:
        PointsError: if the header names no coordinates or two sets of them, or a row does not fit the header.
    """
    records = read_records(text, path, delimiter="\t" if "\t" in text.lstrip().split("\n", 1)[0] else ",")
    header_line, header = next(records, (1, []))
    names = [name.strip().lower() for name in header]
    sets = [axes for axes in ("xyz", "lps", "ras") if set(axes) <= set(names)]
    if len(sets) != 1:
        what = "two sets of coordinates" if sets else "no coordinate columns (x,y,z or l,p,s or r,a,s)"
        numeric = sum(is_number(name) for name in names)
        hint = " Columns are separated by commas here." if ";" in ",".join(header) and not sets else ""
        hint = hint or (" Is the header line missing?" if numeric >= 3 else "")
        raise PointsError(f"{path}, line {header_line}: the header {','.join(header)!r} names {what}.{hint}")
    axes = sets[0]
    is_ants = axes == "xyz" and "t" in names
    frame: Frame | None = "ras" if axes == "ras" else "lps" if axes == "lps" or is_ants else None
    form = FORMAT_ANTS if is_ants else FORMAT_PLAIN if axes == "xyz" else FORMAT_SLICER
    skipped = {"t"} if is_ants else {"defined", "selected", "visible", "locked"} if axes != "xyz" else set()
    rows, labels, extra = table_rows(records, names, header, axes=axes, path=path)
    if axes != "xyz" and "defined" in names:
        defined = extra[header[names.index("defined")]]
        rows = [row if flag.strip() != "0" else (math.nan,) * 3 for row, flag in zip(rows, defined, strict=True)]
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


def read_records(
    text: str, path: Path, *, delimiter: str = ",", first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the number of the line in which it ends.

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
        if any(field.strip() for field in record):
            yield reader.line_num + first_line - 1, record


def table_rows(
    records: Iterator[tuple[int, list[str]]], names: Sequence[str], header: Sequence[str], *, axes: str, path: Path
) -> tuple[list[tuple[float, float, float]], list[str] | None, dict[str, list[str]]]:
    """Rows below a header: positions, labels (None where there is no such column), and the other columns.

    Three empty coordinates are a missing point.

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
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise PointsError(f"{path}: the header names the column {repeated[0]!r} twice")
    at = [names.index(axis) for axis in axes]
    at_label = names.index("label") if "label" in names else None
    others = [i for i, name in enumerate(names) if name and i not in at and i != at_label]
    rows: list[tuple[float, float, float]] = []
    labels: list[str] = []
    extra: dict[str, list[str]] = {header[i]: [] for i in others}
    for number, record in records:
        where = f"{path}, line {number}"
        # Spreadsheet programs pad short lines with empty columns.
        surplus = record[len(names) :]
        if len(record) < len(names) or any(surplus):
            raise PointsError(f"{where}: {len(record)} columns, but the header names {len(names)}")
        tokens = [record[i].strip() for i in at]
        rows.append(parse_coordinates(tokens, where) if any(tokens) else (math.nan, math.nan, math.nan))
        labels.append(record[at_label] if at_label is not None else "")
        for i in others:
            extra[header[i]].append(record[i])
    return rows, labels if at_label is not None else None, extra
