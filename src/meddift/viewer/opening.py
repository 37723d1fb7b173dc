"""Sessions of what the command line names: a pair of scans, a follow-up, pairs that were opened lately."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from meddift.errors import MissingFileError
from meddift.geometry import Transform
from meddift.pipeline import Matcher
from meddift.pipeline.scan import EncodedScan
from meddift.points import Points
from meddift.viewer.desk import Desk
from meddift.viewer.opened import OpenedScan
from meddift.viewer.pairs import UnknownIdError
from meddift.viewer.recent import read_recent
from meddift.viewer.review import FollowUpReview
from meddift.viewer.session import Session, private_names
from meddift.viewer.sheet import Row, place


def open_pair(
    fixed: EncodedScan,
    moving: EncodedScan,
    folder: Path,
    *,
    points: Points | None = None,
    transform: Transform | None = None,
    names: tuple[Path | str, Path | str] | None = None,
) -> tuple[list[OpenedScan], Desk]:
    """Two scans ready to be looked at, with the list of points that was kept for them.

    Args:
        fixed: The scan in which points are given.
        moving: The other.
        folder: Where the list is kept.
        points: On the fixed scan; added to the list where no point of it has their label and place.
        transform: From fixed to moving, to scroll in step.
        names: Paths of the scans, which must not reach the page.

    Raises:
        OutputError: if the folder cannot be written to, or belongs to other scans.
    """
    private = ((), ()) if names is None else (private_names(names[0]), private_names(names[1]))
    scans = [
        OpenedScan("s0", "Fixed scan", _given(fixed), private[0]),
        OpenedScan("s1", "Moving scan", _given(moving), private[1]),
    ]
    desk = Desk("s0", "s1", folder, (fixed.digest, moving.digest), transform)
    desk.check()
    desk.read()
    if points is not None:
        known = {(row.label, row.fixed) for row in desk.sheet.rows}
        new = [(label, place(row)) for label, row in zip(points.labels, points.positions, strict=True)]
        rows = [Row(desk.sheet.new_id(), label, at, None) for label, at in new if (label, at) not in known]
        desk.sheet.begin([*desk.sheet.rows, *rows])
    return scans, desk


def pair_session(fixed: EncodedScan, moving: EncodedScan, folder: Path, **more: Any) -> Session:
    """The session of one pair; arguments as for `open_pair`."""
    scans, desk = open_pair(fixed, moving, folder, **more)
    return Session("pair", scans, desk=desk)


def follow_up_session(folder: Path, matcher: Matcher) -> Session:
    """The session of a follow-up.

    Raises:
        MissingFileError: if there is none, or a scan is no longer there.
    """
    review = FollowUpReview(folder, matcher)
    return Session("follow-up", review.scans, follow_up=review)


def store_session(matcher: Matcher) -> Session:
    """The session in which a pair is chosen that was opened lately.

    Raises:
        MissingFileError: if there is none.
    """
    store = _Store(matcher)
    if not store.told():
        raise MissingFileError(
            "no pair was opened lately whose scans are still there; open one with `meddift view FIXED MOVING`"
        )
    return Session("store", store=store)


class _Store:
    """Pairs that were opened lately; see `OpensRecent`."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher, self._pairs = matcher, read_recent()

    def told(self) -> list[dict[str, Any]]:
        """Number, day, what tells its scans from others, and number of points of each."""
        return [
            {"number": number, "day": pair.day, "about": pair.about, "points": _count(Path(pair.out))}
            for number, pair in enumerate(self._pairs)
        ]

    def open(self, number: int) -> tuple[list[OpenedScan], Desk]:
        """One of them."""
        if not 0 <= number < len(self._pairs):
            raise UnknownIdError(f"there is no pair {number}")
        pair = self._pairs[number]
        fixed, moving = self._matcher.scan(pair.fixed), self._matcher.scan(pair.moving)
        return open_pair(fixed, moving, Path(pair.out), names=(pair.fixed, pair.moving))


def _count(folder: Path) -> int:
    """How many points are kept."""
    import json

    from meddift.viewer.desk import LIST

    try:
        return len(json.loads((folder / LIST).read_text(encoding="utf-8"))["points"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _given(scan: EncodedScan) -> Callable[[], EncodedScan]:
    return lambda: scan
