"""The HTML page of the report, assembled from tables, figures, pictures and provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meddift.system.atomic import write_text
from meddift.system.pages import render_page
from meddift_lab.ablation import collect_ablation
from meddift_lab.report import figures
from meddift_lab.report.ablation import ablation_section, write_ablation_table
from meddift_lab.report.pictures import worst_points
from meddift_lab.running.case import KINDS
from meddift_lab.running.commands import remembered_commands
from meddift_lab.running.table_files import FILES, provenance
from meddift_lab.running.tables import Tables, VerdictRow

#: File name of the page in the folder of a run.
PAGE = "report.html"


def write_report(tables: Tables | None, folder: Path, *, pictures: bool = True) -> Path:
    """Write the page; results of an ablation in the same folder are included.

    Args:
        tables: Results of the methods; None if there is an ablation only.
        folder: Folder of the run.
        pictures: Whether to show pictures of the worst points, which takes longer.

    Returns:
        Path of the page.

    Raises:
        OutputError: if it cannot be written.
    """
    ablation = collect_ablation(folder)
    if ablation is not None:
        write_ablation_table(ablation, folder)
    kinds = tables.kinds if tables is not None else ()
    if tables is None:
        tables = Tables({}, (), (), (), {}, None)
    ablated = [] if ablation is None else list(dict.fromkeys(row.kind for row in ablation.rows))
    sections = [_section(tables, kind, pictures=pictures) for kind in kinds]
    known = provenance(tables)
    values = {
        "data_sets": sorted({case.data_set for case in tables.cases.values()}),
        "cases": known["cases"],
        "sections": sections,
        "ablations": [] if ablation is None else [(k, ablation_section(ablation, k)) for k in ablated],
        "timings": [row for row in tables.method_rows if row.kind == kinds[0] and row.cases],
        "fields": [row for row in tables.method_rows if row.kind == kinds[0] and row.regularity],
        "not_done": _not_done(tables),
        "methods": {
            name: {
                **entry,
                "settings": json.dumps(entry["settings"], indent=1),
                "modality": _modality(entry["settings"].get("model")),
            }
            for name, entry in known["methods"].items()
        },
        "masks": sorted(
            {str(row.result["regularity"]["mask"]) for row in tables.case_rows if row.result["regularity"]}
        ),
        "commands": remembered_commands(folder),
        "files": FILES,
    }
    filters = {"mm": _mm, "share": _share, "seconds": _seconds, "megabytes": _megabytes}
    text = render_page("meddift_lab.report", values, filters=filters)
    write_text(text, folder / PAGE)
    return folder / PAGE


def _section(tables: Tables, kind: str, *, pictures: bool) -> dict[str, Any]:
    """Content of the section on points of one kind."""
    rows = [row for row in tables.method_rows if row.kind == kind and row.mean_mm is not None]
    best = min((row.mean_mm.mean for row in rows if row.mean_mm is not None), default=None)
    shown = tables.reference or (rows[-1].method if rows else None)
    count = sum(len(points.fixed) for case in tables.cases.values() for points in case.sets if points.kind == kind)
    return {
        "kind": kind,
        "meanings": _meanings(tables, kind),
        "count": count,
        "rows": rows,
        "best": best,
        "verdicts": [v for row in rows if (v := VerdictRow.of(row.title, tables.rows(kind, row.method))) is not None],
        "comparisons": {m: c for (k, m), c in tables.comparisons.items() if k == kind},
        "figures": [
            (
                "Mean error of every case",
                "A ring is a case, the bar the 95 % interval of the mean over cases.",
                figures.per_case_dots(tables, kind),
            ),
            (
                "How many points are found within a distance",
                "Over all points; every case counts alike. A point without an answer is not found.",
                figures.cumulative_errors(tables, kind),
            ),
            (
                "Error against displacement",
                "Median error of points by how far they really move.",
                figures.error_against_displacement(tables, kind),
            ),
        ]
        if rows
        else [],
        "worst_of": next((row.title for row in rows if row.method == shown), ""),
        "pictures": worst_points(tables, kind, shown) if pictures and shown is not None else [],
    }


def _meanings(tables: Tables, kind: str) -> list[str]:
    """How the true positions of points of one kind were determined."""
    sets = [points for case in tables.cases.values() for points in case.sets if points.kind == kind]
    return list(dict.fromkeys(points.truth or KINDS[kind] for points in sets))


def _modality(model: str | None) -> str:
    """The modality that a model of meddift is made for; empty for other methods."""
    from meddift.models import find_spec

    return "" if model is None else find_spec(model).modality


def _not_done(tables: Tables) -> list[tuple[str, int, str]]:
    """Method, number of failed or skipped cases, and the reason."""
    found = []
    for row in tables.method_rows:
        if row.kind == tables.kinds[0]:
            reasons: dict[str, int] = {}
            for why in (*row.skipped.values(), *row.failed.values()):
                reasons[why] = reasons.get(why, 0) + 1
            found += [(row.title, count, why) for why, count in reasons.items()]
    return found


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return (
        "–"
        if value is None
        else f"{100 * value:.0f}\u00a0%"
        if value >= 0.0995 or value == 0
        else f"{100 * value:.2g}\u00a0%"
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.1" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _megabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.0f}"
