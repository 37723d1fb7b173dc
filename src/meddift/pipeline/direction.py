"""`Direction`: looking for points of one scan in another. The way back is the same, reversed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from meddift.features import Level, whitening_maps
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Transform
from meddift.matching import SearchIndex
from meddift.matching.align import align_neighbourhoods
from meddift.matching.locate import Located, local_linear, locate_globally, locate_nearby
from meddift.pipeline.options import Options
from meddift.pipeline.scan import EncodedScan
from meddift.registration.feature_map import DescribedScan, FeatureMap
from meddift.system.once import once

#: Fine levels look this far around the place that semantic levels have found, mm.
REFINE_MM = 8.0
#: Distance of the neighbours that are compared along with a point, by semantic and by fine levels, mm.
COARSE_SUPPORT_MM, FINE_SUPPORT_MM = 8.0, 4.0
#: Between voxels the hand-made level decides, alone, within so many mm of the place that all levels have found.
LAST_MM = 2.0
#: Voxels of the hand-made level where it looks for places anywhere, mm: noise is averaged away, and there are few.
BLURRED_MM = 4.0


@dataclass(frozen=True, eq=False)
class Side:
    """One of two scans, comparable with the other: levels are whitened by the statistics of both.

    Attributes:
        scan: The scan.
        every: All levels, on the grid on which answers lie before they are refined.
        semantic: Levels that know where in the body they are, on the voxels of the finest of them.
    """

    scan: EncodedScan
    every: SearchIndex
    semantic: SearchIndex

    @classmethod
    def both(cls, one: EncodedScan, other: EncodedScan) -> tuple[Side, Side]:
        """Both scans, each comparable with the other."""
        settings = one.settings
        maps = whitening_maps(one.pyramid, other.pyramid, levels=settings.whitened_levels)
        semantic = one.pyramid.select(settings.semantic_levels).names

        def side(scan: EncodedScan) -> Side:
            every = scan.index(scan.pyramid.names, settings.options.search_grid, maps)
            return cls(scan, every, scan.index(semantic, semantic[-1], maps))

        return side(one), side(other)

    def of_levels(self, names: Sequence[str]) -> SearchIndex:
        """Some of the semantic levels, on the voxels of the finest of all of them."""
        finest = self.semantic.pyramid.names[-1]
        return self.scan.index(tuple(names), finest, self.every.whitening)

    @once
    def blurred(self) -> SearchIndex:
        """The hand-made level averaged to `BLURRED_MM`, which finds places anywhere as well."""
        coarse = _coarse(self.scan, self.scan.pyramid.level(MIND), BLURRED_MM)
        pyramid = replace(self.scan.pyramid, levels=(coarse,), moments={})
        return SearchIndex(pyramid, coarse.grid, self.scan.settings.runtime.device, self.every.whitening)

    @property
    def described(self) -> DescribedScan:
        """All levels of the scan on the device, comparable with those of the other scan."""
        scan, maps = self.scan, self.every.whitening
        levels = {
            level.name: FeatureMap(scan.tensors[level.name], level.grid, maps.get(level.name))
            for level in scan.pyramid.levels
        }
        return DescribedScan(levels, scan.grid, scan.averaged)


def averaged(scan: EncodedScan, index: SearchIndex, spacing_mm: float) -> SearchIndex:
    """A scan made ready for maps on coarse voxels.

    Args:
        scan: The scan.
        index: The same with all levels, as it is searched.
        spacing_mm: Levels are averaged to voxels of this size, those that are coarser stay as they are.
    """
    levels = tuple(_coarse(scan, level, spacing_mm) for level in scan.pyramid.levels)
    pyramid = replace(scan.pyramid, levels=levels, moments={})
    return SearchIndex(pyramid, index.grid.coarsened(spacing_mm), scan.settings.runtime.device, index.whitening)


def _coarse(scan: EncodedScan, level: Level, spacing_mm: float) -> Level:
    """A level averaged to larger voxels, mm; one that is coarser along an axis stays so."""
    grid = level.grid.coarsened(spacing_mm)
    return replace(level, values=scan.averaged(level.name, grid), grid=grid)


@dataclass(frozen=True, eq=False)
class Direction:
    """From points of one scan to their places in another.

    Attributes:
        query: The scan in which points are given.
        target: The scan in which they are looked for.
        prior: Where they are expected, from query to target; None where they are looked for everywhere.
        options: How they are looked for.
    """

    query: Side
    target: Side
    prior: Transform | None
    options: Options

    def reversed(self) -> Direction:
        """The way back: scans exchanged, and the prior inverted."""
        prior = None if self.prior is None else self.prior.inverted()
        return Direction(self.target, self.query, prior, self.options)

    def locate(self, positions: NDArray[np.float64]) -> Located:
        """Find points.

        Args:
            positions: (N, 3) float64 on the query scan, world RAS mm.
        """
        if len(positions) == 0:
            return Located.empty(0)
        options, prior = self.options, self.prior
        if not options.refine:
            if prior is None:
                return locate_globally(self.query.every, self.target.every, positions)
            return self._nearby(positions, prior.apply(positions), prior, radius_mm=options.radius_mm())
        # Semantic levels find the neighbourhood, on their own voxels; fine levels decide inside it.
        coarse = self.query.semantic, self.target.semantic
        if prior is None:
            prior = AffineTransform.identity()
            near = locate_globally(*coarse, positions)
        else:
            near = locate_nearby(
                *coarse,
                positions,
                prior.apply(positions),
                prior,
                radius_mm=options.radius_mm(),
                support_mm=COARSE_SUPPORT_MM,
            )
        fine = self._nearby(positions, near.positions, prior, radius_mm=REFINE_MM, support_mm=FINE_SUPPORT_MM)
        # How far a point can be told from its rivals is a matter of the wider search.
        found = replace(
            fine,
            first_similarity=near.similarity,
            margin=near.margin,
            at_border=near.at_border | fine.at_border,
        )
        return self._between_voxels(positions, found, prior)

    def _nearby(
        self,
        positions: NDArray[np.float64],
        expected: NDArray[np.float64],
        prior: Transform,
        *,
        radius_mm: float,
        support_mm: float = 0.0,
    ) -> Located:
        """With all levels, around where points are expected."""
        sides = self.query.every, self.target.every
        return locate_nearby(*sides, positions, expected, prior, radius_mm=radius_mm, support_mm=support_mm)

    def _between_voxels(self, positions: NDArray[np.float64], found: Located, prior: Transform) -> Located:
        """Move places by up to a voxel to where the level with the finest detail puts them."""
        if MIND not in self.query.scan.pyramid.names:
            return found
        query, target = self.query.scan.level(MIND), self.target.scan.level(MIND)
        limit = max(LAST_MM, float(target.grid.spacing.max()))
        linear = local_linear(prior, positions)
        aligned = align_neighbourhoods(query, target, positions, found.positions, linear, limit_mm=limit)
        return replace(
            found,
            positions=aligned.positions,
            misfit=aligned.misfit,
            standard_deviation_mm=aligned.standard_deviation_mm,
        )
