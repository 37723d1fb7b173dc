"""Time points of one patient: scans and lesions given by the user or in a table, in order of date."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from meddift.errors import MissingFileError, OptionsError
from meddift.points import Points
from meddift.volume import Volume

#: Columns of the table; scan and date are required.
COLUMNS = ("timepoint", "date", "scan", "lesions", "points", "lesion_table", "phase")


@dataclass(frozen=True, eq=False)
class TimePoint:
    """One scan of a patient, with the lesions that were found in it.

    Without `lesions`, `points` and `lesion_table`, lesions of other time points are only located in this scan.

    Attributes:
        name: Name in tables and file names: letters, digits, `-` and `_`.
        scan: The scan, or its path.
        date: Date of the scan; None if only the order is known.
        lesions: Label map (NIfTI, NRRD, MetaImage) or DICOM SEG: a path or a `Volume`.
        points: Lesions of which only the position is known: a landmark file, or points in world RAS mm.
        lesion_table: Path of a `lesions.tsv` written by meddift: lesions with known position and sizes.
        phase: Contrast phase in words, or "".
    """

    name: str
    scan: Path | Volume
    date: datetime | None = None
    lesions: Path | Volume | None = None
    points: Path | Points | None = None
    lesion_table: Path | None = None
    phase: str = ""

    @property
    def files(self) -> list[Path]:
        """All files that the time point names."""
        given = (self.scan, self.lesions, self.points, self.lesion_table)
        return [item for item in given if isinstance(item, Path)]

    @property
    def day(self) -> str:
        """Date as YYYY-MM-DD, with the time if one was given; "" if unknown."""
        if self.date is None:
            return ""
        return (
            self.date.isoformat(timespec="minutes")
            if (self.date.hour or self.date.minute)
            else f"{self.date:%Y-%m-%d}"
        )


def read_time_points(path: Path | str) -> list[TimePoint]:
    """Read a table of time points (CSV or TSV, UTF-8); paths in it are relative to the table.

    Columns: `timepoint,date,scan`, and any of `lesions,points,lesion_table,phase`. Dates: `2024-03-01`, `20240301` or
    `2024-03-01T14:30`.

    Returns:
        Time points, earliest first.

    Raises:
        MissingFileError: if the table does not exist.
        OptionsError: if it is malformed, or a date or name is missing or given twice.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"the table of time points {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionsError(f"{path} is not UTF-8 text; save the table as CSV in UTF-8") from error
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
    rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    header = [name.strip() for name in first.split(delimiter) if name.strip()]
    unknown = [name for name in header if name not in COLUMNS]
    if "scan" not in header or unknown:
        wrong = f"unknown column {', '.join(unknown)}" if unknown else "no column scan"
        raise OptionsError(f"{path}: {wrong}; the columns are {', '.join(COLUMNS)}")
    points = []
    for number, row in enumerate(rows, start=1):
        cells = {key.strip(): (value or "").strip() for key, value in row.items() if key is not None}
        if None in row:
            raise OptionsError(f"{path}, row {number} has more cells than the header")
        if not any(cells.values()):
            continue
        if not cells["scan"]:
            raise OptionsError(f"{path}, row {number} names no scan")
        files = {key: (path.parent / cells[key]) if cells.get(key) else None for key in COLUMNS[3:6]}
        points.append(
            TimePoint(
                name=cells.get("timepoint") or "",
                scan=path.parent / cells["scan"],
                date=parse_date(cells.get("date", ""), f"{path}, row {number}"),
                phase=cells.get("phase", ""),
                **files,
            )
        )
    return in_order(points, str(path), dates_needed=True)


def in_order(
    points: Sequence[TimePoint], where: str = "the time points", *, dates_needed: bool = False
) -> list[TimePoint]:
    """Sort time points by date, and check their names.

    Args:
        points: The time points; if none has a date they keep their order.
        where: Name of their source, for messages.
        dates_needed: Whether dates are required, as in a table.

    Raises:
        OptionsError: if there are fewer than two, a date is missing or given twice, or a name is given twice or cannot
            be part of a file name.
    """
    if len(points) < 2:
        raise OptionsError(f"{where}: lesions are followed through two scans or more, got {len(points)}")
    dated = [point for point in points if point.date is not None]
    if (dated and len(dated) < len(points)) or (dates_needed and len(dated) < len(points)):
        missing = next(number for number, point in enumerate(points, start=1) if point.date is None)
        raise OptionsError(
            f"{where}: time point {missing} has no date; the order is that of the dates, never that of names"
        )
    ordered = sorted(points, key=lambda point: point.date or datetime.min)
    for earlier, later in pairwise(ordered):
        if earlier.date is not None and earlier.date == later.date:
            raise OptionsError(
                f"{where}: two time points have the date {earlier.day}; give the time too (2024-03-01T14:30), or "
                "leave one of them out"
            )
    ordered = [replace(point, name=point.name or f"T{number}") for number, point in enumerate(ordered)]
    names = [point.name for point in ordered]
    for name in names:
        if names.count(name) > 1:
            raise OptionsError(f"{where}: the name {name} is given to two time points")
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
            raise OptionsError(f"{where}: {name!r} cannot be part of a file name; use letters, digits, - and _")
    return ordered


def parse_date(text: str, where: str = "") -> datetime | None:
    """Read a date, with or without a time of day.

    Args:
        text: `2024-03-01`, `20240301` or `2024-03-01T14:30`.
        where: Name of its source, for messages.

    Returns:
        The date; None for an empty text.

    Raises:
        OptionsError: if it is not a date.
    """
    text = text.strip()
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise OptionsError(
            f"{where + ': ' if where else ''}{text!r} is no date; write it as 2024-03-01 or 2024-03-01T14:30"
        ) from None
