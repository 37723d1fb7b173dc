"""`report.html`: summary of a cohort, cases to check first, and reasons of failures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from meddift.cohort.flags import FLAGS
from meddift.cohort.loop import case_folder
from meddift.cohort.manifest import read_manifests
from meddift.cohort.pace import duration
from meddift.cohort.table import table_row
from meddift.system.atomic import write_text
from meddift.system.pages import render_page

#: Largest number of cases shown with pictures, and of names in a list.
PICTURES, NAMES = 9, 30
#: Columns whose distribution is shown: heading, unit, decimals, and whether large values are bad.
_SPREADS = {
    "ok_share": ("points with the verdict ok", "%", 0, False),
    "tre_median_mm": ("distance to the truth, median of a case", "mm", 2, True),
    "supported_share": ("body with a counterpart", "%", 0, False),
    "folding": ("body where the transform folds", "%", 3, True),
    "sd_log_jacobian": ("SDlogJ", "", 3, True),
    "inverse_residual_mm": ("transform and inverse apart at 95 %", "mm", 2, True),
}


def write_page(folder: Path, results: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], *, total: int) -> None:
    """Write the report.

    Args:
        folder: Output folder of the cohort.
        results: Name of a case -> line of the manifest, from `manifest.latest_results`.
        plan: Content of `plan.json`.
        total: Number of all cases of the plan.

    Raises:
        OutputError: if the file cannot be written.
    """
    rows = [_with_share(table_row(results[name])) for name in sorted(results)]
    states = [row["state"] for row in rows]
    counts = {state: states.count(state) for state in ("done", "failed", "refused")}
    values = {
        "name": Path(plan["source"]).name,
        "total": total,
        "counts": {**counts, "not done yet": total - len(rows)},
        "flags": _flagged(rows),
        "spreads": [spread for column in _SPREADS if (spread := _spread(rows, column)) is not None],
        "worst": [_card(folder, row) for row in worst_first(rows)[:PICTURES]],
        "failures": _failures(rows),
        "times": _times(folder, results.values()),
        "names": NAMES,
        "settings": json.dumps(plan["settings"], indent=2, ensure_ascii=False),
    }
    write_text(render_page("meddift.cohort", values), folder / "report.html")


def worst_first(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort finished cases: most flags first, then largest TRE, then smallest shares, then most folding.

    Args:
        rows: Rows of the table, with the additional column "ok_share".
    """

    def badness(row: Mapping[str, Any]) -> tuple[Any, ...]:
        shares = [row[name] for name in ("ok_share", "supported_share") if row[name] is not None]
        return (-len(str(row["flags"] or "").split()), -(row["tre_median_mm"] or 0.0), min(shares, default=1.0),
                -(row["folding"] or 0.0), row["case"])  # fmt: skip

    return sorted((row for row in rows if row["state"] == "done"), key=badness)


def _with_share(row: Mapping[str, Any]) -> dict[str, Any]:
    points = row["points"]
    return {**row, "ok_share": row["ok"] / points if points else None}


def _flagged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flags that occur in the table, with their meaning and their cases."""
    found: dict[str, list[str]] = {flag: [] for flag in FLAGS}
    for row in rows:
        for flag in str(row["flags"] or "").split():
            found.setdefault(flag, []).append(row["case"])
    return [{"flag": flag, "words": FLAGS.get(flag, ""), "cases": cases} for flag, cases in found.items() if cases]


def _spread(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, Any] | None:
    """Distribution of a column over the cases, as text; None if it has no value."""
    import numpy as np

    heading, unit, digits, large_is_bad = _SPREADS[column]
    known = [(row[column], row["case"]) for row in rows if row[column] is not None]
    if not known:
        return None
    values = np.array([value for value, _ in known])
    low, middle, high = np.percentile(values, [5, 50, 95])
    worst, case = max(known) if large_is_bad else min(known)
    factor = 100.0 if unit == "%" else 1.0

    def words(value: float) -> str:
        return f"{factor * value:.{digits}f}{' ' if unit else ''}{unit}"

    return {"heading": heading, "cases": len(known), "low": words(low), "middle": words(middle), "high": words(high),
            "worst": words(worst), "case": case}  # fmt: skip


def _card(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """A case with its picture and its numbers as text."""
    told = []
    if row["points"]:
        told.append(f"{row['ok']} of {row['points']} points ok")
    if row["tre_median_mm"] is not None:
        told.append(f"{row['tre_median_mm']:.1f} mm from the truth")
    if row["supported_share"] is not None:
        told.append(f"{100 * row['supported_share']:.0f} % with a counterpart")
    if row["folding"]:
        told.append(f"folding {100 * row['folding']:.3f} %")
    if row["lesions"] is not None:
        told.append(f"{row['lesions']} lesions, {row['new']} new, {row['disappeared']} disappeared")
    picture = case_folder(folder, row["case"]) / "picture.png"
    try:
        data = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    except OSError:
        data = ""
    words = [FLAGS.get(flag, flag) for flag in str(row["flags"] or "").split()]
    return {"case": row["case"], "told": ", ".join(told), "flags": words, "picture": data}


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reasons of failures, the most frequent first, with their cases."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["state"] != "done":
            found.setdefault((row["state"], row["reason"]), []).append(row["case"])
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"state": state, "reason": reason, "cases": cases} for (state, reason), cases in ordered[:200]]


def _times(folder: Path, results: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Times of scans, cases and the stages of cases, as text."""
    seconds: dict[str, list[float]] = {}
    for line in read_manifests(folder):
        if "scan" in line and line.get("made"):
            seconds.setdefault("encoding a scan", []).append(float(line["seconds"]))
    for result in results:
        if result["state"] == "done" and "seconds" in result:
            seconds.setdefault("a case", []).append(float(result["seconds"]))
            for stage, taken in result.get("timing", {}).items():
                if stage != "case":
                    seconds.setdefault(f"of it: {stage}", []).append(float(taken))
    return [
        {"stage": stage, "count": str(len(taken)), "median": f"{sorted(taken)[len(taken) // 2]:.1f} s",
         "longest": f"{max(taken):.1f} s", "together": duration(sum(taken))}
        for stage, taken in seconds.items()
    ]  # fmt: skip
