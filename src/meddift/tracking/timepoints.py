"""Time points of one patient: what was given for each, read from a table or from lists, in order of date."""

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

#: Columns of the table; scan is needed, and date for more than one row.
COLUMNS = ("timepoint", "date", "scan", "lesions", "points", "lesion_table", "phase")


@dataclass(frozen=True, eq=False)
class TimePoint:
    """One scan of the patient, and the lesions that someone found in it.

    Attributes:
        name: For tables and file names: letters, digits, `-` and `_`.
        scan: Path of the scan, or the scan.
        date: When it was made; None where only the order is known.
        lesions: Label map (NIfTI, NRRD, MetaImage) or DICOM SEG, as a path or a Volume.
        points: Landmark file, or points in world RAS mm: lesions of which only the place is known.
        lesion_table: A table of ours: lesions of which place and sizes are known.
        phase: Contrast phase, in words.

    With none of `lesions`, `points` and `lesion_table` lesions of other time points are only located in this scan.
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
        """Every file that it names."""
        given = (self.scan, self.lesions, self.points, self.lesion_table)
        return [item for item in given if isinstance(item, Path)]

    @property
    def day(self) -> str:
        """Date as YYYY-MM-DD, with the time where one was given; "" where it is not known."""
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
        MissingFileError: if the table is not there.
        OptionsError: if it is malformed, a date is missing or given twice, or a name is.
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
    """Time points by date, each with a name.

    Args:
        points: As given; without any date they stay in this order.
        where: For messages.
        dates_needed: Whether the order given says nothing, as in a table.

    Raises:
        OptionsError: if there are fewer than two, dates are missing or given twice, or a name is given twice or is no
            part of a file name.
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
    """A date, with or without a time of day; None for an empty text.

    Raises:
        OptionsError: if it is no date.
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
