"""`Session`: the state of one server, which is scans, background jobs, a list of points and tracked lesions."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from meddift.errors import OptionsError
from meddift.geometry import Transform
from meddift.viewer.jobs import Jobs
from meddift.viewer.opened import OpenedScan
from meddift.viewer.pairs import Pairs, UnknownIdError
from meddift.viewer.sheet import Sheet

if TYPE_CHECKING:
    from meddift.viewer.desk import Desk
    from meddift.viewer.review import FollowUpReview

#: Longest wait for background jobs at the end, s.
CLOSE_SECONDS = 3.0
Mode = Literal["pair", "follow-up", "store"]


class OpensRecent(Protocol):
    """Interface to the recently opened pairs."""

    def told(self) -> list[dict[str, Any]]:
        """Descriptions of the pairs for the page, ready for JSON."""

    def open(self, number: int) -> tuple[list[OpenedScan], Desk]:
        """Open a pair by its number."""


class Session:
    """Scans, background jobs, and the reviews of a person. Thread-safe.

    Args:
        mode: Mode of the page.
        scans: All scans.
        desk: The pair whose points are listed; None if there is none.
        follow_up: Lesions to be reviewed; None in other modes.
        store: Opens recent pairs; None if a pair was named at the start.

    Attributes:
        mode: As above.
        ending: Whether the server is about to stop.
        jobs: Background jobs.
        pairs: The scans, and computations between two of them.
        desk: As above.
        follow_up: As above.
    """

    def __init__(
        self,
        mode: Mode,
        scans: Iterable[OpenedScan] = (),
        *,
        desk: Desk | None = None,
        follow_up: FollowUpReview | None = None,
        store: OpensRecent | None = None,
    ) -> None:
        self.mode: Mode = mode
        self.ending = False
        self.jobs = Jobs()
        self.pairs = Pairs(scans, self.jobs)
        self.desk, self.follow_up, self._store = desk, follow_up, store
        self._lock = threading.RLock()

    @property
    def sheet(self) -> Sheet:
        """The list of points.

        Raises:
            OptionsError: if no pair is open.
        """
        return self.the_desk.sheet

    @property
    def the_desk(self) -> Desk:
        """The pair whose points are listed.

        Raises:
            OptionsError: if none is open.
        """
        if self.desk is None:
            raise OptionsError("no pair of scans is open: there is no list of points")
        return self.desk

    def close(self) -> None:
        """Cancel all jobs."""
        self.ending = True
        self.jobs.close(wait_seconds=CLOSE_SECONDS)

    def public(self, text: str) -> str:
        """Remove paths and file names, which may contain the name of a patient, from a message."""
        for scan in self.pairs.scans:
            for private in sorted(scan.private, key=len, reverse=True):
                text = text.replace(private, f"the scan {scan.title!r}")
        return text

    # ------------------------------------------------------------------ pairs that were opened lately

    def recent(self) -> list[dict[str, Any]]:
        """Recent pairs without names: number, day, description of the scans, and number of points."""
        return [] if self._store is None else self._store.told()

    def open_recent(self, number: int) -> None:
        """Open a recent pair instead of the current one.

        Raises:
            UnknownIdError: if there is no such pair.
            OptionsError: if the current list has unsaved changes.
            MeddiftError: if the pair cannot be read.
        """
        if self._store is None:
            raise UnknownIdError("this server was started for one pair")
        if self.desk is not None and not self.desk.sheet.is_saved:
            raise OptionsError("the points of the pair that is open are not saved; save or undo them first")
        scans, desk = self._store.open(number)
        with self._lock:
            for job in self.jobs.states():
                if not job.is_over and (running := self.jobs.get(job.id)) is not None:
                    running.cancel()
            self.pairs = Pairs(scans, self.jobs)
            self.desk = desk

    # ------------------------------------------------------------------ the pair whose points are listed

    def transform(self, fixed: str, moving: str) -> Transform | None:
        """The best known transform from one scan to the other; None if none is known yet.

        This is the transform given at the start, unless the scans were registered since; else see `Pairs.transform`.
        """
        desk = self.desk
        registered = self.pairs.registration(fixed, moving) or self.pairs.registration(moving, fixed)
        if desk is not None and desk.transform is not None and registered is None:
            if (fixed, moving) == (desk.fixed, desk.moving):
                return desk.transform
            if (moving, fixed) == (desk.fixed, desk.moving):
                return desk.transform_back
        return self.pairs.transform(fixed, moving)

    def answer_rows(self) -> int:
        """Match all points of the list that were not matched yet; returns their number."""
        desk = self.the_desk
        open_rows = [row for row in desk.sheet.rows if row.match is None and row.fixed and row.asked == "fixed"]
        if open_rows:
            positions = np.array([row.fixed for row in open_rows], dtype=np.float64)
            found = self.pairs.match(desk.fixed, desk.moving, positions)
            desk.sheet.answered({row.id: match for row, match in zip(open_rows, found, strict=True)})
        return len(open_rows)


def private_names(path: Path | str) -> tuple[str, ...]:
    """Path and name of a file in all spellings that a message may contain."""
    path = Path(path)
    return tuple(dict.fromkeys(text for text in (str(path.absolute()), str(path), path.name) if len(text) > 2))
