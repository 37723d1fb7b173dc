"""The section of the report on ablations, and its table as a CSV file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from meddift.system.atomic import write_text
from meddift_lab.ablation import BASES
from meddift_lab.ablation.tables import AblationTables
from meddift_lab.report import figures

#: Name of a sweep -> its title for display.
SWEEP_TITLES = {
    "levels": "Levels: each alone and in pairs",
    "noise": "Noise-to-signal ratio, one draw",
    "draws": "Noise draws that are averaged",
    "sharing": "Independent or shared noise",
    "latent": "Mean or sample of the latent",
    "spacing": "Voxel size that the network is told",
    "whitening": "Whitening",
    "prior": "Prior and search radius",
    "subvoxel": "Whole voxels or between them",
}


def ablation_section(tables: AblationTables, kind: str) -> list[dict[str, Any]]:
    """Content of the section for each base: claims, a heat map of levels, and means with intervals of other sweeps."""
    sections = []
    for base in dict.fromkeys(row.base for row in tables.rows if row.kind == kind):
        shown = []
        for sweep, title in SWEEP_TITLES.items():
            rows = tables.sweep(base, sweep, kind)
            if not rows:
                continue
            if sweep == "levels":
                values = {}
                for row in rows:
                    names = row.label.split(" + ")
                    if set(names) <= set(tables.levels):
                        values[names[0], names[-1]] = values[names[-1], names[0]] = row.mean_mm.mean
                picture = figures.heat_map(values, tables.levels, tables.levels, "mean TRE, mm; alone on the diagonal")
                shown.append((title, picture))
                rows = [row for row in rows if " + " not in row.label]
                title = "Single levels and all together"
            bars = [(row.label, row.mean_mm.mean, row.mean_mm.low, row.mean_mm.high) for row in rows]
            best = min(bars, key=lambda bar: bar[1])[0]
            shown.append((title, figures.bars(bars, "mean TRE, mm", marked=best)))
        some = tables.sweep(base, "base", kind)
        sections.append(
            {
                "base": base,
                "words": BASES[base][0],
                "cases": max(row.mean_mm.n for row in tables.rows if row.base == base),
                "mean": some[0].mean_mm.mean if some else None,
                "figures": shown,
                "claims": [claim for claim in tables.claims if claim.base == base and f"({kind}" in claim.words],
            }
        )
    return sections


def write_ablation_table(tables: AblationTables, folder: Path) -> None:
    """Write `ablation.csv` with one row for each variant and kind of points.

    Raises:
        OutputError: if it cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["base", "sweep", "variant", "kind", "cases", "mean_mm", "low_mm", "high_mm", "median_mm", "within_5mm"]
    writer.writerow([*names, "unanswered"])
    for row in tables.rows:
        mean = row.mean_mm
        numbers = [mean.mean, mean.low, mean.high, row.median_mm, row.within_5mm]
        cells = ["" if value is None else f"{value:.8g}" for value in numbers]
        writer.writerow([row.base, row.sweep, row.label, row.kind, mean.n, *cells, row.unanswered])
    write_text(stream.getvalue(), folder / "ablation.csv")
