"""`Pairs`: the scans of a session by id, and matching, similarity and registration between any two of them."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError
from meddift.geometry import Transform
from meddift.matching import Match
from meddift.pipeline.pair import Pair
from meddift.points import Points
from meddift.system.once import known
from meddift.system.progress import Progress, silent
from meddift.viewer.jobs import Job, Jobs
from meddift.viewer.maps import SPACING_MM, ShownMap, shown_map
from meddift.viewer.opened import OpenedScan

if TYPE_CHECKING:
    from meddift.registration import Registration

#: Number of similarity maps that are kept for download.
MOST_MAPS = 12


class UnknownIdError(OptionsError):
    """A request names a scan, job or map that does not exist."""


class Pairs:
    """The scans of a session, any two of which form a pair. Thread-safe.

    Args:
        scans: All scans of the session.
        jobs: Queue for background jobs.
    """

    def __init__(self, scans: Iterable[OpenedScan], jobs: Jobs) -> None:
        self._scans = {scan.id: scan for scan in scans}
        self._jobs = jobs
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._preparing: dict[tuple[str, str], Job] = {}
        self._registering: dict[tuple[str, str], Job] = {}
        self._maps: OrderedDict[str, ShownMap] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def scans(self) -> list[OpenedScan]:
        """All scans, in order."""
        return list(self._scans.values())

    def scan(self, key: str) -> OpenedScan:
        """The scan with an id.

        Raises:
            UnknownIdError: if there is no such scan.
        """
        if key not in self._scans:
            raise UnknownIdError(f"there is no scan {key!r}")
        return self._scans[key]

    def pair(self, fixed: str, moving: str) -> Pair:
        """The pair of two scans.

        Raises:
            UnknownIdError: if a scan is not there.
            OptionsError: if they are one.
        """
        self.check(fixed, moving)
        one, other = self.scan(fixed), self.scan(moving)
        with self._lock:
            if (fixed, moving) not in self._pairs:
                self._pairs[fixed, moving] = Pair(one.encoded, other.encoded, silent)
            return self._pairs[fixed, moving]

    def check(self, fixed: str, moving: str) -> None:
        """Check that two scans can form a pair, without reading them.

        Raises:
            UnknownIdError: if a scan is not there.
            OptionsError: if they are one.
        """
        self.scan(fixed), self.scan(moving)
        if fixed == moving:
            raise OptionsError("a point is looked for in another scan than its own: the two scans must differ")

    def prepare(self, fixed: str, moving: str) -> Job:
        """Compute features and field of a pair in the background.

        Returns:
            The job, which is started if it was not started before.
        """

        def work(report: Progress) -> None:
            self.pair(fixed, moving).prepare(on_progress=report)

        return self._begun(self._preparing, "prepare", fixed, moving, work)

    def is_prepared(self, fixed: str, moving: str) -> bool:
        """Whether features and field of a pair are computed."""
        job = self._preparing.get((fixed, moving))
        return job is not None and job.state.state == "done"

    def match(self, fixed: str, moving: str, positions: NDArray[np.float64]) -> list[Match]:
        """Match points of one scan in the other.

        Args:
            fixed: Id of the scan on which the points lie.
            moving: Id of the other scan.
            positions: (N, 3) float64, world RAS mm.

        Returns:
            One match for each point.
        """
        return list(self.pair(fixed, moving).match(Points(positions)))

    def similarity(
        self, fixed: str, moving: str, position: NDArray[np.float64], answer: NDArray[np.float64] | None
    ) -> tuple[str, ShownMap]:
        """Compute the similarity of positions of one scan to a point of the other.

        Args:
            fixed: Id of the scan on which the point lies.
            moving: Id of the scan that the map covers.
            position: (3,) float64, world RAS mm.
            answer: (3,) float64, the match, world RAS mm; None if there is none.

        Returns:
            Id under which the map is kept for some time, and the map.
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
        """A map by its id.

        Raises:
            UnknownIdError: if there is no such map, or it is no longer kept.
        """
        with self._lock:
            if key not in self._maps:
                raise UnknownIdError(f"there is no map {key!r}, or not any more: ask for the similarity again")
            return self._maps[key]

    def register(self, fixed: str, moving: str) -> Job:
        """Register a pair in the background; returns the job, which is started if it was not started before."""

        def work(report: Progress) -> Registration:
            return self.pair(fixed, moving).register(on_progress=report)

        return self._begun(self._registering, "register", fixed, moving, work)

    def registration(self, fixed: str, moving: str) -> Registration | None:
        """The registration of a pair; None if it is not finished."""
        job = self._registering.get((fixed, moving))
        if job is None or job.state.state != "done":
            return None
        found: Registration = job.result.result()
        return found

    def transform(self, fixed: str, moving: str) -> Transform | None:
        """The best known transform from one scan to the other; None if none is known yet.

        This is the registration, else the field of the pair, else the inverse of the transform in the other direction.
        """
        if (done := self.registration(fixed, moving)) is not None:
            return done.transform
        if (done := self.registration(moving, fixed)) is not None:
            return done.inverse
        if self.is_prepared(fixed, moving):
            return self._field(fixed, moving)
        if self.is_prepared(moving, fixed):
            back = self._field(moving, fixed)
            return None if back is None else back.inverted()
        return None

    def _begun(
        self,
        jobs: dict[tuple[str, str], Job],
        kind: str,
        fixed: str,
        moving: str,
        work: Callable[[Progress], Registration | None],
    ) -> Job:
        """The job of a kind for a pair; started if there is none, or if it failed or was cancelled."""
        self.scan(fixed), self.scan(moving)
        with self._lock:
            job = jobs.get((fixed, moving))
            if job is None or job.state.state in ("failed", "cancelled"):
                job = jobs[fixed, moving] = self._jobs.start(kind, f"{fixed}>{moving}", work)
            return job

    def _field(self, fixed: str, moving: str) -> Transform | None:
        """The displacement field of a pair; if none was fitted, the prior of the search."""
        pair = self.pair(fixed, moving)
        return pair.field.transform if known(pair, "field") else pair.prior
