"""`cohort.tsv`: a row a case, the same bytes whoever did the cases, in whichever order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

#: Column -> what it says, for the description that BIDS wants beside a table.
COLUMNS = {
    "case": "Name of the case.",
    "subject": "The patient, as in sub-.",
    "fixed": "The fixed scan.",
    "moving": "The moving scan.",
    "state": "done; failed: an error while it was done; refused: it could not be begun.",
    "reason": "Why it failed or was refused.",
    "flags": "What a person should look at, separated by blanks; see the report.",
    "points": "Points that were looked for.",
    "ok": "Points with the verdict ok.",
    "uncertain": "Points with the verdict uncertain.",
    "outside": "Points with the verdict outside.",
    "tre_mean_mm": "Mean distance to the true places, mm, where they are known.",
    "tre_median_mm": "Median of the same.",
    "tre_max_mm": "Largest of the same.",
    "within_5mm": "Share, 0 to 1, of the points found within 5 mm of the truth.",
    "supported_share": "Share, 0 to 1, of the body of the fixed scan with a counterpart in the moving scan.",
    "folding": "Share, 0 to 1, of the body where the transform folds.",
    "sd_log_jacobian": "Standard deviation of the logarithm of the Jacobian determinant in the body.",
    "inverse_residual_mm": "How far points end from their start after the transform and its inverse, 95th percentile.",
    "lesions": "Lesions that were followed.",
    "new": "New lesions, over all scans.",
    "disappeared": "Lesions that disappeared, over all scans.",
    "lesions_uncertain": "Observations of lesions of which nothing certain can be said.",
}


def table_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table, from a line of the manifest."""
    files = line.get("files", {})
    told = {name: line.get(name, "") for name in ("case", "subject", "state", "reason")}
    names = {role: PurePath(files[role]).name for role in ("fixed", "moving") if role in files}
    return {**dict.fromkeys(COLUMNS), **told, **names, **line.get("row", {})}


def as_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Tab-separated text with a header; `n/a` where there is no value, as BIDS wants it."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: str(row["case"])):
        writer.writerow([_text(row[name]) for name in COLUMNS])
    return stream.getvalue()


def described() -> dict[str, Any]:
    """`cohort.json`: what the columns are."""
    return {name: {"Description": words} for name, words in COLUMNS.items()}


def _text(value: Any) -> str:
    if value is None or value == "":
        return "n/a"
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if value else "0"
    return " ".join(str(value).split())
