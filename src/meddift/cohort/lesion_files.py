"""Outputs of lesion tracking of one patient: the row of the cohort's table, and a BIDS table of the lesions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meddift.cohort.cases import TIME_POINT_FILES, Case
from meddift.cohort.derivative import Derivative
from meddift.system.atomic import write_json, write_text
from meddift.tracking import FollowUp, TimePoint
from meddift.tracking.tables import LESION_COLUMNS, as_tsv, lesion_rows
from meddift.tracking.timepoints import parse_date


def time_points(case: Case) -> list[TimePoint]:
    """The scans of a case as `TimePoint` objects."""
    found = []
    for point in case.time_points:
        files = {name: Path(point[name]) for name in TIME_POINT_FILES[1:] if point.get(name)}
        name, phase = point.get("timepoint", ""), point.get("phase", "")
        found.append(TimePoint(name, Path(point["scan"]), parse_date(point.get("date", "")), phase=phase, **files))
    return found


def lesion_row(found: FollowUp) -> dict[str, Any]:
    """Column of the cohort's table -> value."""
    states = [row["state"] for row in lesion_rows(found)]
    return {
        "lesions": len(found.lesions),
        "new": states.count("new"),
        "disappeared": states.count("disappeared"),
        "lesions_uncertain": states.count("uncertain"),
    }


def write_lesion_table(found: FollowUp, place: Derivative) -> list[Path]:
    """Write the table of lesions under its BIDS name, with its description in JSON.

    Returns:
        Paths of the table, of its description, and of all files of the lesion tracking.
    """
    path = place.lesion_table()
    # A BIDS table begins with its header; comment lines are removed.
    write_text(as_tsv(lesion_rows(found), LESION_COLUMNS).partition("\n")[2], path)
    about = {"Description": "Lesions by scan; world RAS mm; a calculation on the masks given, for research."}
    write_json(about, place.lesion_table(".json"))
    return [path, place.lesion_table(".json"), *sorted(file for file in place.lesions.iterdir() if file.is_file())]
