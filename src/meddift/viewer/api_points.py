"""HTTP API: the list of points of a pair."""

from __future__ import annotations

import tempfile
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from meddift.errors import PointsError
from meddift.matching import Match
from meddift.viewer import schemas
from meddift.viewer.api import ERRORS, PathId, session_of, work_of
from meddift.viewer.desk import side_points
from meddift.viewer.session import Session
from meddift.viewer.sheet import Row, Sheet, place

router = APIRouter(prefix="/points", responses=ERRORS)

#: Suffixes of points files for download and upload.
_SUFFIXES = (".mrk.json", ".fcsv", ".csv", ".tsv", ".txt", ".pts", ".json")


@router.get("")
async def points(request: Request) -> dict[str, Any]:
    """The list of points with their reviews."""
    return session_of(request).sheet.as_dict()


@router.post("")
async def add(request: Request, new: schemas.NewPoint) -> dict[str, Any]:
    """Add a point; it is matched if the pair is prepared, and may have a review or a corrected position."""
    session = session_of(request)
    desk = session.the_desk
    fixed, moving = (desk.fixed, desk.moving) if new.asked == "fixed" else (desk.moving, desk.fixed)
    position = np.array(new.position)

    def work() -> Row:
        match: Match | None = (
            session.pairs.match(fixed, moving, position[None])[0] if session.pairs.is_prepared(fixed, moving) else None
        )
        return desk.add(
            asked=new.asked,
            position=position,
            match=match,
            corrected=None if new.corrected is None else np.array(new.corrected),
            review=new.review,
            label=new.label,
        )

    row = await work_of(request).run(work)
    return {"added": row.id, **session.sheet.as_dict()}


@router.patch("/{row}")
async def change(request: Request, row: PathId, changed: schemas.ChangedPoint) -> dict[str, Any]:
    """Change the label, the review, or the corrected position of a point."""
    sheet = session_of(request).sheet
    changes = changes_of(sheet.get(row), changed)
    if changes:
        sheet.change(row, **changes)
    return sheet.as_dict()


def changes_of(row: Row, changed: schemas.ChangedPoint) -> dict[str, Any]:
    """The fields of a row that a request changes, by name.

    Raises:
        PointsError: if a point without a position in the other scan is confirmed.
    """
    changes: dict[str, Any] = {}
    other = "moving" if row.asked == "fixed" else "fixed"
    if changed.label is not None:
        changes["label"] = changed.label
    if changed.corrected is not None:
        changes[other], changes["review"] = place(changed.corrected), changed.review or "corrected"
    elif changed.review is not None:
        changes["review"] = changed.review
        if changed.review == "absent":
            changes[other] = None
        elif changed.review in ("proposed", "confirmed"):
            # Confirmed: a point that was moved or marked absent returns to the position found by the matcher.
            found = None if row.match is None else place(row.match.moving)
            changes[other] = found
            if changed.review == "confirmed" and found is None:
                raise PointsError(
                    "a point that was not found cannot be confirmed: put it where it is, or say that it is not there"
                )
        elif getattr(row, other) is None:
            raise PointsError("a point without a place in the other scan cannot be called right: put it there first")
    return changes


@router.delete("/{row}")
async def remove(request: Request, row: PathId) -> dict[str, Any]:
    """Remove a point from the list."""
    sheet = session_of(request).sheet
    sheet.remove(row)
    return sheet.as_dict()


@router.post("/undo")
async def undo(request: Request) -> dict[str, Any]:
    """Undo the last change of the list."""
    sheet = session_of(request).sheet
    sheet.undo()
    return sheet.as_dict()


@router.post("/answer")
async def answer(request: Request) -> dict[str, Any]:
    """Match all points of the list that were not matched yet."""
    session = session_of(request)
    desk = session.the_desk
    if session.pairs.is_prepared(desk.fixed, desk.moving):
        await work_of(request).run(session.answer_rows)
    else:
        session.pairs.prepare(desk.fixed, desk.moving)
    return session.sheet.as_dict()


@router.post("/save")
async def save(request: Request) -> dict[str, Any]:
    """Write the list of points to the output folder, as the command line does."""
    session = session_of(request)
    desk = session.the_desk

    def work() -> list[str]:
        written = desk.save()
        registration = session.pairs.registration(desk.fixed, desk.moving)
        if registration is not None:
            path = desk.folder / "fixed-to-moving.h5"
            registration.save(path)
            written.append(path)
        return [path.name for path in written]

    files = await work_of(request).run(work)
    return {"files": files, **session.sheet.as_dict()}


@router.post("/import")
async def take_in(request: Request, given: schemas.ImportedPoints) -> dict[str, Any]:
    """Add the points of a file, which lie on the fixed scan."""
    session = session_of(request)
    rows = await work_of(request).run(lambda: _read(session, given))
    session.sheet.add(rows)
    return session.sheet.as_dict()


def _read(session: Session, given: schemas.ImportedPoints) -> list[Row]:
    from meddift.io import read_points

    name = given.name.lower()
    suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
    if suffix is None:
        raise PointsError(f"points are read from {', '.join(_SUFFIXES)}; this file has another suffix")
    with tempfile.TemporaryDirectory() as folder:
        path = FilePath(folder, f"points{suffix}")
        path.write_text(given.content, encoding="utf-8")
        try:
            found = read_points(path, space=given.space, grid=session.pairs.scan(session.the_desk.fixed).encoded.grid)
        except PointsError as error:
            raise type(error)(str(error).replace(str(path), "the file")) from error
    return rows_of(session.sheet, found.positions, found.labels)


def rows_of(sheet: Sheet, positions: np.ndarray[Any, Any], labels: tuple[str, ...]) -> list[Row]:
    """Points on the fixed scan, (N, 3) world RAS mm, as rows without match and review."""
    return [
        Row(sheet.new_id(), label, place(position), None) for label, position in zip(labels, positions, strict=True)
    ]


@router.get("/export", response_class=Response)
async def hand_out(
    request: Request,
    side: Annotated[Literal["fixed", "moving"], Query()],
    suffix: Annotated[Literal[".mrk.json", ".fcsv", ".csv"], Query()] = ".mrk.json",
) -> Response:
    """Download the points on one scan as a file."""
    from meddift.io.points import format_points

    rows = session_of(request).sheet.rows
    text = format_points(side_points(rows, side), FilePath(f"{side}{suffix}"))
    return Response(
        text,
        media_type="application/octet-stream",
        headers={"content-disposition": f'attachment; filename="{side}{suffix}"'},
    )
