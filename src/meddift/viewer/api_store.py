"""The API: pairs that were opened lately, by number, and opening one of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from meddift.viewer.api import ERRORS, session_of, work_of

router = APIRouter(prefix="/recent", responses=ERRORS)


@router.get("")
async def recent(request: Request) -> dict[str, Any]:
    """What was opened lately: numbers, days, size, voxels and modality of the scans; no names and no paths."""
    return {"pairs": session_of(request).recent()}


@router.post("/{number}/open")
async def open_pair(request: Request, number: Annotated[int, Path(ge=0, le=1000)]) -> dict[str, Any]:
    """Open a pair of the list; its scans and points take the place of those that were open."""
    session = session_of(request)
    await work_of(request).run(lambda: session.open_recent(number))
    desk = session.the_desk
    return {"fixed": desk.fixed, "moving": desk.moving}
