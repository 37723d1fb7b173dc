"""Schemas of requests and answers. Positions are three numbers, world RAS mm."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

#: Largest absolute value of a coordinate, mm.
_FAR = 100_000.0
#: Largest number of points in a request.
MOST_POINTS = 2000

Coordinate = Annotated[FiniteFloat, Field(ge=-_FAR, le=_FAR)]
Position = Annotated[list[Coordinate], Field(min_length=3, max_length=3, description="x, y, z in world RAS mm")]
Id = Annotated[str, Field(pattern=r"^[a-z][0-9]{1,9}$", description="as listed by /session")]
Label = Annotated[str, Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    """A schema in which unknown fields are an error."""

    model_config = ConfigDict(extra="forbid")


class Two(_Strict):
    """Two scans: points lie on the fixed scan and are matched in the moving scan."""

    fixed: Id
    moving: Id


class MatchRequest(Two):
    """Points to be matched."""

    points: Annotated[list[Position], Field(min_length=1, max_length=MOST_POINTS)]
    number: Annotated[int, Field(ge=0, le=2**53)] = Field(
        default=0, description="comes back with the answer, so that late ones can be told and dropped"
    )
    client: Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9-]*$")] = Field(
        default="", description="who asks; a question is given up when the same client has asked a later one"
    )


class SimilarityRequest(Two):
    """A point for which a similarity map is computed."""

    point: Position
    answer: Position | None = Field(default=None, description="where it was found: there are no rivals near it")
    number: Annotated[int, Field(ge=0, le=2**53)] = 0
    client: Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9-]*$")] = ""


class WarpRequest(Two):
    """Points to be mapped by the displacement field."""

    points: Annotated[list[Position], Field(min_length=1, max_length=MOST_POINTS)]
    number: Annotated[int, Field(ge=0, le=2**53)] = 0


class NewPoint(_Strict):
    """A point to be added to the list."""

    asked: Literal["fixed", "moving"] = "fixed"
    position: Position
    corrected: Position | None = Field(default=None, description="in the other scan, where a person has put it")
    review: Literal["proposed", "confirmed", "corrected", "absent"] = "proposed"
    label: Label | None = None


class ChangedPoint(_Strict):
    """Changes of a point of the list; None keeps a field."""

    label: Label | None = None
    review: Literal["proposed", "confirmed", "corrected", "absent"] | None = None
    corrected: Position | None = Field(default=None, description="in the other scan, where a person has put it")


class ImportedPoints(_Strict):
    """The content of a points file; its points lie on the fixed scan."""

    name: Annotated[str, Field(max_length=200, description="only its suffix counts: it says the format")]
    content: Annotated[str, Field(max_length=3_000_000)]
    space: Literal["ras", "lps", "voxel", "voxel1"] | None = Field(
        default=None, description="frame of files that do not name one"
    )


class FollowUpDecision(_Strict):
    """Review of one lesion at one time point."""

    review: Literal["proposed", "confirmed", "corrected", "rejected"]
    label: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="what it is called there; several parts are joined by +"
    )
    state: Literal["baseline", "matched", "new", "disappeared", "split", "merged", "outside", "uncertain"] | None = (
        None
    )


class Problem(BaseModel):
    """An error."""

    code: str = Field(description="refused, invalid, unknown, preparing, superseded or failed")
    message: str


class ErrorAnswer(BaseModel):
    """The answer with any status of 400 and above."""

    error: Problem
    job: dict[str, Any] | None = Field(default=None, description="how far the work is that the answer waits for")
