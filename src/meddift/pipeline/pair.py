"""`Pair`: two scans, encoded once, asked as often as you like."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError, PointsError
from meddift.features import Pyramid, Whitening, whiten_pair, whitening_maps
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Transform
from meddift.matching import Matches, SearchIndex, lattice_of, similarity_maps
from meddift.matching.align import align_neighbourhoods
from meddift.matching.locate import Located, local_linear, locate_globally, locate_nearby
from meddift.matching.prior import MatchedPrior, match_prior
from meddift.models import prepare_volume
from meddift.models.intensity import choose_intensity
from meddift.pipeline.confidence import Evidence, Limits, judge
from meddift.pipeline.kept_prior import keep_prior
from meddift.pipeline.landmarks import textured_points
from meddift.points import Points
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.pipeline.matcher import Matcher
    from meddift.registration import Registration

_LOGGER = logging.getLogger(__name__)

#: Places that are matched to find out how the scans lie to each other.
PRIOR_POINTS = 256
#: An expected place this far beyond the scan may still turn out to be inside, mm.
OUTSIDE_TOLERANCE_MM = 6.0
#: Fine levels look this far around the place that semantic levels have found, mm.
REFINE_MM = 8.0
#: Distance of the neighbours that are compared along with a point, by semantic and by fine levels, mm.
COARSE_SUPPORT_MM, FINE_SUPPORT_MM = 8.0, 4.0
#: Between voxels the hand-made level decides, alone, within so many mm of the place that all levels have found.
LAST_MM = 2.0
#: Below this intensity there is no tissue; the air around a patient is -1000 HU, lungs are above -950.
AIR_HU = -950.0


class Pair:
    """Two scans between which points are matched; made by `Matcher.pair`.

    Attributes:
        fixed: The scan in which points are given.
        moving: The scan in which they are looked for.
        timing: Seconds that each stage has taken so far.
        intensity: Which intensity rule each scan is given, and why.
        report: Where progress is told.
        without_prior: Why no affine could be fitted, although one was wanted; else empty.
    """

    def __init__(self, matcher: Matcher, fixed: Volume, moving: Volume) -> None:
        self._matcher = matcher
        self._options = matcher.options
        self.fixed = fixed
        self.moving = moving
        self.timing: dict[str, float] = {}
        self.intensity = choose_intensity(fixed, matcher.spec), choose_intensity(moving, matcher.spec)
        for role, choice in zip(("fixed", "moving"), self.intensity, strict=True):
            if choice.warning:
                _LOGGER.warning("the %s scan: %s", role, choice.warning)
        self.report = matcher.report
        self.without_prior = ""

    def __repr__(self) -> str:
        """Both scans."""
        return f"Pair(fixed={self.fixed!r}, moving={self.moving!r}, model={self._matcher.spec.name})"

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
        tissue = inside.copy()
        tissue[inside] = self._in_tissue(asked.positions[inside])
        rows = np.flatnonzero(tissue)
        if len(rows):
            _ = self._encoded  # the longest part, reported as it goes on
        prior = self.prior if len(rows) else None
        positions = asked.positions[rows]
        self._matcher.report("matching points", 0.75)
        with self._timed("match"):
            found, expected, reachable = self._search(positions, prior)
        inverse = np.full(len(rows), np.nan)
        self._matcher.report("matching back", 0.9)
        with self._timed("confidence"):
            if self._options.confidence and len(rows):
                inverse[reachable] = self._inverse_error(positions[reachable], found.positions[reachable], prior)
        self._matcher.report("done", 1.0)
        return self._matches(asked, inside, rows, found, expected, reachable, inverse)

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
        moving = self._moving_index
        values = similarity_maps(moving, self._fixed_index.describe(position))
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
            OptionsError: if stages make no sense.
            NoCorrespondenceError: if the scans have nothing reliable in common.
        """
        from meddift.pipeline.registering import register_pair

        return register_pair(
            self,
            stages=stages,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            diffeomorphic=diffeomorphic,
            symmetric=symmetric,
        )

    @cached_property
    def prior(self) -> Transform | None:
        """Where points are expected, fixed to moving; None if they are looked for everywhere."""
        prior = self._options.prior
        if isinstance(prior, Path):
            from meddift.io import read_transform

            return read_transform(prior)
        if not isinstance(prior, str):
            return prior
        if prior == "none":
            return None
        if prior == "identity":
            return AffineTransform.identity()
        coarse = self._semantic_indexes
        self._matcher.report("finding out how the scans lie to each other", 0.6)
        with self._timed("prior"):
            try:
                return keep_prior(
                    self._matcher.store,
                    self._encoded[0].digest,
                    self._prior_settings(coarse),
                    lambda: match_prior(*coarse, self._landmarks(), seed=self._options.seed),
                )
            except NoCorrespondenceError as error:
                self.without_prior = str(error)
                return None

    @property
    def provenance(self) -> dict[str, Any]:
        """What answers are made with, ready for JSON."""
        import importlib.metadata

        def version(package: str) -> str:
            try:
                return importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                return "unknown"

        matcher = self._matcher
        return {
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("meddift", "torch", "monai", "numpy", "SimpleITK", "nibabel")},
            },
            "model": matcher.spec.name,
            "weights_sha256": matcher.weights_hash,
            "device": matcher.device,
            "options": self._options.describe(),
            "extraction": {
                "timestep": matcher.extraction.timestep,
                "levels": list(matcher.extraction.levels),
                "noise_samples": matcher.extraction.noise_samples,
                "whiten": self._options.whitening(matcher.spec),
            },
            "seed": self._options.seed,
            "images": {"fixed_sha256": self._digests[0], "moving_sha256": self._digests[1]},
            "intensity": {"fixed": self.intensity[0].reason, "moving": self.intensity[1].reason},
            "space": "RAS",
            "unit": "mm",
        }

    # ------------------------------------------------------------------ what is computed once

    @cached_property
    def _digests(self) -> tuple[str, str]:
        return self.fixed.digest(), self.moving.digest()

    @cached_property
    def pyramids(self) -> tuple[Pyramid, Pyramid]:
        """The features of both scans, whitened where the model or the options say so."""
        fixed, moving = self._encoded
        names = self._whitened_levels
        return whiten_pair(fixed, moving, levels=names) if names else (fixed, moving)

    @cached_property
    def _encoded(self) -> tuple[Pyramid, Pyramid]:
        """The features of both scans as they are stored, with the weights of their levels."""
        matcher = self._matcher
        made = []
        with self._timed("encode"):
            for number, (volume, role) in enumerate(((self.fixed, "fixed"), (self.moving, "moving"))):

                def progress(stage: str, fraction: float, *, number: int = number, role: str = role) -> None:
                    matcher.report(f"{stage} ({role})", 0.05 + 0.25 * (number + fraction))

                made.append(matcher.pyramid(volume, role=role, progress=progress))
        fixed, moving = made
        # The paper's mean is a plain one.
        weights = matcher.spec.defaults.level_weights if self._options.preset == "default" else {}
        return fixed.weighted(weights), moving.weighted(weights)

    @property
    def _whitened_levels(self) -> tuple[str, ...]:
        """Names of the levels that are whitened."""
        matcher = self._matcher
        names = matcher.extraction.network_levels if self._options.whitening(matcher.spec) else ()
        if MIND in matcher.extraction.levels and self._options.preset == "default":
            names = (*names, MIND)
        return names

    @cached_property
    def _whitening(self) -> dict[str, Whitening]:
        """The maps that whiten levels, applied to what a search touches: whole whitened levels are rarely needed."""
        fixed, moving = self._encoded
        with self._timed("whiten"):
            return whitening_maps(fixed, moving, levels=self._whitened_levels)

    def _index(self, pyramid: Pyramid, kind: str) -> SearchIndex:
        return SearchIndex(pyramid, lattice_of(pyramid, kind=kind), self._matcher.device, self._whitening)

    @cached_property
    def _fixed_index(self) -> SearchIndex:
        return self._index(self._encoded[0], self._options.lattice)

    @cached_property
    def _moving_index(self) -> SearchIndex:
        return self._index(self._encoded[1], self._options.lattice)

    @cached_property
    def _semantic_indexes(self) -> tuple[SearchIndex, SearchIndex]:
        """Levels that know where in the body they are, on the voxels of the finest of them."""
        names = self._matcher.extraction.network_levels or self._matcher.extraction.levels
        fixed, moving = (pyramid.select(names) for pyramid in self._encoded)
        return self._index(fixed, fixed.names[-1]), self._index(moving, moving.names[-1])

    def _prior_settings(self, indexes: tuple[SearchIndex, SearchIndex]) -> dict[str, Any]:
        """All that decides the prior besides the features of the fixed scan."""
        levels = indexes[0].pyramid.levels
        return {
            "moving": self._encoded[1].digest,
            "levels": {level.name: level.weight for level in levels},
            "whitened": sorted(set(self._whitened_levels) & {level.name for level in levels}),
            "points": PRIOR_POINTS,
            "seed": self._options.seed,
            "device": self._matcher.device.split(":")[0],
        }

    def _landmarks(self) -> NDArray[np.float64]:
        return textured_points(prepare_volume(self.fixed, self._matcher.spec), PRIOR_POINTS, within=self.fixed.grid)

    # ------------------------------------------------------------------ the search

    def _search(
        self, positions: NDArray[np.float64], prior: Transform | None
    ) -> tuple[Located, NDArray[np.float64], NDArray[np.bool_]]:
        """Where points are, where matches nearby expect them (else NaN), and which can be in the moving scan."""
        count = len(positions)
        reachable = np.ones(count, dtype=bool)
        expected = np.full((count, 3), np.nan)
        if prior is None or count == 0:
            found = self._locate(positions, None, forward=True) if count else Located.empty(0)
            return found, expected, reachable
        places = prior.apply(positions)
        reachable = self.moving.grid.rim_distance_mm(places) >= -self._outside_tolerance()
        found = Located.empty(count)
        if reachable.any():
            found.put(reachable, self._locate(positions[reachable], prior, forward=True))
        return found, places if isinstance(prior, MatchedPrior) else expected, reachable

    def _locate(self, positions: NDArray[np.float64], prior: Transform | None, *, forward: bool) -> Located:
        """Find points in one direction; `prior` is that of the direction."""
        options = self._options
        fixed, moving = self._in_order(self._fixed_index, self._moving_index, forward)
        if not options.refine:
            if prior is None:
                return locate_globally(fixed, moving, positions)
            expected = prior.apply(positions)
            return locate_nearby(
                fixed, moving, positions, expected, prior, radius_mm=options.radius_mm(), support_mm=0.0
            )
        # Semantic levels find the neighbourhood, on their own voxels; fine levels decide inside it.
        coarse = self._in_order(*self._semantic_indexes, forward)
        if prior is None:
            prior = AffineTransform.identity()
            near = locate_globally(*coarse, positions)
        else:
            radius = options.radius_mm()
            near = locate_nearby(
                *coarse, positions, prior.apply(positions), prior, radius_mm=radius, support_mm=COARSE_SUPPORT_MM
            )
        fine = locate_nearby(
            fixed, moving, positions, near.positions, prior, radius_mm=REFINE_MM, support_mm=FINE_SUPPORT_MM
        )
        # How far a point can be told from its rivals is a matter of the wider search.
        found = replace(
            fine,
            first_similarity=near.similarity,
            margin=near.margin,
            at_border=near.at_border | fine.at_border,
        )
        return self._between_voxels(positions, found, prior, forward=forward)

    def _between_voxels(
        self, positions: NDArray[np.float64], found: Located, prior: Transform, *, forward: bool
    ) -> Located:
        """Move places by up to a voxel to where the level with the finest detail puts them."""
        if MIND not in self._matcher.extraction.levels:
            return found
        fixed, moving = (pyramid.level(MIND) for pyramid in (self._encoded if forward else self._encoded[::-1]))
        limit = max(LAST_MM, float(moving.grid.spacing.max()))
        linear = local_linear(prior, positions)
        aligned = align_neighbourhoods(fixed, moving, positions, found.positions, linear, limit_mm=limit)
        return replace(found, positions=aligned.positions, misfit=aligned.misfit, looseness_mm=aligned.looseness_mm)

    @staticmethod
    def _in_order(fixed: SearchIndex, moving: SearchIndex, forward: bool) -> tuple[SearchIndex, SearchIndex]:
        return (fixed, moving) if forward else (moving, fixed)

    def _inverse_error(
        self, positions: NDArray[np.float64], found: NDArray[np.float64], prior: Transform | None
    ) -> NDArray[np.float64]:
        """Distance between points and what matching back finds, mm."""
        if len(positions) == 0:
            return np.zeros(0)
        if isinstance(prior, MatchedPrior):
            back = self._locate(found, prior.swapped(), forward=False)
        elif isinstance(prior, AffineTransform):
            back = self._locate(found, prior.inverted(), forward=False)
        elif prior is None:
            back = self._locate(found, None, forward=False)
        else:
            # The inverse of a general transform is known at the points themselves: that is where they are expected.
            back = self._locate(found, _InverseAt(prior, positions, found), forward=False)
        return np.asarray(np.linalg.norm(back.positions - positions, axis=1))

    def _outside_tolerance(self) -> float:
        """How far beyond the scan an expected place may lie, mm; with a vague prior as far as is searched."""
        return OUTSIDE_TOLERANCE_MM if self._options.prior == "affine" else self._options.radius_mm()

    def _in_tissue(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether there is tissue within a few mm of points; always True where air is not known by its value."""
        if not self.intensity[0].hounsfield or len(positions) == 0:
            return np.ones(len(positions), dtype=bool)
        around = np.array([[x, y, z] for x in (-5, 0, 5) for y in (-5, 0, 5) for z in (-5, 0, 5)], dtype=float)
        values = self.fixed.at((positions[:, None] + around).reshape(-1, 3)).reshape(len(positions), -1)
        return np.asarray((values > AIR_HU).mean(axis=1) >= 0.1)

    def _matches(
        self,
        asked: Points,
        inside: NDArray[np.bool_],
        rows: NDArray[np.int64],
        found: Located,
        expected: NDArray[np.float64],
        reachable: NDArray[np.bool_],
        inverse: NDArray[np.float64],
    ) -> Matches:
        """Put what was found for some rows into a table of all rows, and judge each."""
        count = len(asked)

        def spread(values: NDArray[Any], empty: float) -> NDArray[Any]:
            table = np.full((count, *values.shape[1:]), empty, dtype=values.dtype)
            table[rows] = values
            return table

        margin = spread(found.margin, np.nan)
        inverse_error = spread(inverse, np.nan)
        prior = self.prior if len(rows) else None
        usual = prior.similarity if isinstance(prior, MatchedPrior) else np.nan
        in_body = ~inside
        in_body[rows] = True
        evidence = Evidence(
            inside_fixed=inside,
            in_body=in_body,
            expected_inside=spread(reachable, False),
            at_border=spread(found.at_border, False),
            margin=margin,
            inverse_error_mm=inverse_error,
            deviation_mm=spread(np.linalg.norm(found.positions - expected, axis=1), np.nan),
            relative_similarity=spread(found.first_similarity / usual, np.nan),
            misfit=spread(found.misfit, np.nan),
            looseness_mm=spread(found.looseness_mm, np.nan),
            without_prior=bool(self.without_prior),
        )
        verdict, reason = judge(evidence, Limits())
        moving = spread(found.positions, np.nan)
        moving[[v == "outside" for v in verdict]] = np.nan
        reason = tuple(
            "the point has no position" if missing else why for missing, why in zip(asked.missing, reason, strict=True)
        )
        return Matches(
            fixed=asked,
            moving=Points(moving, asked.labels),
            similarity=spread(found.similarity, np.nan),
            margin=margin,
            inverse_error_mm=inverse_error,
            verdict=verdict,
            reason=reason,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timing[stage] = self.timing.get(stage, 0.0) + time.perf_counter() - started


class _InverseAt:
    """The inverse of a transform around points where it is known, row by row: row i is asked about point i only.

    So what is expected of one point does not depend on which others are asked along with it.
    """

    def __init__(self, transform: Transform, positions: NDArray[np.float64], images: NDArray[np.float64]) -> None:
        self._positions, self._images = positions, images
        self._linear = np.linalg.inv(local_linear(transform, positions))

    def apply(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Map (N, 3) places near the images, in the order of the points."""
        away = np.asarray(positions, dtype=np.float64) - self._images
        return np.asarray(self._positions + np.einsum("nij,nj->ni", self._linear, away))
