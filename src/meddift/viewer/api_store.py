"""HTTP API: list recently opened pairs, and open one of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from meddift.viewer.api import ERRORS, session_of, work_of

router = APIRouter(prefix="/recent", responses=ERRORS)


@router.get("")
async def recent(request: Request) -> dict[str, Any]:
    """Recently opened pairs: numbers, days, and size, spacing and modality of their scans; no names and no paths."""
    return {"pairs": session_of(request).recent()}


@router.post("/{number}/open")
async def open_pair(request: Request, number: Annotated[int, Path(ge=0, le=1000)]) -> dict[str, Any]:
    """Open a recent pair; it replaces the pair that is open."""
    session = session_of(request)
    await work_of(request).run(lambda: session.open_recent(number))
    desk = session.the_desk
    return {"fixed": desk.fixed, "moving": desk.moving}
