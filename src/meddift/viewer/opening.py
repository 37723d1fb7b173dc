"""Create sessions for a pair of scans, for tracked lesions, or for recently opened pairs."""

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
    """Open two scans with the list of points that is stored for them.

    Args:
        fixed: The fixed scan, in which points are given.
        moving: The moving scan.
        folder: Folder of the list.
        points: Points on the fixed scan, world RAS mm; added unless the list has a point with the same label and
            position.
        transform: Maps fixed to moving points, to scroll both scans together.
        names: Paths of the scans, which must not appear on the page.

    Returns:
        Both scans, and the pair with its list.

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
    """Create the session of one pair; arguments as for `open_pair`."""
    scans, desk = open_pair(fixed, moving, folder, **more)
    return Session("pair", scans, desk=desk)


def follow_up_session(folder: Path, matcher: Matcher) -> Session:
    """Create the session for results of `meddift track`.

    Args:
        folder: Output folder of `meddift track`.
        matcher: Encodes scans when points are matched.

    Raises:
        MissingFileError: if the folder holds no such results, or a scan no longer exists.
    """
    review = FollowUpReview(folder, matcher)
    return Session("follow-up", review.scans, follow_up=review)


def store_session(matcher: Matcher) -> Session:
    """Create the session in which a recently opened pair can be chosen.

    Args:
        matcher: Encodes the scans of the chosen pair.

    Raises:
        MissingFileError: if there is no recent pair.
    """
    store = _Store(matcher)
    if not store.told():
        raise MissingFileError(
            "no pair was opened lately whose scans are still there; open one with `meddift view FIXED MOVING`"
        )
    return Session("store", store=store)


class _Store:
    """Recently opened pairs; implements `OpensRecent`."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher, self._pairs = matcher, read_recent()

    def told(self) -> list[dict[str, Any]]:
        """Number, day, description of the scans, and number of points of each pair, ready for JSON."""
        return [
            {"number": number, "day": pair.day, "about": pair.about, "points": _count(Path(pair.out))}
            for number, pair in enumerate(self._pairs)
        ]

    def open(self, number: int) -> tuple[list[OpenedScan], Desk]:
        """Open a pair by its number."""
        if not 0 <= number < len(self._pairs):
            raise UnknownIdError(f"there is no pair {number}")
        pair = self._pairs[number]
        fixed, moving = self._matcher.scan(pair.fixed), self._matcher.scan(pair.moving)
        return open_pair(fixed, moving, Path(pair.out), names=(pair.fixed, pair.moving))


def _count(folder: Path) -> int:
    """Number of points stored in a folder."""
    import json

    from meddift.viewer.desk import LIST

    try:
        return len(json.loads((folder / LIST).read_text(encoding="utf-8"))["points"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _given(scan: EncodedScan) -> Callable[[], EncodedScan]:
    return lambda: scan
