"""HTTP API: scans, matching, and background jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

import meddift
from meddift.errors import MeddiftError, PointsError
from meddift.matching import Match
from meddift.viewer import schemas
from meddift.viewer.jobs import JobState
from meddift.viewer.pairs import UnknownIdError
from meddift.viewer.planes import Box, Plane, draw_map, draw_plane
from meddift.viewer.session import Session
from meddift.viewer.sheet import place
from meddift.viewer.work import Work

#: Error answers that every route may return.
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.ErrorAnswer, "description": text}
    for code, text in (
        (400, "what was asked makes no sense"),
        (401, "no token"),
        (403, "another origin"),
        (404, "no such id"),
        (408, "too slow"),
        (409, "not ready, or not possible now"),
        (413, "too large"),
        (421, "another host"),
        (422, "not in the form that is described here"),
    )
}

router = APIRouter(responses=ERRORS)

PathId = Annotated[str, Path(pattern=r"^[a-z][0-9]{1,9}$")]
QueryId = Annotated[str, Query(pattern=r"^[a-z][0-9]{1,9}$")]
_Number = Annotated[float, Query(ge=-1e5, le=1e5, allow_inf_nan=False)]

#: Seconds between checks for changes, and seconds without an event after which a keep-alive line is sent.
LOOK_SECONDS, ALIVE_SECONDS = 0.15, 15.0


class PreparingError(MeddiftError):
    """The pair is not prepared yet, so the request cannot be answered."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__("the scans are being made ready: ask again when the work is done")
        self.job = job


def session_of(request: Request) -> Session:
    """The session of this server."""
    found: Session = request.app.state.session
    return found


def work_of(request: Request) -> Work:
    """The threads of this server that run the matcher."""
    found: Work = request.app.state.work
    return found


def told(session: Session, state: JobState) -> dict[str, Any]:
    """State of a job, ready for JSON, without paths."""
    return {**asdict(state), "message": session.public(state.message)}


def described(match: Match) -> dict[str, Any]:
    """A match, ready for JSON."""
    return {"fixed": place(match.fixed), "moving": place(match.moving), **match.judged()}


# ---------------------------------------------------------------------- what is there


@router.get("/session")
async def session(request: Request) -> dict[str, Any]:
    """Mode of the viewer, ids and titles of the scans, and the pair whose points are listed."""
    found = session_of(request)
    desk = found.desk
    return {
        "version": meddift.__version__,
        "space": "RAS",
        "unit": "mm",
        "mode": found.mode,
        "scans": [{"id": scan.id, "title": scan.title} for scan in found.pairs.scans],
        "pair": None
        if desk is None
        else {"fixed": desk.fixed, "moving": desk.moving, "transform": desk.transform is not None},
        "jobs": [told(found, state) for state in found.jobs.states()],
    }


@router.get("/scans/{scan}")
async def scan(request: Request, scan: PathId) -> dict[str, Any]:
    """Geometry and display windows of a scan, and properties of the browser's copy; reads the scan if needed."""
    opened = session_of(request).pairs.scan(scan)
    return await work_of(request).run(opened.as_dict)


@router.get("/scans/{scan}/volume.nii", response_class=Response)
async def volume(request: Request, scan: PathId) -> Response:
    """The browser's copy as NIfTI: int16, sform equal to qform, slope 1; large scans have larger voxels."""
    opened = session_of(request).pairs.scan(scan)
    content = await work_of(request).run(lambda: opened.copy.nifti)
    return Response(content, media_type="application/octet-stream")


@router.get("/scans/{scan}/plane.png", response_class=Response)
async def plane(
    request: Request,
    scan: PathId,
    plane: Annotated[Plane, Query()],
    x: _Number,
    y: _Number,
    z: _Number,
    low: Annotated[float, Query(ge=-1e9, le=1e9, allow_inf_nan=False)],
    high: Annotated[float, Query(ge=-1e9, le=1e9, allow_inf_nan=False)],
    pixels: Annotated[int, Query(ge=16, le=1024)] = 384,
) -> Response:
    """A PNG of a plane of the scan across a world axis, over the scan's `box`; the patient's right is on the left."""
    opened = session_of(request).pairs.scan(scan)
    content = await work_of(request).run(
        lambda: draw_plane(opened.encoded.volume, plane, np.array([x, y, z]), pixels=pixels, low=low, high=high)
    )
    return Response(content, media_type="image/png")


# ---------------------------------------------------------------------- questions


@router.post("/prepare")
async def prepare(request: Request, asked: schemas.Two) -> dict[str, Any]:
    """Start a job that computes features of both scans and the displacement field between them."""
    found = session_of(request)
    found.pairs.check(asked.fixed, asked.moving)
    return told(found, found.pairs.prepare(asked.fixed, asked.moving).state)


@router.post("/match")
async def match(request: Request, asked: schemas.MatchRequest) -> dict[str, Any]:
    """Match points of one scan in the other; 409 `preparing` with the job until the pair is prepared."""
    found = session_of(request)
    _ready(found, asked.fixed, asked.moving)
    positions = np.array(asked.points, dtype=np.float64)
    matches = await work_of(request).latest(
        "match", asked.client, asked.number, lambda: found.pairs.match(asked.fixed, asked.moving, positions)
    )
    return {"number": asked.number, "matches": [described(one) for one in matches]}


@router.post("/similarity")
async def similarity(request: Request, asked: schemas.SimilarityRequest) -> dict[str, Any]:
    """Similarity of each position of the moving scan to a point: id and range of the map, and rival positions."""
    found = session_of(request)
    _ready(found, asked.fixed, asked.moving)
    answer = None if asked.answer is None else np.array(asked.answer)
    key, shown = await work_of(request).latest(
        "similarity",
        asked.client,
        asked.number,
        lambda: found.pairs.similarity(asked.fixed, asked.moving, np.array(asked.point), answer),
    )
    rivals = [asdict(rival) for rival in shown.rivals]
    told = {"low": shown.low, "high": shown.high, "scale": shown.scale, "rivals": rivals}
    return {"number": asked.number, "map": key, **told}


@router.get("/maps/{map}.nii", response_class=Response)
async def map_file(request: Request, map: PathId) -> Response:
    """A similarity map as NIfTI on its own coarse grid: int16, cosine divided by `scale`."""
    return Response(session_of(request).pairs.map(map).nifti, media_type="application/octet-stream")


@router.get("/maps/{map}/plane.png", response_class=Response)
async def map_plane(
    request: Request,
    map: PathId,
    scan: QueryId,
    plane: Annotated[Plane, Query()],
    x: _Number,
    y: _Number,
    z: _Number,
    pixels: Annotated[int, Query(ge=16, le=1024)] = 256,
) -> Response:
    """A PNG of a plane of a map, to be drawn over the same plane of its scan."""
    found = session_of(request)
    shown, opened = found.pairs.map(map), found.pairs.scan(scan)
    at = np.array([x, y, z])

    def work() -> bytes:
        box = Box.around(opened.encoded.grid)
        return draw_map(shown.similarity, box, plane, at, pixels=pixels, low=shown.low, high=shown.high)

    return Response(await work_of(request).run(work), media_type="image/png")


@router.post("/warp")
async def warp(request: Request, asked: schemas.WarpRequest) -> dict[str, Any]:
    """Map points by the displacement field; fast, but without verdicts."""
    found = session_of(request)
    found.pairs.check(asked.fixed, asked.moving)
    positions = np.array(asked.points, dtype=np.float64)

    def work() -> list[Any] | None:
        transform = found.transform(asked.fixed, asked.moving)
        return None if transform is None else [place(row) for row in transform.apply(positions)]

    carried = await work_of(request).run(work)
    if carried is None:
        raise PreparingError(told(found, found.pairs.prepare(asked.fixed, asked.moving).state))
    return {"number": asked.number, "points": carried}


@router.post("/register")
async def register(request: Request, asked: schemas.Two) -> dict[str, Any]:
    """Start a job that registers the pair; the transform is written when the list of points is saved."""
    found = session_of(request)
    found.pairs.check(asked.fixed, asked.moving)
    return told(found, found.pairs.register(asked.fixed, asked.moving).state)


@router.get("/registration")
async def registration(request: Request, fixed: QueryId, moving: QueryId) -> dict[str, Any]:
    """Result of a registration, without its maps."""
    done = session_of(request).pairs.registration(fixed, moving)
    if done is None:
        raise UnknownIdError("these scans are not registered (yet)")
    return await work_of(request).run(done.summary)


def _ready(found: Session, fixed: str, moving: str) -> None:
    """Start preparing a pair, if needed.

    Raises:
        PreparingError: if the pair is not prepared yet.
        PointsError: if preparing has failed.
    """
    found.pairs.check(fixed, moving)
    job = found.pairs.prepare(fixed, moving)
    state = job.state
    if state.state == "failed":
        raise PointsError(state.message)
    if state.state != "done":
        raise PreparingError(told(found, state))


# ---------------------------------------------------------------------- work in the background


@router.get("/jobs")
async def jobs(request: Request) -> dict[str, Any]:
    """States of the background jobs."""
    found = session_of(request)
    return {"jobs": [told(found, state) for state in found.jobs.states()]}


@router.post("/jobs/{job}/cancel")
async def cancel(request: Request, job: PathId) -> dict[str, Any]:
    """Cancel a job; it ends at its next step."""
    found = session_of(request)
    running = found.jobs.get(job)
    if running is None:
        raise UnknownIdError(f"there is no job {job!r}")
    running.cancel()
    return told(found, running.state)


@router.get("/events", response_class=StreamingResponse)
async def events(
    request: Request, once: Annotated[bool, Query(description="end after the first event")] = False
) -> StreamingResponse:
    """Server-sent events with the states of all jobs and the version of the list of points, sent after changes."""
    found = session_of(request)

    async def stream() -> AsyncIterator[str]:
        seen: Any = None
        silent = 0.0
        while not found.ending and not await request.is_disconnected():
            sheet = None if found.desk is None else found.desk.sheet.version
            now = found.jobs.version, sheet
            if now != seen:
                seen, silent = now, 0.0
                content = {"jobs": [told(found, state) for state in found.jobs.states()], "points": sheet}
                yield f"data: {json.dumps(content)}\n\n"
            if once:
                return
            await asyncio.sleep(LOOK_SECONDS)
            silent += LOOK_SECONDS
            if silent >= ALIVE_SECONDS:
                silent = 0.0
                yield ": alive\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")
