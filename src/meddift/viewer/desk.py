"""The pair whose points are listed, and the folder in which they are kept: written all together, read at the start."""

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

#: The file from which a list is read again; says that the folder is ours.
LIST = "points.json"
#: Raised whenever an older program could not read the file.
VERSION = 1
#: Files with the points of a list, beside it.
POINT_FILES = ("fixed.mrk.json", "moving.mrk.json", "moving.csv")
_REVIEWS = ("proposed", "confirmed", "corrected", "absent")


def is_points_folder(folder: Path) -> bool:
    """Whether a folder was written by the viewer."""
    return (folder / LIST).is_file()


@dataclass(eq=False)
class Desk:
    """One pair in work.

    Attributes:
        fixed: Id of the scan in which points are usually given.
        moving: Id of the other.
        folder: Where the list is kept; made when it is saved.
        digests: sha256 of both scans.
        transform: From fixed to moving world points, where one was given; to scroll in step.
        sheet: The list.
    """

    fixed: str
    moving: str
    folder: Path
    digests: tuple[str, str]
    transform: Transform | None = None
    sheet: Sheet = field(default_factory=Sheet)

    @once
    def transform_back(self) -> Transform | None:
        """The way back."""
        return None if self.transform is None else self.transform.inverted()

    def check(self) -> None:
        """Say before any work that nothing can be written, or that the folder belongs to other scans.

        Raises:
            OutputError: if so.
        """
        check_folder(self.folder, is_points_folder)
        if is_points_folder(self.folder) and self._content()["scans"] != list(self.digests):
            raise OutputError(
                f"{self.folder} holds points of two other scans; give another folder with --out, or delete it"
            )

    def read(self) -> bool:
        """Put the list that was kept into the sheet; whether there was one.

        Raises:
            OutputError: if it is damaged.
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
        """Write the list: points of both scans, a table, and the list itself. All of them or none.

        Of a list without points only itself is written, and what an earlier one has left is removed.

        Returns:
            The files.

        Raises:
            OutputError: if one cannot be written; then none is changed.
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
        """All points on one scan, "fixed" or "moving"; those without a place there are missing."""
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
        """Put a point into the list.

        Args:
            asked: In which scan it was given.
            position: (3,), world RAS mm there.
            match: What the engine says of it.
            corrected: (3,) in the other scan, where a person has put it; None leaves what was found.
            review: See `Row`.
            label: None takes the next number.

        Raises:
            PointsError: if the point is said to be right although it was not found.
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
    """The points of a list on one scan, "fixed" or "moving"; NaN where a row has no place there."""
    nowhere = (np.nan,) * 3
    places = [getattr(row, side) or nowhere for row in rows]
    return Points(np.array(places, dtype=np.float64).reshape(-1, 3), tuple(row.label for row in rows))


def table_columns(rows: tuple[Row, ...]) -> dict[str, list[Any]]:
    """What is known of each row beside its place on the moving scan."""
    told = [row.as_dict() for row in rows]
    keys = ("similarity", "margin", "inverse_error_mm", "verdict", "reason", "review")
    columns: dict[str, list[Any]] = {
        f"fixed_{axis}": [None if row.fixed is None else row.fixed[i] for row in rows] for i, axis in enumerate("xyz")
    }
    columns |= {key: [row[key] for row in told] for key in keys}
    return columns


def _description(row: Row) -> str:
    """What 3D Slicer shows beside a point."""
    said = {"confirmed": "confirmed", "corrected": "corrected", "absent": "no counterpart"}.get(row.review, "")
    if row.match is None:
        return said
    found = f"{row.match.verdict}: {row.match.reason}" if row.match.reasons else str(row.match.verdict)
    return f"{said}; {found}" if said else found


def _row_of(told: dict[str, Any], key: str) -> Row:
    """A row as it stands in the file."""
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
