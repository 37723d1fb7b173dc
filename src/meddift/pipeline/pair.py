"""`Pair`: a fixed and a moving scan that can be matched and registered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError, OptionsError, PointsError
from meddift.matching import Matches, similarity_maps
from meddift.matching.locate import Located
from meddift.matching.prior import MatchedPrior
from meddift.matching.verdict import UNDER_FIELD, Limits
from meddift.pipeline.answers import answer
from meddift.pipeline.many_points import align_many
from meddift.pipeline.options import MANY
from meddift.pipeline.scan_pair import ScanPair
from meddift.pipeline.under_field import align_under, semantic_margin
from meddift.points import Points, as_points
from meddift.registration.fitted import Field
from meddift.system.progress import Progress
from meddift.system.timing import timed
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from meddift.registration import Registration
    from meddift.viewer.notebook import View

#: A point is searched for although it is expected outside the moving scan, if by no more than this, mm.
OUTSIDE_TOLERANCE_MM = 6.0


class Pair(ScanPair):
    """A fixed and a moving scan, made by `Matcher.pair`.

    Any number of threads may use one pair.
    """

    # ------------------------------------------------------------------ questions

    def match(self, points: Points | ArrayLike, *, on_progress: Progress | None = None) -> Matches:
        """Find points of the fixed scan in the moving scan.

        Args:
            points: `Points`, or an array of (N, 3) or (3,), world RAS mm, on the fixed scan.
            on_progress: Called with the name of a stage and the fraction of the work that is done, 0 to 1, in place of
                the callback of the Matcher; an exception that it raises ends the work and is passed on.

        Returns:
            One match for each point, in the same order.

        Raises:
            PointsError: if there are no points.
            MeddiftError: if features cannot be computed.
        """
        asked = as_points(points)
        if len(asked) == 0:
            raise PointsError("there are no points to match")
        inside = self.fixed.grid.contains(asked.positions)

        def work() -> Matches:
            body = inside.copy()
            body[inside] = self.fixed.in_body(asked.positions[inside])
            found = self._search(asked, inside, np.flatnonzero(body))
            self.report("done", 1.0)
            return found

        return replace(self._ask("matching points", on_progress, work), drawing=self._draw)

    def prepare(self, *, on_progress: Progress | None = None) -> None:
        """Compute in advance everything that does not depend on the points, so that the first match is fast.

        Args:
            on_progress: As for `match`.

        Raises:
            MeddiftError: if features cannot be computed.
        """

        def work() -> None:
            self.encode()
            if self._aligns_under_field:
                with contextlib.suppress(NoCorrespondenceError):  # points will be searched one by one
                    _ = self.field, self.usual
            self.report("done", 1.0)

        self._ask("a pair of scans", on_progress, work)

    def similarity(
        self, point: ArrayLike, *, spacing_mm: float | None = None, on_progress: Progress | None = None
    ) -> Volume:
        """Map the similarity of the whole moving scan to one point of the fixed scan.

        Args:
            point: (3,) world RAS mm, on the fixed scan.
            spacing_mm: Voxel size of a coarser map, mm; features are averaged to it, which is much faster. None = the
                search grid (`Options.search_grid`).
            on_progress: As for `match`.

        Returns:
            (X, Y, Z) float32, mean cosine similarity over the levels, -1 to 1.

        Raises:
            PointsError: if `point` is not one finite point inside the fixed scan.
        """
        position = np.asarray(point, dtype=np.float64).reshape(-1, 3)
        if len(position) != 1 or not self.fixed.grid.contains(position).all():
            raise PointsError(
                f"a similarity map needs one point inside the fixed scan, got {np.asarray(point).tolist()}"
            )

        def work() -> Volume:
            fixed, moving = (side.every for side in self.sides)
            moving = moving if spacing_mm is None else self.coarse(spacing_mm)
            values = similarity_maps(moving, fixed.describe(position))
            return Volume(values[0].cpu().numpy(), moving.grid)

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
        """Fit one transform that maps fixed points to moving points.

        Args:
            stages: "affine", then optionally "dense" matching, then optionally "refine"; or "rigid" alone (rotation
                and translation). A sequence, or text with commas.
            fixed_mask: Mask of the fixed scan, above 0 where the scans are compared: a path, `Volume` or image; None =
                the body.
            moving_mask: Mask of the moving scan, above 0 where it may be matched; None = everywhere.
            diffeomorphic: Whether the transform is the exponential of a stationary velocity field, which cannot fold;
                its inverse is the exponential of the negative field. Both are sampled every 4 mm, so the
                inverse-consistency error is not smaller than otherwise.
            symmetric: Whether both directions are registered and their velocity fields averaged, so that exchanging
                the scans gives the inverse. Takes twice the time; implies `diffeomorphic`.
            on_progress: As for `match`.

        Returns:
            The transform, its inverse, and measures of their reliability.

        Raises:
            OptionsError: if the stages are invalid, or the prior is "none".
            GeometryError: if a mask does not have three axes.
            NoCorrespondenceError: if the scans have no reliable correspondence, or a mask is empty.
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

    def view(self, points: Points | ArrayLike | None = None, *, out: Path | str | None = None) -> View:
        """Show both scans side by side; a click in one scan shows the match in the other. Needs the extra `viewer`.

        A notebook shows the view inline. `.open()` opens it in the browser, `.points` are the points that a person has
        set, and `.close()` ends it.

        Args:
            points: Points on the fixed scan to begin with: `Points`, or an array of (N, 3) or (3,), world RAS mm.
            out: Folder in which the page saves points; None = a temporary one.

        Raises:
            OptionsError: if the extra is not installed.
        """
        try:
            from meddift.viewer.notebook import view_pair
        except ImportError as error:
            raise OptionsError(f"the viewer is not installed: {error}; pip install 'meddift[viewer]'") from error
        return view_pair(self, points=None if points is None else as_points(points), out=out)

    def _draw(self, matches: Matches) -> Figure:
        from meddift.pipeline.picture import draw_matches

        return draw_matches(self.fixed.volume, self.moving.volume, matches)

    # ------------------------------------------------------------------ the search

    def _search(self, asked: Points, inside: NDArray[np.bool_], rows: NDArray[np.int64]) -> Matches:
        """Match the points of some rows: under the field if there is one, else one by one."""
        judged = partial(answer, asked, inside, rows)
        positions = asked.positions[rows]
        if len(rows) == 0:
            return judged(Located.empty(0), usual_similarity=np.nan, limits=Limits(), without_prior=False)
        self.encode()
        why = self.without_prior
        if self._aligns_under_field:
            try:
                field = self.field
            except NoCorrespondenceError as error:
                why = str(error)
            else:
                found = self._aligned_under(field, positions)
                # Similarity is not judged where the network's levels do not agree with the field even at landmarks.
                usual = self.usual.similarity if self.usual.earned else np.nan
                return judged(found, usual_similarity=usual, limits=UNDER_FIELD, without_prior=False)
        prior = self.prior
        usual = prior.similarity if isinstance(prior, MatchedPrior) else np.nan
        return judged(self._one_by_one(positions), usual_similarity=usual, limits=Limits(), without_prior=bool(why))

    def _aligned_under(self, field: Field, positions: NDArray[np.float64]) -> Located:
        """Align points, (N, 3) float64 world RAS mm on the fixed scan, under the field."""
        found = Located.empty(len(positions))
        self.report("aligning points", 0.9)
        with timed(self.timing, "match"):
            outside = self.moving.grid.rim_distance_mm(field.apply(positions)) < -OUTSIDE_TOLERANCE_MM
            found.reachable[outside] = False
            rows = np.flatnonzero(found.reachable)
            confidence = self.settings.options.confidence
            if len(rows) > MANY:
                judges = self.judges if confidence else None
                many = align_many(field, self.sides, positions[rows], judges=judges, confidence=confidence)
                found.put(rows, many)
                return found
            found.put(rows, align_under(field, self.sides, positions[rows], confidence=confidence))
        judges = self.judges if confidence else None
        if judges is not None:
            with timed(self.timing, "confidence"):
                found.margin[rows] = semantic_margin(field, judges, positions[rows], found.positions[rows])
        return found

    def _one_by_one(self, positions: NDArray[np.float64]) -> Located:
        """Search for each point around its expected position, or everywhere, and match back."""
        found = Located.empty(len(positions))
        direction = self.direction
        prior = direction.prior
        self.report("matching points", 0.75)
        with timed(self.timing, "match"):
            if prior is not None:
                places = prior.apply(positions)
                found.reachable[self.moving.grid.rim_distance_mm(places) < -self._outside_tolerance()] = False
            rows = np.flatnonzero(found.reachable)
            located = direction.locate(positions[rows])
            if isinstance(prior, MatchedPrior):
                located = replace(located, expected=places[rows])
        self.report("matching back", 0.9)
        with timed(self.timing, "confidence"):
            if self.settings.options.confidence:
                back = direction.reversed().locate(located.positions)
                away = np.linalg.norm(back.positions - positions[rows], axis=1)
                located = replace(located, inverse_error_mm=away)
        found.put(rows, located)
        return found

    @property
    def _aligns_under_field(self) -> bool:
        """Whether points are aligned under the field of the pair, not searched one by one."""
        return self.settings.options.fits_field(self.settings.extraction) and bool(self.starts)

    def _outside_tolerance(self) -> float:
        """How far outside the scan an expected position may lie, mm; with an imprecise prior the search radius."""
        options = self.settings.options
        return OUTSIDE_TOLERANCE_MM if options.prior == "affine" else options.radius_mm()


def _mask(mask: Any) -> Volume | None:
    """A mask, given in any form that `as_volume` reads."""
    if mask is None:
        return None
    from meddift.io import as_volume

    return as_volume(mask, check=False)
