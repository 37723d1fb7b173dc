"""`ScanPair`: two encoded scans and what is known about both, each thing computed once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError
from meddift.features import Pyramid
from meddift.geometry import Transform, nearest
from meddift.matching import SearchIndex
from meddift.pipeline.direction import Direction, Side, averaged
from meddift.pipeline.kept import keep
from meddift.pipeline.kept_field import keep_field
from meddift.pipeline.known_field import KnownField, reversed_field
from meddift.pipeline.options import describe_prior
from meddift.pipeline.scan import EncodedScan
from meddift.pipeline.starts import agreeing_shares, find_starts, prior_places
from meddift.pipeline.under_field import Usual, align_under, semantic_margin
from meddift.registration.compared import ComparedScans
from meddift.registration.engine import FieldWork
from meddift.registration.feature_map import DescribedScan
from meddift.registration.fitted import Field
from meddift.registration.register import STAGES
from meddift.registration.start import Start
from meddift.system.memory import memory_for
from meddift.system.once import forget, known, once
from meddift.system.progress import Progress
from meddift.system.timing import timed
from meddift.volume import Volume

Answer = TypeVar("Answer")

_LOGGER = logging.getLogger(__name__)


class ScanPair:
    """Two encoded scans, and where points of one are expected in the other. Any number of threads may ask.

    Args:
        fixed: The scan in which points are given.
        moving: The scan in which they are looked for; of the same settings.
        report: Told the name of a stage and the share of the work that is done.
        prior: Where points are expected, fixed to moving, where that is known to within some mm; None = as the options
            say.
        back: The field from the moving to the fixed scan, where that is known: then points lie under its inverse.
        refined: Whether the field is refined after dense matching.

    Attributes:
        fixed: As above.
        moving: As above.
        settings: Model, options and runtime of both.
        intensity: Which intensity rule each scan is given, and why.
        timing: Seconds that each stage has taken so far.
    """

    def __init__(
        self,
        fixed: EncodedScan,
        moving: EncodedScan,
        report: Progress,
        *,
        prior: Transform | None = None,
        back: KnownField | None = None,
        refined: bool = True,
    ) -> None:
        self.stages = STAGES if refined else STAGES[:-1]
        self._given, self._back = prior, back
        self.fixed = fixed
        self.moving = moving
        self.settings = fixed.settings
        self.intensity = fixed.intensity, moving.intensity
        for name, choice in zip(("fixed", "moving"), self.intensity, strict=True):
            if choice.warning:
                _LOGGER.warning("the %s scan: %s", name, choice.warning)
        self._report = report
        self._reports = threading.local()
        self.timing: dict[str, float] = {}
        self._coarse: dict[float, SearchIndex] = {}
        self._making_coarse = threading.Lock()

    def __repr__(self) -> str:
        """Both scans."""
        return f"Pair(fixed={self.fixed.volume!r}, moving={self.moving.volume!r}, model={self.settings.spec.name})"

    # ------------------------------------------------------------------ what is told

    def report(self, stage: str, fraction: float) -> None:
        """Tell whoever asked in this thread how far the work is: a stage in words, and the share that is done."""
        getattr(self._reports, "asked", self._report)(stage, fraction)

    @contextmanager
    def _reporting(self, on_progress: Progress | None) -> Iterator[None]:
        """Within the block, questions of this thread report to another place."""
        if on_progress is None:
            yield
            return
        self._reports.asked = on_progress
        try:
            yield
        finally:
            del self._reports.asked

    def _ask(self, purpose: str, on_progress: Progress | None, work: Callable[[], Answer]) -> Answer:
        """Do what a question needs: on as many threads as wanted, told to whoever asked, and in words if memory ends.

        Args:
            purpose: What is done, in words.
            on_progress: Where it is told; None = where the Matcher tells.
            work: Called without arguments.
        """

        def answer() -> Answer:
            with memory_for(purpose), self._reporting(on_progress):
                return work()

        return self.settings.runtime.run(answer)

    # ------------------------------------------------------------------ what is known about both scans

    @property
    def prior(self) -> Transform | None:
        """Where points are expected, fixed to moving; None if they are looked for everywhere."""
        return self.starts[0].transform if self.starts else None

    @property
    def starts(self) -> tuple[Start, ...]:
        """Where points are expected, found in one or several ways; most matches agree on the first."""
        return self._starts_or_why[0]

    @property
    def without_prior(self) -> str:
        """Why no affine could be fitted, although one was wanted; else empty."""
        return self._starts_or_why[1]

    @property
    def described(self) -> tuple[DescribedScan, DescribedScan]:
        """All levels of both scans on the device, as they are compared densely."""
        fixed, moving = self.sides
        return fixed.described, moving.described

    @once
    def field(self) -> Field:
        """The displacement field between the scans, which all points lie under.

        Raises:
            NoCorrespondenceError: if the scans have nothing reliable in common.
        """
        if self._back is not None:
            return reversed_field(self._back.field, self.fixed)
        if not self.starts:
            raise NoCorrespondenceError(self.without_prior or "nothing is known about how the scans lie to each other")

        def make() -> Field:
            everything = Volume(np.ones(self.moving.grid.shape, dtype=bool), self.moving.grid)
            scans = ComparedScans(*self.described, self.fixed.body, everything, self.fixed.lungs)
            made = FieldWork(scans, self.report).fitted(self.starts, self.stages)
            self.timing.update(made.timing)
            return made

        return keep_field(self.settings.runtime.store, self.fixed.pyramid.digest, self._field_decides, make)

    @property
    def _field_decides(self) -> dict[str, Any]:
        """What decides the field, ready for JSON."""
        return {
            **self.decides(self.fixed.pyramid),
            "fixed": self.fixed.digest,
            "starts": [[start.name, start.affine.matrix.tolist()] for start in self.starts],
            "prior": self._prior_in_words,
            **({} if self.stages == STAGES else {"stages": self.stages}),
        }

    @property
    def _prior_in_words(self) -> str:
        """What was said about the prior; of a file what is in it, as it may be written anew."""
        prior = self.settings.options.prior if self._given is None else self._given
        return describe_prior(self.starts[0].transform if isinstance(prior, Path) else prior)

    @property
    def known_field(self) -> KnownField | None:
        """The field and what right matches under it look like, for the way back; None where nobody has asked yet."""
        return KnownField(self.field, self.usual) if known(self, "field") and known(self, "usual") else None

    @property
    def direction(self) -> Direction:
        """From the fixed scan to the moving one."""
        return Direction(*self.sides, self.prior, self.settings.options)

    @property
    def provenance(self) -> dict[str, Any]:
        """What answers are made with, ready for JSON."""
        images = {"fixed_sha256": self.fixed.digest, "moving_sha256": self.moving.digest}
        intensity = {"fixed": self.intensity[0].reason, "moving": self.intensity[1].reason}
        reading = {"fixed": list(self.fixed.volume.notes), "moving": list(self.moving.volume.notes)}
        made = {"images": images, "reading": reading, "intensity": intensity, "evidence": self.evidence}
        return {**self.settings.provenance(), **made, "space": "RAS", "unit": "mm"}

    @property
    def evidence(self) -> dict[str, Any]:
        """Which levels counted at which scale, as far as that is known by now; ready for JSON.

        `place`: name of each way in which the scans were laid on each other -> share of the places that were matched
        in agreement with their neighbours. `field`: name of each candidate -> mean cosine of the finest level under
        it; the first was kept. `verdict`: each level of the network -> share of the places with texture that it alone
        would put where they were found; where that is little, what it says does not count.
        """
        found: dict[str, Any] = {}
        if known(self, "_starts_or_why"):
            found["place"] = agreeing_shares(self.starts)
        if known(self, "field"):
            found["field"] = dict(self.field.evidence)
        if known(self, "usual"):
            found["verdict"] = dict(self.usual.shares)
        return found

    # ------------------------------------------------------------------ what is computed once

    def encode(self) -> tuple[Pyramid, Pyramid]:
        """The features of both scans; the longest part, reported as it goes on."""
        made = []
        for number, (scan, name) in enumerate(((self.fixed, "fixed"), (self.moving, "moving"))):

            def progress(stage: str, fraction: float, *, number: int = number, name: str = name) -> None:
                self.report(f"{stage} ({name})", 0.05 + 0.25 * (number + fraction))

            if scan.is_encoded:
                made.append(scan.pyramid)
                continue
            with timed(self.timing, "encode"):
                made.append(scan.encode(progress))
        return made[0], made[1]

    @once
    def sides(self) -> tuple[Side, Side]:
        """Both scans, comparable with each other: fixed, moving."""
        self.encode()
        with timed(self.timing, "whiten"):
            return Side.both(self.fixed, self.moving)

    def coarse(self, spacing_mm: float) -> SearchIndex:
        """All levels of the moving scan averaged to voxels of this size, for maps; made once for each size."""
        with self._making_coarse:
            if spacing_mm not in self._coarse:
                self._coarse[spacing_mm] = averaged(self.moving, self.sides[1].every, spacing_mm)
            return self._coarse[spacing_mm]

    @once
    def _starts_or_why(self) -> tuple[tuple[Start, ...], str]:
        """Where points are expected, and why nothing is known about it."""
        return find_starts(self, prior=self._given, back=self._back)

    def decides(self, pyramid: Pyramid) -> dict[str, Any]:
        """What decides all that is found by some levels of the fixed scan, ready for JSON."""
        settings = self.settings
        return {
            "moving": self.moving.pyramid.digest,
            "levels": {level.name: level.weight for level in pyramid.levels},
            "whitened": sorted(set(settings.whitened_levels) & set(pyramid.names)),
            "device": settings.runtime.device.split(":")[0],
        }

    @once
    def landmarks(self) -> NDArray[np.float64]:
        """Places with texture in the fixed scan."""
        return prior_places(self.fixed)

    @once
    def body_places(self) -> NDArray[np.float64]:
        """(N, 3) float64, some 2000 voxels of the body of the fixed scan, world RAS mm."""
        body = self.fixed.body
        voxels = np.argwhere(body.data)
        return body.grid.index_to_world(voxels[:: max(1, len(voxels) // 2000)])

    def free(self) -> None:
        """Let go of what lies on the device; it is brought there again when it is needed."""
        forget(self, "sides")
        forget(self, "judges")
        self._coarse.clear()

    @once
    def usual(self) -> Usual:
        """What right matches of these scans look like: places with texture in the body, aligned under the field."""
        if self._back is not None:
            return self._back.usual
        store, key = self.settings.runtime.store, self.fixed.pyramid.digest
        return keep(
            store, key, "usual", self._field_decides, self._usual, content=asdict, read=lambda found: Usual(**found)
        )

    @once
    def judges(self) -> tuple[SearchIndex, SearchIndex] | None:
        """Both scans by the levels of the network that have a say in verdicts; None where none of them has."""
        return self._by_levels(self.usual.earned) if self.usual.earned else None

    def _by_levels(self, names: Sequence[str]) -> tuple[SearchIndex, SearchIndex]:
        """Both scans by some of the semantic levels."""
        fixed, moving = self.sides
        return fixed.of_levels(names), moving.of_levels(names)

    def _usual(self) -> Usual:
        places = self.landmarks
        body = self.fixed.body
        inside = self.moving.grid.contains(self.field.apply(places))
        inside &= nearest(body.data, body.grid.world_to_index(places))
        if not inside.any():
            return Usual(float("nan"), {})
        with timed(self.timing, "confidence"):
            places = places[inside]
            aligned = align_under(self.field, self.sides, places, confidence=False)
            shares = {}
            for name in self.settings.semantic_levels:
                margin = semantic_margin(self.field, self._by_levels([name]), places, aligned.positions)
                shares[name] = float((margin > 0).mean())
        return Usual(float(np.median(aligned.similarity)), shares)
