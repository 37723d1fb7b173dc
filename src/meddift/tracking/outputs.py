"""Output files of a follow-up: tables, JSON, masks labelled by lesion, points for 3D Slicer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meddift.points import Points
from meddift.system.atomic import write_json, write_text, write_together
from meddift.system.folders import make_folder
from meddift.tracking.candidates import Candidates
from meddift.tracking.kept import FOLDER
from meddift.tracking.result import NOTE, FollowUp, SeenTimePoint
from meddift.tracking.tables import (
    GROWTH_COLUMNS,
    LESION_COLUMNS,
    SUMMARY_COLUMNS,
    as_tsv,
    growth_rows,
    lesion_rows,
    summary_rows,
)
from meddift.volume import Volume


def write_outputs(found: FollowUp, folder: Path, *, more: Mapping[Path, Callable[[Path], None]]) -> list[Path]:
    """Write tables, masks, points and further files; if one cannot be written, none is.

    Args:
        found: The follow-up.
        folder: Folder of the files; created if necessary.
        more: Path -> function that writes it, for further files.

    Returns:
        Paths of the files.

    Raises:
        OutputError: if a file cannot be written.
    """
    from meddift.io import write_points, write_volume

    make_folder(folder)
    writers: dict[Path, Callable[[Path], None]] = {
        folder / "lesions.tsv": partial(write_text, as_tsv(lesion_rows(found), LESION_COLUMNS)),
        folder / "summary.tsv": partial(write_text, as_tsv(summary_rows(found), SUMMARY_COLUMNS)),
        folder / "growth.tsv": partial(write_text, as_tsv(growth_rows(found), GROWTH_COLUMNS)),
        folder / "lesions.json": partial(write_json, content(found)),
    }
    empty = []
    for k, point in enumerate(found.time_points):
        mask = relabelled(found, k)
        if mask is not None:
            writers[folder / f"{point.name}_lesions.nii.gz"] = partial(write_volume, mask)
        rows = [row for row in found.at(k) if not np.isnan(row.place).any()]
        if rows:
            points = Points(np.stack([row.place for row in rows]), tuple(f"lesion {row.lesion}" for row in rows))
            told = [f"{row.state}: {row.reason}" if row.reason else row.state for row in rows]
            writers[folder / f"{point.name}.mrk.json"] = partial(write_points, points, extra={"description": told})
        else:
            empty.append(folder / f"{point.name}.mrk.json")
    writers.update(more)
    write_together(writers)
    for path in empty:  # left by an earlier run
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return list(writers)


def is_follow_up(folder: Path) -> bool:
    """Whether a folder holds the results of a follow-up, complete or not."""
    return (folder / "lesions.json").is_file() or any((folder / FOLDER).glob("*.json"))


def relabelled(found: FollowUp, k: int) -> Volume | None:
    """The mask of a time point, labelled by the numbers of lesions.

    Args:
        found: The follow-up.
        k: Number of the time point.

    Returns:
        (X, Y, Z) int16 on the grid of the mask; merged lesions have the number of the first. None without a mask.
    """
    point = found.time_points[k]
    if not isinstance(point.lesions, Candidates) or point.lesions.grid is None:
        return None
    data = np.zeros(point.lesions.grid.shape, dtype=np.int16)
    for row in found.at(k):
        if row.carries_sizes:
            for j in row.parts:
                data[tuple(point.lesions.items[j].voxels.T)] = int(row.lesion)
    return Volume(data, point.lesions.grid)


def content(found: FollowUp) -> dict[str, Any]:
    """The follow-up ready for JSON: lesions with their links, mappings between labels, summary, provenance."""
    rows = {(row["lesion_id"], row["timepoint"]): row for row in lesion_rows(found)}
    names = [point.name for point in found.time_points]
    lesions = []
    for name in found.lesions:
        seen = []
        for k, time_point in enumerate(names):
            row = found.course.rows.get((name, k))
            if row is None:
                continue
            sizes = found.sizes(row)
            table = {
                key: value for key, value in rows[name, time_point].items() if key not in ("subject", "lesion_id")
            }
            links = [
                {
                    "route": link.route,
                    "from": names[link.source],
                    "from_label": link.source_label,
                    "label": link.label,
                    "cost_mm": _number(link.cost_mm),
                    "distance_mm": _number(link.distance_mm),
                    "overlap": _number(link.overlap),
                }
                for link in row.links
            ]
            hounsfield = None if sizes is None else _number(sizes.hu_mean)
            shared = list(row.shared_with)
            seen.append({**table, "hu_mean": hounsfield, "one_with": shared, "links": links})
        kind, organ = found.kinds.get(name, ("", ""))
        lesions.append({"lesion_id": name, "kind": kind, "organ": organ, "observations": seen})
    return {
        "note": NOTE,
        "subject": found.subject,
        "space": "RAS",
        "unit": "mm",
        "time_points": [_described(point) for point in found.time_points],
        "lesions": lesions,
        "mapping": found.mapping(),
        "summary": summary_rows(found),
        "growth": growth_rows(found),
        "notes": found.notes,
        "provenance": dict(found.provenance),
    }


def _described(point: SeenTimePoint) -> dict[str, Any]:
    return {
        "name": point.name,
        "date": point.day,
        "phase": point.phase,
        "scan": point.scan,
        "scan_sha256": point.digest,
        "failure": point.failure,
    }


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
