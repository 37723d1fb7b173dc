"""`Session`: all that one server holds. Scans and pairs by id, work in the background, the list of points."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError, PointsError
from meddift.geometry import Transform
from meddift.matching import Match
from meddift.pipeline.pair import Pair
from meddift.points import Points
from meddift.system.once import known
from meddift.system.progress import Progress, silent
from meddift.viewer.jobs import Job, Jobs
from meddift.viewer.maps import SPACING_MM, ShownMap, shown_map
from meddift.viewer.opened import OpenedScan
from meddift.viewer.sheet import Row, Sheet, place

if TYPE_CHECKING:
    from meddift.registration import Registration
    from meddift.viewer.desk import Desk
    from meddift.viewer.review import FollowUpReview

#: Maps that are kept for the browser to fetch.
MOST_MAPS = 12
#: How long the end waits for work in the background.
CLOSE_SECONDS = 3.0
Mode = Literal["pair", "follow-up", "store"]


class OpensRecent(Protocol):
    """Pairs that were opened lately."""

    def told(self) -> list[dict[str, Any]]:
        """What the page is told of them."""

    def open(self, number: int) -> tuple[list[OpenedScan], Desk]:
        """One of them."""


class UnknownIdError(OptionsError):
    """A request names a scan, a job or a map that is not there."""


class Session:
    """Scans, what is asked about them, and what a person says.

    Any number of threads may use one session.

    Args:
        mode: What the page shows.
        scans: All that can be looked at.
        desk: The pair whose points are listed; None where there is none.
        follow_up: Lesions to be reviewed; None outside follow-up mode.
        store: Opens pairs that were opened lately; None where a pair was named.

    Attributes:
        mode: As above.
        ending: Whether the server is about to stop, so that nothing waits any longer.
        jobs: Work in the background.
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
        self.desk, self.follow_up, self._store = desk, follow_up, store
        self._scans = {scan.id: scan for scan in scans}
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._preparing: dict[tuple[str, str], Job] = {}
        self._registering: dict[tuple[str, str], Job] = {}
        self._maps: OrderedDict[str, ShownMap] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    # ------------------------------------------------------------------ scans and pairs

    @property
    def scans(self) -> list[OpenedScan]:
        """All scans, in order."""
        return list(self._scans.values())

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

    def scan(self, key: str) -> OpenedScan:
        """The scan of an id.

        Raises:
            UnknownIdError: if there is none.
        """
        if key not in self._scans:
            raise UnknownIdError(f"there is no scan {key!r}")
        return self._scans[key]

    def pair(self, fixed: str, moving: str) -> Pair:
        """Two scans between which points are asked.

        Raises:
            UnknownIdError: if a scan is not there.
            OptionsError: if they are one.
        """
        self.pair_ids(fixed, moving)
        one, other = self.scan(fixed), self.scan(moving)
        with self._lock:
            if (fixed, moving) not in self._pairs:
                self._pairs[fixed, moving] = Pair(one.encoded, other.encoded, silent)
            return self._pairs[fixed, moving]

    def pair_ids(self, fixed: str, moving: str) -> None:
        """See that two scans can be a pair, without reading them.

        Raises:
            UnknownIdError: if a scan is not there.
            OptionsError: if they are one.
        """
        self.scan(fixed), self.scan(moving)
        if fixed == moving:
            raise OptionsError("a point is looked for in another scan than its own: the two scans must differ")

    def close(self) -> None:
        """End all work."""
        self.ending = True
        self.jobs.close(wait_seconds=CLOSE_SECONDS)

    def public(self, text: str) -> str:
        """A message without paths and file names, which may hold the name of a patient."""
        for scan in self.scans:
            for private in sorted(scan.private, key=len, reverse=True):
                text = text.replace(private, f"the scan {scan.title!r}")
        return text

    # ------------------------------------------------------------------ pairs that were opened lately

    def recent(self) -> list[dict[str, Any]]:
        """Pairs that can be opened, without names: number, day, and how many points are kept."""
        return [] if self._store is None else self._store.told()

    def open_recent(self, number: int) -> None:
        """Open one of them in the place of what is open.

        Raises:
            UnknownIdError: if there is no such pair.
            OptionsError: if changes of the list that is open are not saved.
            MeddiftError: if it cannot be read.
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
            self._scans = {scan.id: scan for scan in scans}
            self._pairs, self._preparing, self._registering = {}, {}, {}
            self._maps.clear()
            self.desk = desk

    # ------------------------------------------------------------------ questions

    def prepare(self, fixed: str, moving: str) -> Job:
        """Compute in the background what is the same for all points; the job that does, or did."""
        self.scan(fixed), self.scan(moving)
        with self._lock:
            job = self._preparing.get((fixed, moving))
            if job is None or job.state.state in ("failed", "cancelled"):

                def work(report: Progress) -> None:
                    self.pair(fixed, moving).prepare(on_progress=report)

                job = self._preparing[fixed, moving] = self.jobs.start("prepare", f"{fixed}>{moving}", work)
            return job

    def is_prepared(self, fixed: str, moving: str) -> bool:
        """Whether points are answered at once."""
        job = self._preparing.get((fixed, moving))
        return job is not None and job.state.state == "done"

    def match(self, fixed: str, moving: str, positions: NDArray[np.float64]) -> list[Match]:
        """Find points of one scan in the other.

        Args:
            fixed: Id of the scan on which they lie.
            moving: Id of the other.
            positions: (N, 3), world RAS mm.
        """
        return list(self.pair(fixed, moving).match(Points(positions)))

    def similarity(
        self, fixed: str, moving: str, position: NDArray[np.float64], answer: NDArray[np.float64] | None
    ) -> tuple[str, ShownMap]:
        """A map of one scan for a point of the other, kept for a while under an id.

        Args:
            fixed: Id of the scan on which the point lies.
            moving: Id of the scan that the map covers.
            position: (3,), world RAS mm.
            answer: The place found, (3,); None where there is none.
        """
        found = self.pair(fixed, moving).similarity(position, spacing_mm=SPACING_MM)
        shown = shown_map(found, answer)
        with self._lock:
            key = f"m{next(self._numbers)}"
            self._maps[key] = shown
            while len(self._maps) > MOST_MAPS:
                self._maps.popitem(last=False)
        return key, shown

    def map(self, key: str) -> ShownMap:
        """A map that was made before.

        Raises:
            UnknownIdError: if there is none of this id, or it was long ago.
        """
        with self._lock:
            if key not in self._maps:
                raise UnknownIdError(f"there is no map {key!r}, or not any more: ask for the similarity again")
            return self._maps[key]

    def transform(self, fixed: str, moving: str) -> Transform | None:
        """What carries points of one scan to the other at once; None where nothing is known yet.

        The one that was given at the start, or else the field of the pair, or the inverse of the way back.
        """
        desk = self.desk
        if desk is not None and desk.transform is not None:
            if (fixed, moving) == (desk.fixed, desk.moving):
                return desk.transform
            if (moving, fixed) == (desk.fixed, desk.moving):
                return desk.transform_back
        if self.is_prepared(fixed, moving):
            return self._known_transform(fixed, moving)
        if self.is_prepared(moving, fixed):
            back = self._known_transform(moving, fixed)
            return None if back is None else back.inverted()
        return None

    def _known_transform(self, fixed: str, moving: str) -> Transform | None:
        """The field where points are aligned under one; else what they are searched around."""
        pair = self.pair(fixed, moving)
        return pair.field.transform if known(pair, "field") else pair.prior

    # ------------------------------------------------------------------ registration

    def register(self, fixed: str, moving: str) -> Job:
        """Fit one transform in the background; the job that does, or did."""
        self.scan(fixed), self.scan(moving)
        with self._lock:
            job = self._registering.get((fixed, moving))
            if job is None or job.state.state in ("failed", "cancelled"):

                def work(report: Progress) -> Registration:
                    return self.pair(fixed, moving).register(on_progress=report)

                job = self._registering[fixed, moving] = self.jobs.start("register", f"{fixed}>{moving}", work)
            return job

    def registration(self, fixed: str, moving: str) -> Registration | None:
        """What registering has given; None as long as it has not."""
        job = self._registering.get((fixed, moving))
        if job is None or job.state.state != "done":
            return None
        found: Registration = job.result.result()
        return found

    # ------------------------------------------------------------------ the list of points

    def answer_rows(self) -> int:
        """Ask the engine for all rows that it was not asked for yet; how many there were."""
        desk = self.the_desk
        open_rows = [row for row in desk.sheet.rows if row.match is None and row.fixed and row.asked == "fixed"]
        if open_rows:
            positions = np.array([row.fixed for row in open_rows], dtype=np.float64)
            found = self.match(desk.fixed, desk.moving, positions)
            desk.sheet.answered({row.id: match for row, match in zip(open_rows, found, strict=True)})
        return len(open_rows)

    def add_row(
        self,
        *,
        asked: Literal["fixed", "moving"],
        position: NDArray[np.float64],
        match: Match | None,
        corrected: NDArray[np.float64] | None,
        review: str,
        label: str | None = None,
    ) -> Row:
        """Put a point into the list.

        Args:
            asked: In which scan it was given.
            position: (3,), world RAS mm there.
            match: What the engine says of it.
            corrected: (3,) in the other scan, where a person has put it; None leaves what was found.
            review: See `Row`.
            label: None takes the next number.

        Raises:
            PointsError: if the point is said to be right although it was not found.
        """
        sheet = self.sheet
        found = None if match is None else place(match.moving)
        other = place(corrected) if corrected is not None else found
        row = self._row(sheet, asked, place(position), found, other, match, review, label)
        sheet.add([row])
        return row

    def _row(
        self, sheet: Sheet, asked: Any, own: Any, found: Any, other: Any, match: Match | None, review: Any, label: Any
    ) -> Row:
        if review in ("confirmed", "corrected") and other is None:
            raise PointsError("a point without a place in the other scan cannot be called right: put it there first")
        if review == "absent":
            other = None
        fixed, moving = (own, other) if asked == "fixed" else (other, own)
        return Row(sheet.new_id(), label or sheet.next_label(), fixed, moving, asked, found, match, review)


def private_names(path: Path | str) -> tuple[str, ...]:
    """Texts that tell where a file lies and what it is called."""
    path = Path(path)
    return tuple(dict.fromkeys(text for text in (str(path.absolute()), str(path), path.name) if len(text) > 2))
