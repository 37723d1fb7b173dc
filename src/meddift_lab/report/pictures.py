"""Pictures of the worst points of a method on both scans, as PNG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from meddift.matching import Matches
from meddift.matching.verdict import Reason, Verdict
from meddift.points import Points
from meddift_lab.running.tables import CaseRow, Tables


@dataclass(frozen=True)
class Picture:
    """One picture with its caption.

    Attributes:
        caption: Caption for the page.
        data: The PNG as a `data:` URL.
    """

    caption: str
    data: str


def worst_points(tables: Tables, kind: str, method: str, *, count: int = 3) -> list[Picture]:
    """Pictures of the point with the largest error in each of the worst cases.

    Args:
        tables: Results of the evaluation.
        kind: Kind of points.
        method: Name of the method.
        count: Number of cases.
    """
    rows = [row for row in tables.rows(kind, method) if np.isfinite(row.distances).any()]
    rows.sort(key=lambda row: -float(np.nanmax(row.distances)))
    return [_picture(tables, row) for row in rows[:count]]


def _picture(tables: Tables, row: CaseRow) -> Picture:
    """Picture of the point with the largest error in one case."""
    from meddift.io import read_volume
    from meddift.pipeline.picture import draw_matches

    case = tables.cases[row.case]
    number = [points.kind for points in case.sets].index(row.kind)
    points = case.sets[number]
    worst = int(np.nanargmax(row.distances))
    positions = np.array(
        [[np.nan] * 3 if place is None else place for place in row.result["positions_ras_mm"]], dtype=np.float64
    )
    found = case.split(positions)[number]
    first = sum(len(s.fixed) for s in case.sets[:number])
    details = row.result["details"]
    verdict: Verdict = details["verdict"][first + worst] if "verdict" in details else "uncertain"
    reason = details["reason"][first + worst] if "reason" in details else "this method gives no verdict"
    label = points.fixed.labels[worst]
    one = Matches(
        fixed=Points(points.fixed.positions[[worst]], (label,)),
        moving=Points(found.positions[[worst]], (label,)),
        similarity=np.full(1, np.nan),
        margin=np.full(1, np.nan),
        inverse_error_mm=np.full(1, np.nan),
        verdict=(verdict,),
        reasons=((Reason("recorded", reason or "recorded without a reason"),) if verdict != "ok" else (),),
    )
    truth = Points(points.moving.positions[[worst]], (label,))
    figure = draw_matches(read_volume(case.fixed), read_volume(case.moving), one, truth=truth, count=1)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor=figure.get_facecolor())
    data = base64.b64encode(picture.getvalue()).decode()
    said = f", called {verdict}" if "verdict" in details else ""
    caption = f"{case.name}, point {label}: {row.distances[worst]:.1f} mm from its true place{said}"
    return Picture(caption, f"data:image/png;base64,{data}")
