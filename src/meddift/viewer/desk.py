"""`Desk`: the pair whose points are listed, and the folder in which the list is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OutputError, PointsError
from meddift.geometry import Transform
from meddift.matching import Match
from meddift.matching.verdict import Reason
from meddift.points import Points
from meddift.system.atomic import write_json, write_together
from meddift.system.folders import check_folder, make_folder
from meddift.system.once import once
from meddift.viewer.sheet import Row, Sheet, place

#: File with the list; it also marks a folder as written by the viewer.
LIST = "points.json"
#: Format version of the file, increased when older programs can no longer read it.
VERSION = 1
#: Points files that are written beside the list.
POINT_FILES = ("fixed.mrk.json", "moving.mrk.json", "moving.csv")
_REVIEWS = ("proposed", "confirmed", "corrected", "absent")


def is_points_folder(folder: Path) -> bool:
    """Whether a folder was written by the viewer."""
    return (folder / LIST).is_file()


@dataclass(eq=False)
class Desk:
    """The open pair and its list of points.

    Attributes:
        fixed: Id of the fixed scan, in which points are usually given.
        moving: Id of the moving scan.
        folder: Folder of the list; created when the list is saved.
        digests: SHA-256 of the fixed and the moving scan.
        transform: Maps fixed to moving world points, to scroll both scans together; None if none was given.
        sheet: The list of points.
    """

    fixed: str
    moving: str
    folder: Path
    digests: tuple[str, str]
    transform: Transform | None = None
    sheet: Sheet = field(default_factory=Sheet)

    @once
    def transform_back(self) -> Transform | None:
        """The inverse of `transform`, from moving to fixed; None if there is no transform."""
        return None if self.transform is None else self.transform.inverted()

    def check(self) -> None:
        """Check before any work that the folder can be written to and belongs to these scans.

        Raises:
            OutputError: if it cannot be written to, or holds points of other scans.
        """
        check_folder(self.folder, is_points_folder)
        if is_points_folder(self.folder) and self._content()["scans"] != list(self.digests):
            raise OutputError(
                f"{self.folder} holds points of two other scans; give another folder with --out, or delete it"
            )

    def read(self) -> bool:
        """Read the stored list into the sheet.

        Returns:
            Whether there was a stored list.

        Raises:
            OutputError: if the stored list is damaged.
        """
        if not is_points_folder(self.folder):
            return False
        rows = []
        for told in self._content()["points"]:
            try:
                rows.append(_row_of(told, self.sheet.new_id()))
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged(error) from error
        self.sheet.begin(rows)
        return True

    def save(self) -> list[Path]:
        """Write the list, points files of both scans and a table: all of them or none.

        For an empty list only the list itself is written, and points files of an earlier list are removed.

        Returns:
            Paths of the files.

        Raises:
            OutputError: if a file cannot be written; then no file is changed.
        """
        make_folder(self.folder)
        rows = self.sheet.rows
        writers = {self.folder / name: writer for name, writer in self._writers(rows).items()}
        write_together(writers)
        for name in () if rows else POINT_FILES:
            (self.folder / name).unlink(missing_ok=True)
        self.sheet.note_saved(rows)
        return list(writers)

    def points(self, side: str) -> Points:
        """All points on one scan, "fixed" or "moving"; points without a position there are missing."""
        return side_points(self.sheet.rows, side)

    def add(
        self,
        *,
        asked: Literal["fixed", "moving"],
        position: NDArray[np.float64],
        match: Match | None,
        corrected: NDArray[np.float64] | None,
        review: str,
        label: str | None = None,
    ) -> Row:
        """Add a point to the list.

        Args:
            asked: Scan in which the point was given.
            position: (3,) float64, world RAS mm in that scan.
            match: Match in the other scan; None if the point was not matched.
            corrected: (3,) float64, position set by a person in the other scan, world RAS mm; None keeps the match.
            review: Review of the point, see `Row`.
            label: Label of the point; None takes the next free number.

        Raises:
            PointsError: if the point is confirmed but has no position in the other scan.
        """
        found = None if match is None else place(match.moving)
        other = place(corrected) if corrected is not None else found
        row = self._row(asked, place(position), found, other, match, review, label)
        self.sheet.add([row])
        return row

    def _row(self, asked: Any, own: Any, found: Any, other: Any, match: Match | None, review: Any, label: Any) -> Row:
        if review in ("confirmed", "corrected") and other is None:
            raise PointsError("a point without a place in the other scan cannot be called right: put it there first")
        if review == "absent":
            other = None
        fixed, moving = (own, other) if asked == "fixed" else (other, own)
        return Row(self.sheet.new_id(), label or self.sheet.next_label(), fixed, moving, asked, found, match, review)

    def _writers(self, rows: tuple[Row, ...]) -> dict[str, Callable[[Path], None]]:
        from meddift.io import write_points

        itself: dict[str, Callable[[Path], None]] = {LIST: partial(write_json, self._list(rows))}
        if not rows:
            return itself
        told = {"description": [_description(row) for row in rows]}
        return {
            "fixed.mrk.json": partial(write_points, side_points(rows, "fixed"), extra=told),
            "moving.mrk.json": partial(write_points, side_points(rows, "moving"), extra=told),
            "moving.csv": partial(write_points, side_points(rows, "moving"), extra=table_columns(rows)),
            **itself,
        }

    def _list(self, rows: tuple[Row, ...]) -> dict[str, Any]:
        points = []
        for row in rows:
            told = row.as_dict()
            del told["id"], told["codes"], told["reason"]
            reasons = [] if row.match is None else row.match.reasons
            points.append({**told, "reasons": [{"code": reason.code, "text": reason.text} for reason in reasons]})
        return {"version": VERSION, "space": "RAS", "unit": "mm", "scans": list(self.digests), "points": points}

    def _content(self) -> dict[str, Any]:
        path = self.folder / LIST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] > VERSION:
                raise OutputError(f"{path} was written by a newer meddift; update this one")
            _ = content["scans"], content["points"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OutputError):
                raise
            raise self._damaged(error) from error
        found: dict[str, Any] = content
        return found

    def _damaged(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self.folder / LIST} is damaged ({type(error).__name__}: {error}); delete it, or give another folder "
            f"with --out"
        )


def side_points(rows: tuple[Row, ...], side: str) -> Points:
    """The points of a list on one scan, "fixed" or "moving"; NaN where a row has no position there."""
    nowhere = (np.nan,) * 3
    places = [getattr(row, side) or nowhere for row in rows]
    return Points(np.array(places, dtype=np.float64).reshape(-1, 3), tuple(row.label for row in rows))


def table_columns(rows: tuple[Row, ...]) -> dict[str, list[Any]]:
    """Column -> values of all rows, without the position on the moving scan."""
    told = [row.as_dict() for row in rows]
    keys = ("similarity", "margin", "inverse_error_mm", "verdict", "reason", "review")
    columns: dict[str, list[Any]] = {
        f"fixed_{axis}": [None if row.fixed is None else row.fixed[i] for row in rows] for i, axis in enumerate("xyz")
    }
    columns |= {key: [row[key] for row in told] for key in keys}
    return columns


def _description(row: Row) -> str:
    """Description of a point, as shown by 3D Slicer: review, verdict and reason."""
    said = {"confirmed": "confirmed", "corrected": "corrected", "absent": "no counterpart"}.get(row.review, "")
    if row.match is None:
        return said
    found = f"{row.match.verdict}: {row.match.reason}" if row.match.reasons else str(row.match.verdict)
    return f"{said}; {found}" if said else found


def _row_of(told: dict[str, Any], key: str) -> Row:
    """Restore a row from its entry in the file."""
    if told["review"] not in _REVIEWS or told["asked"] not in ("fixed", "moving"):
        raise ValueError(f"review {told['review']!r}, asked {told['asked']!r}")
    match = None
    if told["verdict"] is not None:
        own, other = (told["fixed"], told["moving"]) if told["asked"] == "fixed" else (told["moving"], told["fixed"])

        def position(value: Any) -> np.ndarray[Any, Any]:
            return np.array([np.nan] * 3 if value is None else value, dtype=np.float64)

        match = Match(
            label=str(told["label"]),
            fixed=position(own),
            moving=position(told["found"] or (other if told["review"] == "proposed" else None)),
            similarity=_float(told["similarity"]),
            margin=_float(told["margin"]),
            inverse_error_mm=_float(told["inverse_error_mm"]),
            verdict=told["verdict"],
            reasons=tuple(Reason(str(reason["code"]), str(reason["text"])) for reason in told["reasons"]),
        )
    return Row(
        key,
        str(told["label"]),
        place(told["fixed"]),
        place(told["moving"]),
        told["asked"],
        place(told["found"]),
        match,
        told["review"],
    )


def _float(value: Any) -> float:
    return np.nan if value is None else float(value)
