"""`ScanPair`: two encoded scans with the results about both, each computed once."""

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
from meddift.pipeline.encoding import encode_together
from meddift.pipeline.kept import keep
from meddift.pipeline.kept_field import keep_field
from meddift.pipeline.known_field import KnownField, reversed_field
from meddift.pipeline.level_scores import counted, field_shares, scored
from meddift.pipeline.options import describe_prior
from meddift.pipeline.scan import EncodedScan
from meddift.pipeline.starts import Starts, agreeing_shares, find_starts, prior_places
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

#: Up to this many landmarks, all of them say what is usual in correct matches.
LEAST_USUAL = 100


class ScanPair:
    """Two encoded scans, their prior and their displacement field. Any number of threads may use one.

    Args:
        fixed: The scan in which points are given.
        moving: The scan that is searched; with the same settings.
        report: Called with the name of a stage and the fraction of the work that is done.
        prior: Transform, fixed to moving, that is known to be correct to within a few mm; None = the prior of the
            options.
        back: The results of the exchanged pair; its field is then inverted instead of fitting one.
        refined: Whether the field is refined after dense matching.

    Attributes:
        fixed: As above.
        moving: As above.
        stages: Stages of registration that fit the field.
        settings: Model, options and runtime of both scans.
        intensity: The intensity rules of the fixed and the moving scan, with the reasons for choosing them.
        timing: Name of a stage -> seconds spent so far.
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

    # ------------------------------------------------------------------ progress

    def report(self, stage: str, fraction: float) -> None:
        """Report progress to the caller of this thread: the stage in words, and the fraction that is done."""
        getattr(self._reports, "asked", self._report)(stage, fraction)

    @contextmanager
    def _reporting(self, on_progress: Progress | None) -> Iterator[None]:
        """Within the block, progress of this thread is reported to `on_progress`, if given."""
        if on_progress is None:
            yield
            return
        self._reports.asked = on_progress
        try:
            yield
        finally:
            del self._reports.asked

    def _ask(self, purpose: str, on_progress: Progress | None, work: Callable[[], Answer]) -> Answer:
        """Run `work` with the configured threads and progress, and explain a lack of memory.

        Args:
            purpose: Description of the work, for messages about memory.
            on_progress: Callback for progress; None = that of the Matcher.
            work: Called without arguments; its result is returned.

        Raises:
            MemoryLimitError: if memory runs out.
        """

        def answer() -> Answer:
            with memory_for(purpose), self._reporting(on_progress):
                return work()

        return self.settings.runtime.run(answer)

    # ------------------------------------------------------------------ prior and field

    @property
    def prior(self) -> Transform | None:
        """Transform, fixed to moving, that says where points are expected; None = they are searched everywhere."""
        return self.starts[0].transform if self.starts else None

    @property
    def starts(self) -> tuple[Start, ...]:
        """Initial transforms for dense matching, found in one or several ways; the most reliable first."""
        return self._starts.found

    @property
    def without_prior(self) -> str:
        """Why no affine could be fitted although one was required; else empty."""
        return self._starts.why_not

    @property
    def described(self) -> tuple[DescribedScan, DescribedScan]:
        """The levels of both scans that count in dense matching, on the device, for registration."""
        fixed, moving = self.sides
        apart = set(self.field_shares) - set(counted(self.field_shares))
        names = [name for name in self.fixed.pyramid.names if name not in apart]
        return fixed.described(names), moving.described(names)

    @once
    def field_shares(self) -> dict[str, float]:
        """See `level_scores.field_shares`; empty without starts, or where dense matching uses MIND alone."""
        if not self.starts or all(start.near for start in self.starts) or not scored(self):
            return {}
        with timed(self.timing, "dense"):
            return field_shares(self, self.starts)

    @once
    def field(self) -> Field:
        """The displacement field, fixed to moving, that is the prior of every point.

        Raises:
            NoCorrespondenceError: if the scans have no reliable correspondence.
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
        """Everything that the field depends on, ready for JSON."""
        return {
            **self.decides(self.fixed.pyramid),
            "fixed": self.fixed.digest,
            "starts": [[start.name, start.affine.matrix.tolist()] for start in self.starts],
            "prior": self._prior_in_words,
            **({} if self.stages == STAGES else {"stages": self.stages}),
        }

    @property
    def _prior_in_words(self) -> str:
        """The requested prior in words; for a file its content, since the file may be overwritten."""
        prior = self.settings.options.prior if self._given is None else self._given
        return describe_prior(self.starts[0].transform if isinstance(prior, Path) else prior)

    @property
    def known_field(self) -> KnownField | None:
        """Results that the exchanged pair can use (see `Matcher.pair`); None if they have not been computed yet."""
        return KnownField(self.field, self.usual) if known(self, "field") and known(self, "usual") else None

    @property
    def direction(self) -> Direction:
        """The search from the fixed to the moving scan."""
        return Direction(*self.sides, self.prior, self.settings.options)

    @property
    def provenance(self) -> dict[str, Any]:
        """Scans, model, options and versions that the results depend on, ready for JSON."""
        images = {"fixed_sha256": self.fixed.digest, "moving_sha256": self.moving.digest}
        intensity = {"fixed": self.intensity[0].reason, "moving": self.intensity[1].reason}
        reading = {"fixed": list(self.fixed.volume.notes), "moving": list(self.moving.volume.notes)}
        made = {"images": images, "reading": reading, "intensity": intensity, "evidence": self.evidence}
        return {**self.settings.provenance(), **made, "space": "RAS", "unit": "mm"}

    @property
    def evidence(self) -> dict[str, Any]:
        """How well each level did at each scale, as far as it has been computed; ready for JSON.

        `place`: name of each start -> share of the landmarks whose matches agree with their neighbours. `field`: name
        of each candidate field -> mean cosine of the finest level under it; the first candidate was chosen.
        `place_levels`, `field_levels`, `verdict`: each level of the network -> share of the landmarks that this level
        alone finds in the whole scan, around the starts, and among the rivals near the result; levels with a low share
        are not used there.
        """
        found: dict[str, Any] = {}
        if known(self, "_starts"):
            found["place"] = agreeing_shares(self.starts)
            if self._starts.shares:
                found["place_levels"] = dict(self._starts.shares)
        if known(self, "field"):
            found["field"] = dict(self.field.evidence)
        if (known(self, "field") or known(self, "field_shares")) and self.field_shares:
            found["field_levels"] = dict(self.field_shares)
        if known(self, "usual"):
            found["verdict"] = dict(self.usual.shares)
        return found

    # ------------------------------------------------------------------ computed once

    def encode(self) -> tuple[Pyramid, Pyramid]:
        """The features of the fixed and the moving scan, computed if necessary, with progress reports."""

        def both(stage: str, fraction: float) -> None:
            self.report(f"{stage} (both)", 0.05 + 0.5 * fraction)

        if not (self.fixed.is_encoded or self.moving.is_encoded):
            with timed(self.timing, "encode"):
                encode_together(self.fixed, self.moving, progress=both, report=self.report)
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
        """The fixed and the moving scan, whitened jointly."""
        self.encode()
        with timed(self.timing, "whiten"):
            return Side.both(self.fixed, self.moving)

    def coarse(self, spacing_mm: float) -> SearchIndex:
        """An index of the moving scan with voxels of this size, for similarity maps; made once for each size."""
        with self._making_coarse:
            if spacing_mm not in self._coarse:
                self._coarse[spacing_mm] = averaged(self.moving, self.sides[1].every, spacing_mm)
            return self._coarse[spacing_mm]

    @once
    def _starts(self) -> Starts:
        """The starts, or the reason if there are none; see `find_starts`."""
        return find_starts(self, prior=self._given, back=self._back)

    def decides(self, pyramid: Pyramid) -> dict[str, Any]:
        """Everything that results obtained with some levels of the fixed scan depend on, ready for JSON."""
        settings = self.settings
        return {
            "moving": self.moving.pyramid.digest,
            "levels": {level.name: level.weight for level in pyramid.levels},
            "whitened": sorted(set(settings.whitened_levels) & set(pyramid.names)),
            "device": settings.runtime.device.split(":")[0],
        }

    @once
    def landmarks(self) -> NDArray[np.float64]:
        """(N, 3) float64, world RAS mm: points with strong texture in the fixed scan."""
        return prior_places(self.fixed)

    @once
    def body_places(self) -> NDArray[np.float64]:
        """(N, 3) float64, world RAS mm: about 2000 voxels of the body of the fixed scan, evenly sampled."""
        body = self.fixed.body
        voxels = np.flatnonzero(body.data)
        some = np.unravel_index(voxels[:: max(1, len(voxels) // 2000)], body.data.shape)
        return body.grid.index_to_world(np.column_stack(some))

    def free(self) -> None:
        """Free the memory on the device; data are copied there again when needed."""
        forget(self, "sides")
        forget(self, "judges")
        self._coarse.clear()

    @once
    def usual(self) -> Usual:
        """Typical values of correct matches between these scans, from landmarks aligned under the field."""
        if self._back is not None:
            return self._back.usual
        store, key = self.settings.runtime.store, self.fixed.pyramid.digest
        return keep(
            store, key, "usual", self._field_decides, self._usual, content=asdict, read=lambda found: Usual(**found)
        )

    @once
    def judges(self) -> tuple[SearchIndex, SearchIndex] | None:
        """Indexes of both scans with the levels that are used in verdicts; None if there are none."""
        return self.by_levels(self.usual.earned) if self.usual.earned else None

    def by_levels(self, names: Sequence[str]) -> tuple[SearchIndex, SearchIndex]:
        """Indexes of both scans with some of the semantic levels."""
        fixed, moving = self.sides
        return fixed.of_levels(names), moving.of_levels(names)

    def _usual(self) -> Usual:
        # Every second landmark is enough for a median and for shares.
        places = self.landmarks[::2] if len(self.landmarks) > LEAST_USUAL else self.landmarks
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
                margin = semantic_margin(self.field, self.by_levels([name]), places, aligned.positions)
                shares[name] = float((margin > 0).mean())
        return Usual(float(np.median(aligned.similarity)), shares)
