"""The report of a follow-up: a single HTML page without external files, for screen and print."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from meddift.errors import MeddiftError
from meddift.system.pages import render_page
from meddift.tracking.candidates import Candidates
from meddift.tracking.chart import HEIGHT, LEFT, RIGHT, WIDTH, Chart, Curve, draw
from meddift.tracking.crops import AROUND, LEAST_MM, PIXELS, Crop, best_plane, crop, place_of_cut
from meddift.tracking.result import NOTE, FollowUp
from meddift.tracking.tables import lesion_rows, summary_rows
from meddift.volume import Volume

#: Explanations of states for the page.
STATES = {
    "baseline": "first scan",
    "matched": "found again",
    "new": "new",
    "disappeared": "disappeared",
    "split": "in several parts",
    "merged": "one with another",
    "outside": "not in the field of view",
    "uncertain": "cannot be said",
}


def page_text(found: FollowUp, read: Callable[[int], Volume]) -> str:
    """The text of `report.html`.

    Args:
        found: The follow-up.
        read: Reads the scan of a time point for its pictures; one scan is in memory at a time.
    """
    rows = lesion_rows(found)
    crops = _crops(found, read)
    by_key = {(row["lesion_id"], row["timepoint"]): row for row in rows}
    names = [point.name for point in found.time_points]
    lesions = []
    for name in found.lesions:
        seen: list[dict[str, Any]] = [
            {"row": by_key[name, time], "crop": crops.get((name, k)), "words": STATES[by_key[name, time]["state"]]}
            for k, time in enumerate(names)
            if (name, time) in by_key
        ]
        lesions.append({"name": name, "seen": seen, "told": _told(seen), "look": any(_look(s["row"]) for s in seen)})
    values = {
        "note": NOTE,
        "subject": found.subject,
        "time_points": found.time_points,
        "summary": summary_rows(found),
        "chosen": found.assessments is not None,
        "notes": found.notes,
        "failures": found.failures,
        "doubtful": [lesion["name"] for lesion in lesions if lesion["look"]],
        "lesions": lesions,
        "states": STATES,
        "chart": _chart(found),
        "size": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "pixels": PIXELS},
        "provenance": json.dumps(dict(found.provenance), indent=2, ensure_ascii=False),
    }
    return render_page("meddift.tracking", values)


def _look(row: dict[str, Any]) -> bool:
    """Whether a person should check a row of the table."""
    return row["review"] == "proposed" and "uncertain" in (row["verdict"], row["state"])


def _told(seen: list[dict[str, Any]]) -> str:
    """A summary of one lesion in one line."""
    told = []
    for one in seen:
        size, state = one["row"]["long_mm"], one["row"]["state"]
        told.append(f"{size:.1f} mm" if size is not None else {"disappeared": "0", "merged": "merged"}.get(state, "?"))
    first, last = seen[0]["row"]["long_mm"], seen[-1]["row"]["long_mm"]
    change = f" ({100 * (last / first - 1):+.0f} %)" if first and last and len(seen) > 1 else ""
    return " → ".join(told) + change


def _chart(found: FollowUp) -> Chart | None:
    """The chart of longest diameters over time."""
    dates = [point.date for point in found.time_points]
    known = [date for date in dates if date is not None]
    # Without dates, time points are equally spaced.
    times = [float(k) for k in range(len(dates))]
    if len(known) == len(dates):
        times = [(date - known[0]).total_seconds() for date in known]
    curves = []
    for name in found.lesions:
        points = []
        for k, time in enumerate(times):
            row = found.course.rows.get((name, k))
            sizes = None if row is None else found.sizes(row)
            if row is not None and row.state == "disappeared":
                points.append((time, 0.0))
            elif sizes is not None:
                points.append((time, sizes.long_mm))
        curves.append(Curve(name, tuple(points)))
    labels = [f"{point.name} {point.day}".strip() for point in found.time_points]
    return draw(curves, list(zip(times, labels, strict=True)))


def _crops(found: FollowUp, read: Callable[[int], Volume]) -> dict[tuple[str, int], Crop]:
    """(lesion, time point) -> picture; all pictures of one lesion have the same plane and width."""
    first = next((point.grid for point in found.time_points if point.grid is not None), None)
    axis = 2 if first is None else best_plane(first)
    widths = {}
    for name in found.lesions:
        sizes = [s.long_mm for k in range(len(found.time_points)) if (s := _sizes(found, name, k)) is not None]
        widths[name] = max(LEAST_MM, AROUND * max(sizes, default=0.0))
    pictures = {}
    for k, point in enumerate(found.time_points):
        lesions = point.lesions
        wanted = [row for row in found.at(k) if not np.isnan(row.place).any()]
        if not isinstance(lesions, Candidates) or not wanted:
            continue
        try:
            scan = read(k)
        except MeddiftError:  # the scan has become unreadable since lesions were read
            continue
        for row in wanted:
            parts = [lesions.items[j] for j in row.parts]
            place = place_of_cut(parts, row.place)
            pictures[row.lesion, k] = crop(
                scan, place, axis=axis, width_mm=widths[row.lesion], parts=parts, mask=lesions.grid
            )
    return pictures


def _sizes(found: FollowUp, name: str, k: int) -> Any:
    row = found.course.rows.get((name, k))
    return None if row is None else found.sizes(row)
