"""Tables of lesions, summary and growth, and reading edited tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from meddift.errors import MissingFileError, OptionsError
from meddift.tracking.growth import VOLUME_PARTIAL, VOLUME_PROGRESSION
from meddift.tracking.observations import Decision, Observation, Review, State
from meddift.tracking.result import NOTE, FollowUp
from meddift.tracking.summary import KINDS, GivenSize

#: Columns of lesions.tsv; world RAS mm.
LESION_COLUMNS = (
    "subject", "timepoint", "date", "lesion_id", "label", "state", "link_from", "kind", "organ", "x_ras", "y_ras",
    "z_ras", "long_mm", "short_mm", "mean_mm", "volume_mm3", "slice_mm", "measured", "verdict", "reason", "review",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "subject", "timepoint", "date", "days", "lesions", "new", "disappeared", "not_assessed", "targets", "sum_mm",
    "nadir_mm", "from_baseline_percent", "from_nadir_percent", "from_nadir_mm", "target_response", "category",
    "volume_mm3", "volume_from_baseline_percent", "volume_category", "reason",
)  # fmt: skip
GROWTH_COLUMNS = (
    "subject", "lesion_id", "from", "to", "days", "mean_change_mm", "volume_change_percent", "doubling_days",
    "lung_rads_growth", "fleischner_growth", "doubts",
)  # fmt: skip


def lesion_rows(found: FollowUp) -> list[dict[str, Any]]:
    """Rows of `lesions.tsv`: one for each lesion and time point; None for missing values."""
    rows = []
    for k, point in enumerate(found.time_points):
        for row in found.at(k):
            sizes = found.sizes(row)
            place = [None if math.isnan(v) else round(float(v), 2) for v in row.place]
            rows.append(
                {
                    "subject": found.subject,
                    "timepoint": point.name,
                    "date": point.day,
                    "lesion_id": row.lesion,
                    "label": found.labels(row),
                    "state": row.state,
                    "link_from": _link_from(found, row),
                    "kind": found.kind(row),
                    "organ": found.kinds.get(row.lesion, ("", ""))[1],
                    "x_ras": place[0],
                    "y_ras": place[1],
                    "z_ras": place[2],
                    "long_mm": None if sizes is None else _rounded(sizes.long_mm, 1),
                    "short_mm": None if sizes is None else _rounded(sizes.short_mm, 1),
                    "mean_mm": None if sizes is None else _rounded(sizes.mean_mm, 1),
                    "volume_mm3": None if sizes is None else _rounded(sizes.volume_mm3, 0),
                    "slice_mm": None if sizes is None else _rounded(sizes.slice_mm, 3),
                    "measured": _measured(found, row) if sizes is None else sizes.measured,
                    "verdict": row.verdict,
                    "reason": row.reason,
                    "review": row.review,
                }
            )
    return rows


def _measured(found: FollowUp, row: Observation) -> str:
    given = found.given.get((row.lesion, row.timepoint))
    return "none" if given is None else given.measured


def _link_from(found: FollowUp, row: Observation) -> str:
    """Links of an observation in text, such as "T0:3 T1:5"."""
    return " ".join(dict.fromkeys(f"{found.time_points[link.source].name}:{link.source_label}" for link in row.links))


def summary_rows(found: FollowUp) -> list[dict[str, Any]]:
    """Rows of the summary: for each time point counts, sums of the targets, RECIST category, and volumes."""
    rows = []
    assessments = found.assessments
    targets = [name for name, (kind, _) in found.kinds.items() if kind.startswith("target")]
    start: float | None = None
    for k, point in enumerate(found.time_points):
        here = found.at(k)
        states = [row.state for row in here]
        assessed = None if assessments is None else assessments[k]
        volumes = [
            0.0 if row.state == "disappeared" else None if (s := found.sizes(row)) is None else s.volume_mm3
            for row in here
            if row.lesion in targets and not (row.shared_with and not row.carries_sizes)
        ]
        known = [v for v in volumes if v is not None and not math.isnan(v)]
        total = sum(known) if targets and len(known) == len(volumes) else None
        start = total if k == 0 else start
        change = None if total is None or not start else total / start - 1
        first = found.time_points[0].date
        rows.append(
            {
                "subject": found.subject,
                "timepoint": point.name,
                "date": point.day,
                "days": None if first is None or point.date is None else (point.date - first).days,
                "lesions": sum(bool(row.parts) for row in here),
                "new": states.count("new"),
                "disappeared": states.count("disappeared"),
                "not_assessed": states.count("outside") + sum(r.state == "uncertain" and not r.parts for r in here),
                "targets": len(targets),
                "sum_mm": None if assessed is None else _rounded(assessed.sum_mm, 1),
                "nadir_mm": None if assessed is None else _rounded(assessed.nadir_mm, 1),
                "from_baseline_percent": None if assessed is None else _percent(assessed.from_baseline),
                "from_nadir_percent": None if assessed is None else _percent(assessed.from_nadir),
                "from_nadir_mm": None if assessed is None else _rounded(assessed.from_nadir_mm, 1),
                "target_response": None if assessed is None else assessed.target,
                "category": None if assessed is None else assessed.overall,
                "volume_mm3": _rounded(total, 0),
                "volume_from_baseline_percent": _percent(change) if k else None,
                "volume_category": _volume_category(change) if k else None,
                "reason": point.failure or ("no targets were chosen" if assessed is None else assessed.reason),
            }
        )
    return rows


def _volume_category(change: float | None) -> str | None:
    """Category of a change of volume by the sphere equivalents of -30 % and +20 %, in addition to RECIST."""
    if change is None:
        return None
    return "PR" if change <= VOLUME_PARTIAL else "PD" if change >= VOLUME_PROGRESSION else "SD"


def growth_rows(found: FollowUp) -> list[dict[str, Any]]:
    """Rows of the table of growth: one for each lesion and pair of time points."""
    names = [point.name for point in found.time_points]
    return [
        {
            "subject": found.subject,
            "lesion_id": row.lesion,
            "from": names[row.earlier],
            "to": names[row.later],
            "days": None if row.growth.days is None else round(row.growth.days),
            "mean_change_mm": row.growth.mean_mm,
            "volume_change_percent": _percent(row.growth.volume),
            "doubling_days": _rounded(row.growth.doubling_days, 0),
            "lung_rads_growth": _yes(row.growth.lung_rads),
            "fleischner_growth": _yes(row.growth.fleischner),
            "doubts": "; ".join(row.growth.doubts),
        }
        for row in found.growths
    ]


def _yes(value: bool | None) -> str:
    return "cannot be said" if value is None else "yes" if value else "no"


def _rounded(value: float | None, digits: int) -> float | None:
    if value is None or math.isnan(value) or math.isinf(value):
        return None
    return round(float(value), digits) if digits else float(round(value))


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def as_tsv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Tab-separated text: a comment line with `NOTE`, a header, and rows; missing values are empty."""
    stream = io.StringIO()
    stream.write(f"# {NOTE}\n")
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row[c] is None else _text(row[c]) for c in columns])
    return stream.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return " ".join(str(value).split())


@dataclass(frozen=True)
class Reviewed:
    """The content of an edited table of lesions.

    Attributes:
        decisions: One for each row.
        kinds: Lesion -> (kind, organ) in its row at baseline.
        given: (lesion, time point) -> sizes entered by a person.
    """

    decisions: tuple[Decision, ...] = ()
    kinds: Mapping[str, tuple[str, str]] | None = None
    given: Mapping[tuple[str, int], GivenSize] | None = None


def read_table(path: Path | str) -> list[dict[str, str]]:
    """Read the rows of a TSV or CSV file; lines that begin with # are skipped.

    Raises:
        MissingFileError: if the file does not exist.
        OptionsError: if it is not a table in UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"the table {path} does not exist")
    try:
        lines = [x for x in path.read_text(encoding="utf-8-sig").splitlines() if x.strip() and not x.startswith("#")]
    except UnicodeDecodeError as error:
        raise OptionsError(f"{path} is not UTF-8 text; save the table as text in UTF-8") from error
    if not lines:
        raise OptionsError(f"{path} is empty")
    delimiter = next((d for d in "\t;" if d in lines[0]), ",")
    reader = csv.DictReader(lines, delimiter=delimiter)
    rows = []
    for number, row in enumerate(reader, start=1):
        if None in row or any(value is None for value in row.values()):
            raise OptionsError(f"{path}, row {number} has another number of cells than the header")
        rows.append({key.strip(): value.strip() for key, value in row.items()})
    return rows


def read_review(path: Path | str, names: Sequence[str]) -> Reviewed:
    """Read a table of lesions in which a person has confirmed, corrected or rejected rows.

    Args:
        path: The edited `lesions.tsv`.
        names: Names of the time points, in order of time.

    Raises:
        MissingFileError: if the file does not exist.
        OptionsError: if a row is invalid.
    """
    decisions, kinds, given = [], {}, {}
    rows = read_table(path)
    needed = ("timepoint", "lesion_id", "label", "state", "review")
    missing = [name for name in needed if rows and name not in rows[0]]
    if missing:
        raise OptionsError(
            f"{path} has no column {', '.join(missing)}; give a lesions.tsv that was written by meddift"
        )
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if row["timepoint"] not in names:
            raise OptionsError(f"{where}: there is no time point {row['timepoint']}; there are {', '.join(names)}")
        k, lesion = names.index(row["timepoint"]), row["lesion_id"]
        if not lesion.isdecimal():
            raise OptionsError(f"{where}: lesion_id must be a whole number, got {lesion!r}")
        state, review = row["state"], row["review"] or "proposed"
        if state not in get_args(State):
            raise OptionsError(f"{where}: state must be one of {', '.join(get_args(State))}, got {state!r}")
        if review not in get_args(Review):
            raise OptionsError(f"{where}: review must be one of {', '.join(get_args(Review))}, got {review!r}")
        if row.get("kind") or row.get("organ"):
            kind = row.get("kind", "")
            if kind in KINDS and kind and k == 0:
                kinds[lesion] = kind, row.get("organ", "")
            elif kind not in (*KINDS, "new"):
                raise OptionsError(f"{where}: kind must be one of {', '.join(KINDS[:-1])}, got {kind!r}")
        if row.get("measured") in ("manual", "5mm_rule"):
            given[lesion, k] = _given(row, where)
        labels = tuple(part.strip() for part in row["label"].split("+") if part.strip())
        decisions.append(Decision(lesion, k, labels, state, review))  # type: ignore[arg-type]
    return Reviewed(tuple(decisions), kinds, given)


def _given(row: Mapping[str, str], where: str) -> GivenSize:
    if row["measured"] == "5mm_rule":
        return GivenSize(math.nan, math.nan, "5mm_rule")
    sizes = []
    for column in ("long_mm", "short_mm"):
        try:
            value = float(row.get(column, ""))
        except ValueError:
            value = math.nan
        if not value > 0:
            raise OptionsError(f"{where}: measured is manual, so {column} must be a number above 0")
        sizes.append(value)
    return GivenSize(sizes[0], sizes[1], "manual")


def read_targets(path: Path | str) -> dict[str, tuple[str, str]]:
    """Read the kinds of lesions: a table with the columns `label` and `kind`, or `label`, `target` and `node`.

    Returns:
        Label at baseline -> (kind, organ).

    Raises:
        MissingFileError: if the file does not exist.
        OptionsError: if a row is invalid.
    """
    kinds: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(read_table(path), start=1):
        where = f"{path}, row {number}"
        if "label" not in row or not ("kind" in row or "target" in row):
            raise OptionsError(f"{path} needs the columns label and kind, or label, target and node (and organ)")
        kind = row.get("kind", "")
        if not kind:
            flags = [_flag(row.get(name, ""), f"{where}, {name}") for name in ("target", "node")]
            kind = ("target" if flags[0] else "non_target") + ("_node" if flags[1] else "")
        if kind not in KINDS:
            raise OptionsError(f"{where}: kind must be one of {', '.join(KINDS[:-1])}, got {kind!r}")
        if row["label"] in kinds:
            raise OptionsError(f"{where}: label {row['label']} is named twice")
        kinds[row["label"]] = kind, row.get("organ", "")
    return kinds


def _flag(text: str, where: str) -> bool:
    if text.lower() in ("1", "yes", "true", "y", "x"):
        return True
    if text.lower() in ("", "0", "no", "false", "n"):
        return False
    raise OptionsError(f"{where}: must be yes or no, got {text!r}")
