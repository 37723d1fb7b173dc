"""HTTP API: lesions over time, and the review of their links."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from meddift.viewer import schemas
from meddift.viewer.api import ERRORS, session_of, work_of
from meddift.viewer.pairs import UnknownIdError
from meddift.viewer.review import FollowUpReview
from meddift.viewer.session import Session

router = APIRouter(prefix="/follow-up", responses=ERRORS)

Lesion = Annotated[str, Path(pattern=r"^[0-9]{1,9}$")]
TimePoint = Annotated[int, Path(ge=0, le=1000)]


def review_of(session: Session) -> FollowUpReview:
    """The lesions of this session.

    Raises:
        UnknownIdError: if no lesion tracking is open.
    """
    if session.follow_up is None:
        raise UnknownIdError("no follow-up is open")
    return session.follow_up


@router.get("")
async def follow_up(request: Request) -> dict[str, Any]:
    """Time points, lesions, curves of their sizes, and the decisions so far."""
    return await work_of(request).run(review_of(session_of(request)).as_dict)


@router.patch("/{lesion}/{timepoint}")
async def decide(
    request: Request, lesion: Lesion, timepoint: TimePoint, said: schemas.FollowUpDecision
) -> dict[str, Any]:
    """Confirm, correct or reject the result for one lesion at one time point."""
    review = review_of(session_of(request))
    review.decide(lesion, timepoint, review=said.review, label=said.label, state=said.state)
    return review.as_dict()


@router.post("/undo")
async def undo(request: Request) -> dict[str, Any]:
    """Undo the last decision."""
    review = review_of(session_of(request))
    review.undo()
    return review.as_dict()


@router.post("/save")
async def save(request: Request) -> dict[str, Any]:
    """Write the table that `meddift track --review` reads."""
    review = review_of(session_of(request))
    name = await work_of(request).run(review.save)
    return {"files": [name], **review.as_dict()}


@router.get("/{lesion}/{timepoint}/picture.svg", response_class=Response)
async def picture(request: Request, lesion: Lesion, timepoint: TimePoint) -> Response:
    """An SVG of the lesion, or of its expected position, in the acquisition plane with the outline of its mask."""
    session = session_of(request)
    review = review_of(session)
    content = await work_of(request).run(lambda: review.picture(lesion, timepoint))
    return Response(content, media_type="image/svg+xml")
