"""Read a table of pairs of scans, or of scans of patients."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meddift.cohort.cases import PAIR_FILES, STEPS, TIME_POINT_FILES, Case, Labels, alphanumeric
from meddift.errors import OptionsError
from meddift.tracking.tables import read_table
from meddift.tracking.timepoints import COLUMNS, TimePoint, in_order, parse_date

#: Columns of the two kinds of tables; the first three of each are required.
PAIR_COLUMNS = ("case", "fixed", "moving", *PAIR_FILES)
PATIENT_COLUMNS = ("subject", "scan", "date", *(name for name in COLUMNS if name not in ("scan", "date")))


def read_cases(path: Path, steps: Sequence[str]) -> list[Case]:
    """Read a table (CSV or TSV, UTF-8). Relative paths in it start from the folder of the table.

    A table of pairs has one row per pair, with the columns `case,fixed,moving` and optionally
    `points,truth,fixed_mask,moving_mask,labels,prior`. A table of patients has one row per scan, with the columns
    `subject,scan,date` and optionally `timepoint,lesions,points,lesion_table,phase`; the first scan of a patient is
    the fixed scan of a pair with every later one.

    Args:
        path: The table.
        steps: Steps to be done, names of `STEPS`.

    Returns:
        Cases in the order of the table; for each patient, pairs come before lesion tracking.

    Raises:
        MissingFileError: if the table does not exist.
        OptionsError: if the table is malformed, or a step needs the other kind of table.
    """
    try:
        rows = read_table(path)
    except csv.Error as error:
        raise OptionsError(f"{path} is no table: {error}; save it as CSV in UTF-8") from error
    if not rows:
        raise OptionsError(f"{path} has a header and no row")
    if any("\0" in cell for row in rows for cell in row.values()):
        raise OptionsError(f"{path} is no table: it holds characters of value 0; save it as CSV in UTF-8")
    columns = set(rows[0])
    for known in (PAIR_COLUMNS, PATIENT_COLUMNS):
        if columns >= set(known[:3]):
            strange = sorted(columns - set(known))
            if strange:
                raise OptionsError(f"{path}: unknown column {', '.join(map(repr, strange))}; the columns are "
                                   f"{', '.join(known)}")  # fmt: skip
            return _pairs(path, rows, steps) if known is PAIR_COLUMNS else _patients(path, rows, steps)
    raise OptionsError(
        f"{path} needs the columns {', '.join(PAIR_COLUMNS[:3])} for pairs, or {', '.join(PATIENT_COLUMNS[:3])} for "
        f"patients; it has {', '.join(map(repr, rows[0]))}"
    )


def _pairs(path: Path, rows: Sequence[Mapping[str, str]], steps: Sequence[str]) -> list[Case]:
    if "track" in steps:
        raise OptionsError(f"{path} is a table of pairs; to track lesions takes a table of patients, with the columns "
                           f"{', '.join(PATIENT_COLUMNS)}")  # fmt: skip
    cases = []
    for number, row in enumerate(rows, start=1):
        for column in PAIR_COLUMNS[:3]:
            if not row[column]:
                raise OptionsError(f"{path}, row {number}: {column} is empty")
        files = {role: str(path.parent.absolute() / row[role]) for role in PAIR_COLUMNS[1:] if row.get(role)}
        done = tuple(step for step in STEPS if step in steps and (step != "match" or "points" in files))
        refusal = "" if done else "there are no points to match: the column points is empty"
        cases.append(Case(row["case"], done, Labels(alphanumeric(row["case"])), files, refusal=refusal))
    return cases


@dataclass(frozen=True)
class Session:
    """One scan of a patient with its masks and points.

    Attributes:
        label: BIDS label of the session, letters and digits, without `ses-`.
        columns: Column of a table of time points -> value, with absolute paths; at least "scan".
    """

    label: str
    columns: Mapping[str, str]


def _patients(path: Path, rows: Sequence[Mapping[str, str]], steps: Sequence[str]) -> list[Case]:
    patients: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    for number, row in enumerate(rows, start=1):
        for column in PATIENT_COLUMNS[:3]:
            if not row[column]:
                raise OptionsError(f"{path}, row {number}: {column} is empty")
        patients.setdefault(row["subject"], []).append((number, row))
    found: list[Case] = []
    for subject, listed in patients.items():
        where = f"{path}, {subject}"
        if len(listed) < 2:
            found.append(lonely(subject, Labels(alphanumeric(subject))))
            continue
        points = [
            TimePoint(row.get("timepoint", ""), Path(row["scan"]), parse_date(row["date"], f"{path}, row {number}"))
            for number, row in listed
        ]
        by_date = {point.date: row for point, (_, row) in zip(points, listed, strict=True)}
        sessions = []
        for point in in_order(points, where, dates_needed=True):
            row = {**by_date[point.date], "timepoint": point.name}
            del row["subject"]
            for key in TIME_POINT_FILES:
                if row.get(key):
                    row[key] = str(path.parent.absolute() / row[key])
            sessions.append(Session(alphanumeric(point.name), row))
        found += cases_of_patient(subject, sessions, steps, Labels(alphanumeric(subject)))
    return found


def lonely(subject: str, labels: Labels) -> Case:
    """The case of a patient with a single scan, which cannot be done."""
    return Case(subject, (), labels, {}, refusal="there is only one scan, and nothing to compare it with")


def cases_of_patient(subject: str, sessions: Sequence[Session], steps: Sequence[str], labels: Labels) -> list[Case]:
    """Make the cases of one patient.

    Args:
        subject: Name of the patient.
        sessions: Scans, the earliest first.
        steps: Steps to be done.
        labels: BIDS entities of the patient, data type and suffix.

    Returns:
        For "match" and "register", one case for the first scan with each later one; for "track", one case with all
        scans.
    """
    cases = []
    first = sessions[0]
    wanted = tuple(step for step in ("match", "register") if step in steps)
    done = tuple(step for step in wanted if step != "match" or first.columns.get("points"))
    for later in sessions[1:] if wanted else ():
        named = replace(labels, session=later.label, fixed=f"ses{first.label}", moving=f"ses{later.label}")
        files = {"fixed": first.columns["scan"], "moving": later.columns["scan"]}
        if "match" in done:
            files["points"] = first.columns["points"]
        refusal = "" if done else "there are no points to match in its first scan"
        name = f"{subject}_from-{named.moving}_to-{named.fixed}"
        cases.append(Case(name, done, named, files, refusal=refusal))
    if "track" in steps:
        marked = any(session.columns.get(key) for session in sessions for key in TIME_POINT_FILES[1:])
        refusal = "" if marked else "no lesions are marked in its scans"
        columns = tuple(dict(session.columns) for session in sessions)
        cases.append(Case(f"{subject}_lesions", ("track",), labels, {}, columns, refusal))
    return cases
