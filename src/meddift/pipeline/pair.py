"""`Pair`: two encoded scans, asked as often as you like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError, PointsError
from meddift.features.extraction import MIND
from meddift.matching import Matches, similarity_maps
from meddift.matching.locate import Located
from meddift.matching.prior import MatchedPrior
from meddift.pipeline.answers import Searched, answer
from meddift.pipeline.scan_pair import ScanPair
from meddift.pipeline.under_field import align_under
from meddift.points import Points, as_points
from meddift.registration.engine import Field
from meddift.system.progress import Progress
from meddift.system.timing import timed
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from meddift.registration import Registration

#: An expected place this far beyond the scan may still turn out to be inside, mm.
OUTSIDE_TOLERANCE_MM = 6.0


class Pair(ScanPair):
    """Two scans between which points are matched; made by `Matcher.pair`.

    Any number of threads may ask one pair.
    """

    # ------------------------------------------------------------------ questions

    def match(self, points: Points | ArrayLike, *, on_progress: Progress | None = None) -> Matches:
        """Find points of the fixed scan in the moving scan.

        Args:
            points: Points, or (N, 3) or (3,) numbers, world RAS mm, on the fixed scan.
            on_progress: Called with the name of a stage and the share of the work that is done, instead of what the
                Matcher was given; what it raises ends the work and comes out here.

        Returns:
            One row a point, in the same order.

        Raises:
            PointsError: if there is no point at all.
            MeddiftError: if features cannot be computed.
        """
        asked = as_points(points)
        if len(asked) == 0:
            raise PointsError("there are no points to match")
        inside = self.fixed.grid.contains(asked.positions)

        def work() -> Searched:
            body = inside.copy()
            body[inside] = self.fixed.in_body(asked.positions[inside])
            rows = np.flatnonzero(body)
            searched = self._search(rows, asked.positions[rows])
            self.report("done", 1.0)
            return searched

        searched = self._ask("matching points", on_progress, work)
        return replace(answer(asked, inside, searched), drawing=self._draw)

    def similarity(self, point: ArrayLike, *, on_progress: Progress | None = None) -> Volume:
        """How similar every place of the moving scan is to one point of the fixed scan.

        Args:
            point: (3,) world RAS mm, on the fixed scan.
            on_progress: As for `match`.

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

        def work() -> Volume:
            fixed, moving = (side.every for side in self.sides)
            values = similarity_maps(moving, fixed.describe(position))
            return Volume(values[0].cpu().numpy(), moving.lattice)

        return self._ask("a similarity map", on_progress, work)

    def register(
        self,
        *,
        stages: str | Sequence[str] = ("affine", "dense", "refine"),
        fixed_mask: Any = None,
        moving_mask: Any = None,
        diffeomorphic: bool = False,
        symmetric: bool = False,
        on_progress: Progress | None = None,
    ) -> Registration:
        """Fit one transform that takes every fixed point to its moving point.

        Args:
            stages: "affine" alone, or with "dense" matching, or with "refine" besides.
            fixed_mask: Above 0 where the scans shall be compared: a path, Volume or image; None = the body.
            moving_mask: Above 0 where the moving scan counts; None = everywhere.
            diffeomorphic: Whether the result is the flow of a velocity field, which cannot fold; the inverse is the
                flow backwards. Both are sampled every 4 mm, so the way there and back is no more exact than otherwise.
            symmetric: Whether both directions are registered and brought together, so that exchanging the scans gives
                the inverse; takes twice the time. Diffeomorphic as well.
            on_progress: As for `match`.

        Returns:
            The transform, its inverse, and how far to trust them.

        Raises:
            OptionsError: if stages make no sense, or the options say that nothing is known about where points are.
            NoCorrespondenceError: if the scans have nothing reliable in common.
        """
        from meddift.pipeline.registering import register_pair

        def work() -> Registration:
            return register_pair(
                self,
                stages=[part.strip() for part in stages.split(",")] if isinstance(stages, str) else stages,
                fixed_mask=_mask(fixed_mask),
                moving_mask=_mask(moving_mask),
                diffeomorphic=diffeomorphic,
                symmetric=symmetric,
            )

        return self._ask("registration", on_progress, work)

    def _draw(self, matches: Matches) -> Figure:
        from meddift.pipeline.picture import draw_matches

        return draw_matches(self.fixed.volume, self.moving.volume, matches)

    # ------------------------------------------------------------------ the search

    def _search(self, rows: NDArray[np.int64], positions: NDArray[np.float64]) -> Searched:
        """Look for points in the patient, and match back."""
        count = len(rows)
        if count == 0:
            return Searched.of_none()
        self.encode()
        options = self.settings.options
        why = self.without_prior
        if options.refine and options.search_radius_mm is None and self.starts and MIND in self.fixed.pyramid.names:
            try:
                return self._search_under(self.field, rows, positions)
            except NoCorrespondenceError as error:
                why = str(error)
        found, expected = Located.empty(count), np.full((count, 3), np.nan)
        reachable, inverse = np.ones(count, dtype=bool), np.full(count, np.nan)
        direction = self.direction
        prior = direction.prior
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
        every, nowhere = np.ones(count, dtype=bool), np.full(count, np.nan)
        return Searched(
            rows, found, expected, reachable, inverse, usual, np.nan, every, nowhere,
            under_field=False, without_prior=bool(why),
        )  # fmt: skip

    def _search_under(self, field: Field, rows: NDArray[np.int64], positions: NDArray[np.float64]) -> Searched:
        """Align points under the field."""
        count = len(rows)
        confidence = self.settings.options.confidence
        self.report("aligning points", 0.9)
        with timed(self.timing, "match"):
            places = field.apply(positions)
            reachable = self.moving.grid.rim_distance_mm(places) >= -OUTSIDE_TOLERANCE_MM
            part = align_under(field, self.sides, positions[reachable], confidence=confidence)
        found = Located.empty(count)
        table = Located(
            part.positions, part.similarity, part.similarity, part.margin,
            np.zeros(len(part.positions), dtype=bool), part.misfit, part.looseness_mm,
        )  # fmt: skip
        found.put(reachable, table)
        inverse, uncertainty, supported = np.full(count, np.nan), np.full(count, np.nan), np.ones(count, dtype=bool)
        inverse[reachable], uncertainty[reachable] = part.inverse_error_mm, part.uncertainty_mm
        supported[reachable] = part.supported
        usual = self.usual
        if not usual.network_earned:
            # Levels that would put the places with most texture elsewhere say nothing about any other.
            found.margin[:] = np.nan
        similarity = usual.similarity if usual.network_earned else np.nan
        return Searched(
            rows, found, places, reachable, inverse, similarity, usual.misfit, supported, uncertainty,
            under_field=True, without_prior=False,
        )  # fmt: skip

    def _outside_tolerance(self) -> float:
        """How far beyond the scan an expected place may lie, mm; with a vague prior as far as is searched."""
        options = self.settings.options
        return OUTSIDE_TOLERANCE_MM if options.prior == "affine" else options.radius_mm()


def _mask(mask: Any) -> Volume | None:
    """A mask in whatever form the caller has it."""
    if mask is None:
        return None
    from meddift.io import as_volume

    return as_volume(mask, check=False)
