"""`Pair`: two encoded scans, asked as often as you like."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError, PointsError
from meddift.features import Pyramid
from meddift.geometry import AffineTransform, Transform
from meddift.matching import Matches, similarity_maps
from meddift.matching.locate import Located
from meddift.matching.prior import MatchedPrior, match_prior
from meddift.pipeline.answers import Searched, answer
from meddift.pipeline.direction import Direction, Side
from meddift.pipeline.kept_prior import keep_prior
from meddift.pipeline.scan import EncodedScan, Progress
from meddift.points import Points
from meddift.system.memory import memory_for
from meddift.system.once import forget, once
from meddift.system.timing import timed
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.registration import Registration

_LOGGER = logging.getLogger(__name__)

#: Places that are matched to find out how the scans lie to each other.
PRIOR_POINTS = 256
#: An expected place this far beyond the scan may still turn out to be inside, mm.
OUTSIDE_TOLERANCE_MM = 6.0


class Pair:
    """Two scans between which points are matched; made by `Matcher.pair`.

    Any number of threads may ask one pair.

    Args:
        fixed: The scan in which points are given.
        moving: The scan in which they are looked for; of the same settings.
        report: Told the name of a stage and the share of the work that is done.

    Attributes:
        fixed: As above.
        moving: As above.
        settings: Model, options and runtime of both.
        intensity: Which intensity rule each scan is given, and why.
        report: As above.
        timing: Seconds that each stage has taken so far.
    """

    def __init__(self, fixed: EncodedScan, moving: EncodedScan, report: Progress) -> None:
        self.fixed = fixed
        self.moving = moving
        self.settings = fixed.settings
        self.intensity = fixed.intensity, moving.intensity
        for name, choice in zip(("fixed", "moving"), self.intensity, strict=True):
            if choice.warning:
                _LOGGER.warning("the %s scan: %s", name, choice.warning)
        self.report = report
        self.timing: dict[str, float] = {}

    def __repr__(self) -> str:
        """Both scans."""
        return f"Pair(fixed={self.fixed.volume!r}, moving={self.moving.volume!r}, model={self.settings.spec.name})"

    # ------------------------------------------------------------------ questions

    def match(self, points: Points | ArrayLike) -> Matches:
        """Find points of the fixed scan in the moving scan.

        Args:
            points: Points, or (N, 3) world RAS mm, on the fixed scan.

        Returns:
            One row a point, in the same order.

        Raises:
            PointsError: if there is no point at all.
            MeddiftError: if features cannot be computed.
        """
        asked = points if isinstance(points, Points) else Points(np.asarray(points, dtype=np.float64))
        if len(asked) == 0:
            raise PointsError("there are no points to match")
        inside = self.fixed.grid.contains(asked.positions)
        body = inside.copy()
        body[inside] = self.fixed.in_body(asked.positions[inside])
        rows = np.flatnonzero(body)
        with memory_for("matching points"):
            searched = self._search(rows, asked.positions[rows])
        self.report("done", 1.0)
        return answer(asked, inside, searched)

    def similarity(self, point: ArrayLike) -> Volume:
        """How similar every place of the moving scan is to one point of the fixed scan.

        Args:
            point: (3,) world RAS mm, on the fixed scan.

        Returns:
            (X, Y, Z) float32 mean cosine, on the lattice on which answers lie before they are refined.

        Raises:
            PointsError: if it is not one finite point inside the fixed scan.
        """
        position = np.asarray(point, dtype=np.float64).reshape(-1, 3)
        if len(position) != 1 or not self.fixed.grid.contains(position).all():
            raise PointsError(
                f"a similarity map needs one point inside the fixed scan, got {np.asarray(point).tolist()}"
            )
        fixed, moving = (side.every for side in self.sides)
        with memory_for("a similarity map"):
            values = similarity_maps(moving, fixed.describe(position))
            return Volume(values[0].cpu().numpy(), moving.lattice)

    def register(
        self,
        *,
        stages: Sequence[str] = ("affine", "dense", "refine"),
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        diffeomorphic: bool = False,
        symmetric: bool = False,
    ) -> Registration:
        """Fit one transform that takes every fixed point to its moving point.

        Args:
            stages: "affine" alone, or with "dense" matching, or with "refine" besides.
            fixed_mask: (X, Y, Z), above 0 where the scans shall be compared; None = the body.
            moving_mask: (X, Y, Z), above 0 where the moving scan counts; None = everywhere.
            diffeomorphic: Whether the result is the flow of a velocity field: it cannot fold and has an exact inverse.
            symmetric: Whether both directions are registered and brought together, so that exchanging the scans gives
                the inverse; takes twice the time. Diffeomorphic as well.

        Returns:
            The transform, its inverse, and how far to trust them.

        Raises:
            OptionsError: if stages make no sense, or the options say that nothing is known about where points are.
            NoCorrespondenceError: if the scans have nothing reliable in common.
        """
        from meddift.pipeline.registering import register_pair

        with memory_for("registration"):
            return register_pair(
                self,
                stages=stages,
                fixed_mask=fixed_mask,
                moving_mask=moving_mask,
                diffeomorphic=diffeomorphic,
                symmetric=symmetric,
            )

    # ------------------------------------------------------------------ what is known about both scans

    @property
    def prior(self) -> Transform | None:
        """Where points are expected, fixed to moving; None if they are looked for everywhere."""
        return self._prior_or_why[0]

    @property
    def without_prior(self) -> str:
        """Why no affine could be fitted, although one was wanted; else empty."""
        return self._prior_or_why[1]

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
        return {
            **self.settings.provenance(),
            "images": images,
            "reading": reading,
            "intensity": intensity,
            "space": "RAS",
            "unit": "mm",
        }

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

    @once
    def _prior_or_why(self) -> tuple[Transform | None, str]:
        """The prior, and why there is none."""
        prior = self.settings.options.prior
        if isinstance(prior, Path):
            from meddift.io import read_transform

            return read_transform(prior), ""
        if not isinstance(prior, str):
            return prior, ""
        if prior == "none":
            return None, ""
        if prior == "identity":
            return AffineTransform.identity(), ""
        fixed, moving = (side.semantic for side in self.sides)
        self.report("finding out how the scans lie to each other", 0.6)
        settings = self.settings
        seed = settings.options.seed
        decides = {
            "moving": self.moving.pyramid.digest,
            "levels": {level.name: level.weight for level in fixed.pyramid.levels},
            "whitened": sorted(set(settings.whitened_levels) & set(fixed.pyramid.names)),
            "points": PRIOR_POINTS,
            "seed": seed,
            "device": settings.runtime.device.split(":")[0],
        }
        with timed(self.timing, "prior"):
            try:
                return keep_prior(
                    settings.runtime.store,
                    self.fixed.pyramid.digest,
                    decides,
                    lambda: match_prior(fixed, moving, self.fixed.landmarks(PRIOR_POINTS), seed=seed),
                ), ""
            except NoCorrespondenceError as error:
                return None, str(error)

    def free(self) -> None:
        """Let go of what lies on the device; it is brought there again when it is needed."""
        forget(self, "sides")

    # ------------------------------------------------------------------ the search

    def _search(self, rows: NDArray[np.int64], positions: NDArray[np.float64]) -> Searched:
        """Look for points in the patient, and match back."""
        count = len(rows)
        found, expected = Located.empty(count), np.full((count, 3), np.nan)
        reachable, inverse = np.ones(count, dtype=bool), np.full(count, np.nan)
        if count == 0:
            return Searched(rows, found, expected, reachable, inverse, np.nan, without_prior=False)
        self.encode()
        direction = self.direction
        prior, options = direction.prior, self.settings.options
        self.report("matching points", 0.75)
        with timed(self.timing, "match"):
            if prior is not None:
                places = prior.apply(positions)
                reachable = self.moving.grid.rim_distance_mm(places) >= -self._outside_tolerance()
                expected = places if isinstance(prior, MatchedPrior) else expected
            if reachable.any():
                found.put(reachable, direction.locate(positions[reachable]))
        self.report("matching back", 0.9)
        with timed(self.timing, "confidence"):
            if options.confidence and reachable.any():
                back = direction.reversed().locate(found.positions[reachable])
                inverse[reachable] = np.linalg.norm(back.positions - positions[reachable], axis=1)
        usual = prior.similarity if isinstance(prior, MatchedPrior) else np.nan
        return Searched(rows, found, expected, reachable, inverse, usual, bool(self.without_prior))

    def _outside_tolerance(self) -> float:
        """How far beyond the scan an expected place may lie, mm; with a vague prior as far as is searched."""
        options = self.settings.options
        return OUTSIDE_TOLERANCE_MM if options.prior == "affine" else options.radius_mm()
