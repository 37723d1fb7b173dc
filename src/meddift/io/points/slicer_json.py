"""3D Slicer markups, `.mrk.json`: the richest of the formats, and the one to exchange points in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import FrameError, PointsError
from meddift.geometry import flip_ras_lps
from meddift.io.points.content import Frame, PointsFile, checked_position, points_file, rounded, shown

FORMAT = "Slicer markups, .mrk.json"

#: The schema that Slicer itself names in its files (Markups/Resources/Schema in the Slicer sources).
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)

_MM_PER_UNIT = {"mm": 1.0, "um": 1e-3}
_STATUS = {"defined": True, "undefined": False, "preview": False, "missing": False}

#: A point's axes, row by row: those of RAS, as Slicer writes them for either frame.
_ORIENTATION = {
    "lps": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
    "ras": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
}


def parse(text: str, path: Path) -> PointsFile:
    """All control points of all markups (points, lines, curves, planes, ...), one after the other.

    A markup without `coordinateSystem` is LPS, as Slicer reads it. A control point whose `positionStatus`
    is not "defined", or which has no position, is missing.

    Raises:
        PointsError: if this is not JSON, not Slicer markups, or a position or a unit is malformed.
        FrameError: if a markup is in a frame other than LPS and RAS.
    """
    try:
        root = json.loads(text)
    except json.JSONDecodeError as error:
        raise PointsError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise PointsError(f"{path}: not usable JSON: {error}") from error
    markups = root.get("markups") if isinstance(root, dict) else None
    if not isinstance(markups, list):
        raise PointsError(f'{path} is JSON but has no list "markups": it is not a Slicer markups file')

    rows: list[Sequence[float]] = []
    frames: list[Frame] = []
    labels: list[str] = []
    descriptions: list[str] = []
    for number, markup in enumerate(markups, start=1):
        where = f"{path}, markup {number}"
        frame, scale, points = _header(markup, where)
        for index, point in enumerate(points, start=1):
            rows.append([value * scale for value in _position(point, f"{where}, control point {index}")])
            frames.append(frame)
            labels.append(str(point.get("label") or ""))
            descriptions.append(str(point.get("description") or ""))
    extra = {"description": descriptions} if any(descriptions) else None
    one_frame = frames[0] if len(set(frames)) == 1 else "lps"
    rows = [row if frame == one_frame else flip_ras_lps(row).tolist() for row, frame in zip(rows, frames, strict=True)]
    return points_file(FORMAT, one_frame, rows, labels=labels, extra=extra, path=path)


def write(
    coordinates: NDArray[np.float64],
    labels: Sequence[str],
    descriptions: Sequence[str],
    *,
    frame: Frame,
) -> dict[str, Any]:
    """The content of a file that Slicer opens.

    Args:
        coordinates: (N, 3) float64 in `frame`, mm; rows of NaN become points with "undefined" position.
        labels: N strings.
        descriptions: N strings, shown in Slicer's table of control points.
        frame: "lps" or "ras".
    """
    points = []
    for index, (position, label, description) in enumerate(zip(coordinates, labels, descriptions, strict=True)):
        missing = bool(np.isnan(position).any())
        points.append(
            {
                "id": str(index + 1),
                "label": label,
                "description": description,
                "associatedNodeID": "",
                # Slicer writes an empty string for a point that has not been placed.
                "position": "" if missing else [rounded(value) for value in position],
                "orientation": _ORIENTATION[frame],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "undefined" if missing else "defined",
            }
        )
    markup = {
        "type": "Fiducial",
        "coordinateSystem": frame.upper(),
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [],
    }
    return {"@schema": SCHEMA, "markups": [markup]}


def _header(markup: Any, where: str) -> tuple[Frame, float, list[Any]]:
    """Frame, mm per unit and control points of one markup."""
    if not isinstance(markup, Mapping):
        raise PointsError(f"{where}: a markup must be a JSON object, got {type(markup).__name__}")
    system = markup.get("coordinateSystem", "LPS")
    if system not in ("LPS", "RAS"):
        raise FrameError(f"{where}: coordinateSystem must be LPS or RAS, got {shown(system)}")
    unit = markup.get("coordinateUnits", "mm")
    if isinstance(unit, list):
        # A coded entry: [code, coding scheme, meaning].
        unit = unit[0] if len(unit) == 3 and unit[1] == "UCUM" else unit
    if not isinstance(unit, str) or unit not in _MM_PER_UNIT:
        raise PointsError(f"{where}: coordinateUnits must be mm or um, got {shown(unit)}")
    points = markup.get("controlPoints", [])
    if not isinstance(points, list):
        raise PointsError(f"{where}: controlPoints must be a list, got {type(points).__name__}")
    return ("lps" if system == "LPS" else "ras"), _MM_PER_UNIT[unit], points


def _position(point: Any, where: str) -> tuple[float, float, float]:
    """Position of one control point in the file's unit; NaN where it has none."""
    if not isinstance(point, Mapping):
        raise PointsError(f"{where}: a control point must be a JSON object, got {type(point).__name__}")
    status = point.get("positionStatus", "defined")
    if not isinstance(status, str) or status not in _STATUS:
        raise PointsError(f"{where}: positionStatus must be one of {', '.join(_STATUS)}, got {shown(status)}")
    position = point.get("position")
    if not _STATUS[status] or position in (None, "", []):
        return math.nan, math.nan, math.nan
    numbers = isinstance(position, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in position
    )
    if not numbers or len(position) != 3:
        raise PointsError(f"{where}: position must be 3 numbers, got {shown(position)}")
    try:
        return checked_position(position, where)
    except OverflowError as error:
        raise PointsError(f"{where}: position must be 3 finite numbers") from error
