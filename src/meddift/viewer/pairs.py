"""`Pairs`: scans by id, what is computed between two of them, and what is asked there."""

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

#: Maps that are kept for the browser to fetch.
MOST_MAPS = 12


class UnknownIdError(OptionsError):
    """A request names a scan, a job or a map that is not there."""


class Pairs:
    """The scans of a session, and every two of them as a pair.

    Any number of threads may use one.

    Args:
        scans: All that can be looked at.
        jobs: Where work in the background is put.
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
        self.check(fixed, moving)
        one, other = self.scan(fixed), self.scan(moving)
        with self._lock:
            if (fixed, moving) not in self._pairs:
                self._pairs[fixed, moving] = Pair(one.encoded, other.encoded, silent)
            return self._pairs[fixed, moving]

    def check(self, fixed: str, moving: str) -> None:
        """See that two scans can be a pair, without reading them.

        Raises:
            UnknownIdError: if a scan is not there.
            OptionsError: if they are one.
        """
        self.scan(fixed), self.scan(moving)
        if fixed == moving:
            raise OptionsError("a point is looked for in another scan than its own: the two scans must differ")

    def prepare(self, fixed: str, moving: str) -> Job:
        """Compute in the background what is the same for all points; the job that does, or did."""

        def work(report: Progress) -> None:
            self.pair(fixed, moving).prepare(on_progress=report)

        return self._begun(self._preparing, "prepare", fixed, moving, work)

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

    def register(self, fixed: str, moving: str) -> Job:
        """Fit one transform in the background; the job that does, or did."""

        def work(report: Progress) -> Registration:
            return self.pair(fixed, moving).register(on_progress=report)

        return self._begun(self._registering, "register", fixed, moving, work)

    def registration(self, fixed: str, moving: str) -> Registration | None:
        """What registering has given; None as long as it has not."""
        job = self._registering.get((fixed, moving))
        if job is None or job.state.state != "done":
            return None
        found: Registration = job.result.result()
        return found

    def transform(self, fixed: str, moving: str) -> Transform | None:
        """What carries points of one scan to the other at once; None where nothing is known yet.

        What was registered, or else the field of the pair, or the inverse of the way back.
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
        """The job of a pair among those of a kind; begun where there is none, or where it came to nothing."""
        self.scan(fixed), self.scan(moving)
        with self._lock:
            job = jobs.get((fixed, moving))
            if job is None or job.state.state in ("failed", "cancelled"):
                job = jobs[fixed, moving] = self._jobs.start(kind, f"{fixed}>{moving}", work)
            return job

    def _field(self, fixed: str, moving: str) -> Transform | None:
        """The field where points are aligned under one; else what they are searched around."""
        pair = self.pair(fixed, moving)
        return pair.field.transform if known(pair, "field") else pair.prior
