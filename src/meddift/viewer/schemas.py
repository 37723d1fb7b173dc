"""What requests and answers hold. Positions are world RAS mm, three numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

#: No patient is larger than this, mm.
_FAR = 100_000.0
#: Points in one request.
MOST_POINTS = 2000

Coordinate = Annotated[FiniteFloat, Field(ge=-_FAR, le=_FAR)]
Position = Annotated[list[Coordinate], Field(min_length=3, max_length=3, description="x, y, z in world RAS mm")]
Id = Annotated[str, Field(pattern=r"^[a-z][0-9]{1,9}$", description="as listed by /session")]
Label = Annotated[str, Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    """Fields that nobody knows are an error."""

    model_config = ConfigDict(extra="forbid")


class Two(_Strict):
    """Two scans: points lie on the fixed one and are looked for in the moving one."""

    fixed: Id
    moving: Id


class MatchRequest(Two):
    """Points to be found."""

    points: Annotated[list[Position], Field(min_length=1, max_length=MOST_POINTS)]
    number: Annotated[int, Field(ge=0, le=2**53)] = Field(
        default=0, description="comes back with the answer, so that late ones can be told and dropped"
    )
    client: Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9-]*$")] = Field(
        default="", description="who asks; a question is given up when the same client has asked a later one"
    )


class SimilarityRequest(Two):
    """A point for which a map is wanted."""

    point: Position
    answer: Position | None = Field(default=None, description="where it was found: there are no rivals near it")
    number: Annotated[int, Field(ge=0, le=2**53)] = 0
    client: Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9-]*$")] = ""


class WarpRequest(Two):
    """Points to be carried by the field."""

    points: Annotated[list[Position], Field(min_length=1, max_length=MOST_POINTS)]
    number: Annotated[int, Field(ge=0, le=2**53)] = 0


class NewPoint(_Strict):
    """A point for the list."""

    asked: Literal["fixed", "moving"] = "fixed"
    position: Position
    corrected: Position | None = Field(default=None, description="in the other scan, where a person has put it")
    review: Literal["proposed", "confirmed", "corrected", "absent"] = "proposed"
    label: Label | None = None


class ChangedPoint(_Strict):
    """What changes in a point of the list."""

    label: Label | None = None
    review: Literal["proposed", "confirmed", "corrected", "absent"] | None = None
    corrected: Position | None = Field(default=None, description="in the other scan, where a person has put it")


class ImportedPoints(_Strict):
    """A points file on the fixed scan, as it stands."""

    name: Annotated[str, Field(max_length=200, description="only its suffix counts: it says the format")]
    content: Annotated[str, Field(max_length=3_000_000)]
    space: Literal["ras", "lps", "voxel", "voxel1"] | None = Field(
        default=None, description="frame of files that do not name one"
    )


class FollowUpDecision(_Strict):
    """What a person says about one lesion at one time point."""

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
    """What comes with every status of 400 and above."""

    error: Problem
    job: dict[str, Any] | None = Field(default=None, description="how far the work is that the answer waits for")
