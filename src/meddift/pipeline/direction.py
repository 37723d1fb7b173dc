"""`Direction`: searching for points of one scan in another. Matching back uses the reversed direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from meddift.features import Level, whitening_maps
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Transform, box_within
from meddift.matching import SearchIndex
from meddift.matching.align import align_neighbourhoods
from meddift.matching.locate import Located, local_linear, locate_globally, locate_nearby
from meddift.pipeline.options import Options
from meddift.pipeline.scan import EncodedScan
from meddift.registration.compared import FIELD_MM, matching_grid
from meddift.registration.feature_map import DescribedScan, FeatureMap
from meddift.system.once import once

#: Radius within which fine levels search around the position found by semantic levels, mm.
REFINE_MM = 8.0
#: Distance of the neighbours that are compared together with a point, by semantic and by fine levels, mm.
COARSE_SUPPORT_MM, FINE_SUPPORT_MM = 8.0, 4.0
#: Largest shift, mm, by which the final sub-voxel alignment, which uses the MIND level alone, may move a position.
LAST_MM = 2.0


@dataclass(frozen=True, eq=False)
class Side:
    """One scan of a pair, its levels whitened by the joint statistics of both scans.

    Attributes:
        scan: The scan.
        every: All levels, on the search grid.
        semantic: The semantic levels, on the voxels of the finest of them.
    """

    scan: EncodedScan
    every: SearchIndex
    semantic: SearchIndex

    @classmethod
    def both(cls, one: EncodedScan, other: EncodedScan) -> tuple[Side, Side]:
        """Whiten the levels of two scans jointly, so that their descriptors can be compared."""
        settings = one.settings
        maps = whitening_maps(one.pyramid, other.pyramid, levels=settings.whitened_levels)
        semantic = one.pyramid.select(settings.semantic_levels).names

        def side(scan: EncodedScan) -> Side:
            every = scan.index(scan.pyramid.names, settings.options.search_grid, maps)
            return cls(scan, every, scan.index(semantic, semantic[-1], maps))

        return side(one), side(other)

    def of_levels(self, names: Sequence[str]) -> SearchIndex:
        """An index of some of the semantic levels, on the voxels of the finest semantic level."""
        finest = self.semantic.pyramid.names[-1]
        return self.scan.index(tuple(names), finest, self.every.whitening)

    @once
    def blurred(self) -> SearchIndex:
        """An index of the MIND level averaged to the voxels of dense matching: fewer voxels with less noise."""
        scan, level = self.scan, self.scan.pyramid.level(MIND)
        whole = matching_grid(scan.grid, FIELD_MM)
        # Beyond the level, averages repeat the values of its border.
        start, shape = box_within(whole, level.grid)
        x, y, z = (slice(first, first + count) for first, count in zip(start, shape, strict=True))
        values = scan.averaged(MIND, whole)[x, y, z].contiguous()
        coarse = replace(level, values=values, grid=whole.cropped(start, shape))
        pyramid = replace(scan.pyramid, levels=(coarse,), moments={})
        return SearchIndex(pyramid, coarse.grid, scan.settings.runtime.device, self.every.whitening)

    def described(self, names: Sequence[str]) -> DescribedScan:
        """Some levels on the device, whitened jointly with the other scan, for registration."""
        scan, maps = self.scan, self.every.whitening
        levels = {
            level.name: FeatureMap(scan.tensors[level.name], level.grid, maps.get(level.name))
            for level in scan.pyramid.select(names).levels
        }
        return DescribedScan(levels, scan.grid, scan.averaged)


def averaged(scan: EncodedScan, index: SearchIndex, spacing_mm: float) -> SearchIndex:
    """An index of a scan on coarser voxels, for similarity maps.

    Args:
        scan: The scan.
        index: Its index with all levels.
        spacing_mm: Voxel size to which levels are averaged, mm; coarser levels stay unchanged.
    """
    levels = tuple(_coarse(scan, level, spacing_mm) for level in scan.pyramid.levels)
    pyramid = replace(scan.pyramid, levels=levels, moments={})
    return SearchIndex(pyramid, index.grid.coarsened(spacing_mm), scan.settings.runtime.device, index.whitening)


def _coarse(scan: EncodedScan, level: Level, spacing_mm: float) -> Level:
    """A level averaged to voxels of `spacing_mm`; an axis that is coarser already stays unchanged."""
    grid = level.grid.coarsened(spacing_mm)
    return replace(level, values=scan.averaged(level.name, grid), grid=grid)


@dataclass(frozen=True, eq=False)
class Direction:
    """A search from points of one scan to their positions in another.

    Attributes:
        query: The scan in which points are given.
        target: The scan that is searched.
        prior: Transform from query to target that says where points are expected; None = search everywhere.
        options: The options of the search.
    """

    query: Side
    target: Side
    prior: Transform | None
    options: Options

    def reversed(self) -> Direction:
        """The search in the opposite direction: scans exchanged, and the prior inverted."""
        prior = None if self.prior is None else self.prior.inverted()
        return Direction(self.target, self.query, prior, self.options)

    def locate(self, positions: NDArray[np.float64]) -> Located:
        """Find the positions of points in the target scan.

        Args:
            positions: (N, 3) float64 on the query scan, world RAS mm.

        Returns:
            One row for each point.
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
        # The margin over rivals is that of the wider search.
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
        """Search with all levels within a radius around expected positions, (N, 3) float64 world RAS mm."""
        sides = self.query.every, self.target.every
        return locate_nearby(*sides, positions, expected, prior, radius_mm=radius_mm, support_mm=support_mm)

    def _between_voxels(self, positions: NDArray[np.float64], found: Located, prior: Transform) -> Located:
        """Refine positions to sub-voxel accuracy by aligning neighbourhoods of the MIND level, where there is one."""
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
