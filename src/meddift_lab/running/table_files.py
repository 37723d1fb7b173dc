"""Tables as CSV and JSON files; results and timings are in separate files, so that results can be compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meddift.system.atomic import write_json, write_text
from meddift_lab.running.tables import MethodRow, Tables

#: File name -> description of its content.
FILES: Mapping[str, str] = {
    "methods.csv": "one row a method: accuracy and regularity",
    "cases.csv": "one row a method and case",
    "comparisons.csv": "every method against the reference, paired over cases",
    "timings.csv": "seconds and memory, which differ from run to run",
    "ablation.csv": "one row a variant, where there is an ablation",
    "evaluation.json": "all of it, with settings and versions",
}


def write_tables(tables: Tables, folder: Path) -> None:
    """Write all tables; equal results give equal bytes, except for timings.

    Raises:
        OutputError: if a file cannot be written.
    """
    write_text(_csv(method_rows(tables)), folder / "methods.csv")
    write_text(_csv(case_rows(tables)), folder / "cases.csv")
    write_text(_csv(comparison_rows(tables)), folder / "comparisons.csv")
    write_text(_csv(timing_rows(tables)), folder / "timings.csv")
    content = {
        "methods": method_rows(tables),
        "cases": case_rows(tables),
        "comparisons": comparison_rows(tables),
        "timings": timing_rows(tables),
        "provenance": provenance(tables),
    }
    write_json(content, folder / "evaluation.json")


def method_rows(tables: Tables) -> list[dict[str, Any]]:
    """One dictionary for each method and kind of points."""
    return [_method(row) for row in tables.method_rows]


def case_rows(tables: Tables) -> list[dict[str, Any]]:
    """One dictionary for each method, case and kind of points."""
    rows = []
    for row in tables.case_rows:
        regularity = row.result["regularity"] or {}
        rows.append(
            {
                "kind": row.kind,
                "method": row.method,
                "case": row.case,
                **_with_units(row.errors.as_dict()),
                "snapped_mean_mm": row.snapped.mean,
                **{name: regularity.get(name) for name in ("sdlogj", "sdlogj_plus3", "folding", "mask")},
            }
        )
    return rows


def _with_units(errors: dict[str, Any]) -> dict[str, Any]:
    """Rename columns to include their unit: `mean_mm`, `within_2mm`."""
    plain = ("n", "unanswered")
    return {key if key in plain or key.endswith("mm") else f"{key}_mm": value for key, value in errors.items()}


def comparison_rows(tables: Tables) -> list[dict[str, Any]]:
    """One dictionary for each method and kind of points: its mean TRE minus that of the reference."""
    return [
        {"kind": kind, "method": method, "against": tables.reference, **asdict(compared)}
        for (kind, method), compared in tables.comparisons.items()
    ]


def timing_rows(tables: Tables) -> list[dict[str, Any]]:
    """One dictionary for each method and case: time in seconds and memory in bytes, in total and by stage."""
    rows = []
    for row in tables.case_rows:
        if row.kind != tables.cases[row.case].sets[0].kind:
            continue  # the kinds share one run of the method
        stages = row.result["stages"]
        rows.append(
            {
                "method": row.method,
                "case": row.case,
                "threads": row.result["threads"],
                **row.result["resources"],
                **{f"{name} s": stages["seconds"].get(name) for name in _STAGES},
                **{f"{name} peak bytes": stages["peak_bytes"].get(name) for name in _STAGES},
            }
        )
    return rows


def provenance(tables: Tables) -> dict[str, Any]:
    """Provenance of the results: versions and settings by method, and the cases."""
    methods: dict[str, Any] = {}
    for row in tables.case_rows:
        methods.setdefault(
            row.method, {name: row.result[name] for name in ("title", "settings", "source", "versions")}
        )
    return {
        "methods": methods,
        "cases": {
            name: {
                "data_set": case.data_set,
                "digest": case.digest,
                "points": {points.kind: len(points.fixed) for points in case.sets},
                "fixed": repr(case.grids[0]),
                "moving": repr(case.grids[1]),
            }
            for name, case in tables.cases.items()
        },
    }


_STAGES = ("load libraries", "read scans", "find", "sample field", "measure field")


def _method(row: MethodRow) -> dict[str, Any]:
    interval = row.mean_mm
    return {
        "kind": row.kind,
        "method": row.method,
        "title": row.title,
        "cases": row.cases,
        "failed": len(row.failed),
        "skipped": len(row.skipped),
        "why": "; ".join(sorted({*row.failed.values(), *row.skipped.values()})),
        "mean_mm": None if interval is None else interval.mean,
        "mean_low_mm": None if interval is None else interval.low,
        "mean_high_mm": None if interval is None else interval.high,
        "median_mm": row.median_mm,
        "p95_mm": row.p95_mm,
        "max_mm": row.max_mm,
        **{f"within_{limit:g}mm": row.within.get(limit) for limit in (2.0, 5.0, 10.0)},
        "tre30_mm": row.tre30_mm,
        "snapped_mean_mm": row.snapped_mm,
        "unanswered": row.unanswered,
        **{name: (row.regularity or {}).get(name) for name in ("sdlogj", "sdlogj_plus3", "folding")},
        "dice": row.dice,
        "hd95_mm": row.hd95_mm,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; numbers have eight significant digits, and missing values are empty."""
    if not rows:
        return "\n"
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return stream.getvalue()


def _cell(value: Any) -> Any:
    return f"{value:.8g}" if isinstance(value, float) else "" if value is None else value
