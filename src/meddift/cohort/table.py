"""`cohort.tsv`: one row per case. Its bytes do not depend on the executor or on the order of computation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

#: Column -> its description, for the JSON file that BIDS requires beside a table.
COLUMNS = {
    "case": "Name of the case.",
    "subject": "The patient, as in sub-.",
    "fixed": "The fixed scan.",
    "moving": "The moving scan.",
    "state": "done; failed: an error occurred; refused: it could not be started.",
    "reason": "Why the case failed or was refused.",
    "flags": "What a person should check, separated by blanks; meanings are in the report.",
    "points": "Number of points of the fixed scan to be matched.",
    "ok": "Number of points with the verdict ok.",
    "uncertain": "Number of points with the verdict uncertain.",
    "outside": "Number of points with the verdict outside.",
    "tre_mean_mm": "Mean distance of points from their true positions, mm; n/a if these are unknown.",
    "tre_median_mm": "Median distance of points from their true positions, mm.",
    "tre_max_mm": "Largest distance of a point from its true position, mm.",
    "within_5mm": "Share, 0 to 1, of points within 5 mm of their true positions.",
    "supported_share": "Share, 0 to 1, of the body of the fixed scan with a counterpart in the moving scan.",
    "folding": "Share, 0 to 1, of the body where the transform folds.",
    "sd_log_jacobian": "Standard deviation of the logarithm of the Jacobian determinant in the body.",
    "inverse_residual_mm": "95th percentile of the residual of transform and inverse, mm.",
    "lesions": "Number of tracked lesions.",
    "new": "Number of new lesions, over all scans.",
    "disappeared": "Number of lesions that disappeared, over all scans.",
    "lesions_uncertain": "Number of observations of lesions with the state uncertain.",
}


def table_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """Column -> value of one row, from a line of the manifest."""
    files = line.get("files", {})
    told = {name: line.get(name, "") for name in ("case", "subject", "state", "reason")}
    names = {role: PurePath(files[role]).name for role in ("fixed", "moving") if role in files}
    return {**dict.fromkeys(COLUMNS), **told, **names, **line.get("row", {})}


def as_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Tab-separated text with a header; missing values are `n/a`, as BIDS requires."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: str(row["case"])):
        writer.writerow([_text(row[name]) for name in COLUMNS])
    return stream.getvalue()


def described() -> dict[str, Any]:
    """Content of `cohort.json`: descriptions of the columns."""
    return {name: {"Description": words} for name, words in COLUMNS.items()}


def _text(value: Any) -> str:
    if value is None or value == "":
        return "n/a"
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if value else "0"
    return " ".join(str(value).split())
