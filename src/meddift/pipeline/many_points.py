"""Matching very many points: neighbourhoods are aligned at the nodes of a grid, and the results interpolated.

An alignment compares descriptors within 12 mm of a point with Gaussian weights (6 mm), so that its result changes
slowly in space and can be interpolated between nodes. docs/verdicts.md compares this with aligning every point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from meddift.matching import SearchIndex
from meddift.matching.locate import Located
from meddift.pipeline.direction import Side
from meddift.pipeline.under_field import align_under, semantic_margin, similarity_at, under_support
from meddift.registration.fitted import Field

#: Largest number of nodes.
NODES = 6_000
#: Node spacings that are tried, mm, ascending.
SPACINGS_MM = (4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 25.0, 30.0, 40.0)
#: Lower bound of the standard deviations by which nodes are weighted, mm.
LEAST_DEVIATION_MM = 0.1
#: Nodes with a standard deviation above this, mm, are ignored.
LEAST_KNOWN_MM = 10.0
#: Points whose similarity is computed in one batch.
_AT_ONCE = 8_192

_CORNERS = np.array(list(product((0, 1), repeat=3)))


@dataclass(frozen=True, eq=False)
class Nodes:
    """The corners of all grid cells that contain points, separately for each sliding group.

    Attributes:
        positions: (M, 3) float64, world RAS mm, of the nodes.
        group: (M,) int64, the sliding group of each node, see `Field`.
        corners: (8, N) int64, indices of the nodes that surround each of N points.
        weights: (8, N) float64, their trilinear weights, which sum to 1 for each point.
    """

    positions: NDArray[np.float64]
    group: NDArray[np.int64]
    corners: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def around(cls, positions: NDArray[np.float64], group: NDArray[np.int64], *, most: int = NODES) -> Self:
        """Choose the smallest of `SPACINGS_MM` that gives at most `most` nodes, or the largest if none does.

        Args:
            positions: (N, 3) float64, world RAS mm.
            group: (N,) int64, the sliding group of each point.
            most: Largest number of nodes.
        """
        for spacing in SPACINGS_MM:
            base = np.floor(positions / spacing)
            cells = np.concatenate([base, group[:, None]], axis=1).astype(np.int64)
            around = (cells + np.pad(_CORNERS, ((0, 0), (0, 1)))[:, None]).reshape(-1, 4)
            # Sorting one number for each cell is much faster than sorting rows of four.
            low = around.min(axis=0)
            number = np.ravel_multi_index(tuple((around - low).T), tuple(around.max(axis=0) - low + 1))
            _, first, corners = np.unique(number, return_index=True, return_inverse=True)
            found = around[first]
            if len(found) <= most or spacing == SPACINGS_MM[-1]:
                break
        part = positions / spacing - base
        weights = np.where(_CORNERS[:, None] == 1, part, 1 - part).prod(axis=2)
        return cls(found[:, :3] * spacing, found[:, 3], corners.reshape(8, -1), weights)

    def read(self, values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate (M, ...) values of the nodes at the points with (8, N) weights that sum to 1: (N, ...)."""
        total = np.zeros((self.corners.shape[1], *values.shape[1:]))
        for corners, weight in zip(self.corners, weights, strict=True):
            total += values[corners] * weight.reshape(-1, *[1] * (values.ndim - 1))
        return total

    def against(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate (M,) values of which high ones speak against a match, conservatively: (N,).

        The trilinear mean plus half of the standard deviation among the nodes of a cell, since nodes that differ say
        less about the points between them.
        """
        mean = self.read(values, self.weights)
        variance = self.read(values * values, self.weights) - mean * mean
        return np.asarray(mean + 0.5 * np.sqrt(np.maximum(variance, 0.0)))


def align_many(
    field: Field,
    sides: tuple[Side, Side],
    positions: NDArray[np.float64],
    *,
    judges: tuple[SearchIndex, SearchIndex] | None,
    confidence: bool,
) -> Located:
    """Match points that the field maps into the moving scan, by aligning neighbourhoods at surrounding nodes.

    The position of a point is that given by the field plus the mean correction of the alignments at the nodes of its
    cell, weighted by trilinear weight and precision (1 / `standard_deviation_mm`^2). Margin, misfit, standard
    deviation and inverse-consistency error are interpolated by `Nodes.against`, with trilinear weights alone. Support
    and similarity are computed at each point itself.

    Args:
        field: Fixed to moving.
        sides: The fixed and the moving scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        judges: Indexes of both scans with the levels that are used in verdicts; None = leave out the margin.
        confidence: Whether to align back, which gives the inverse-consistency error.

    Returns:
        One row for each point.
    """
    group = field.group_of(positions)
    nodes = Nodes.around(positions, group)
    at = align_under(field, sides, nodes.positions, confidence=confidence, group=nodes.group)
    added = at.positions - at.expected
    loose = np.where(np.isfinite(at.standard_deviation_mm), at.standard_deviation_mm, np.inf)
    # A node that maps outside the moving scan carries no information.
    loose[~sides[1].scan.grid.contains(at.expected)] = np.inf
    loose = np.where(loose > LEAST_KNOWN_MM, np.inf, loose)
    precision = 1 / np.maximum(loose, LEAST_DEVIATION_MM) ** 2
    weights = nodes.weights * precision[nodes.corners]
    total = weights.sum(axis=0)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), nodes.weights)
    expected = field.apply(positions, group)
    found = Located.empty(len(positions))
    moved = expected + nodes.read(np.where(np.isfinite(loose)[:, None], added, 0.0), weights)
    similarity = np.concatenate(
        [
            similarity_at(sides, positions[first : first + _AT_ONCE], moved[first : first + _AT_ONCE])
            for first in range(0, len(positions), _AT_ONCE)
        ]
    )
    supported, uncertainty = under_support(field, positions)
    # For nodes that may belong to either sliding group: the distance between the two answers.
    _, own = under_support(field, nodes.positions)
    doubt = np.where(at.uncertainty_mm > own, at.uncertainty_mm, 0.0)
    uncertainty = np.maximum(uncertainty, nodes.against(doubt))
    margin = np.full(len(positions), np.nan)
    if judges is not None:
        # A margin is infinite without a rival; cosines differ by at most 2.
        preferred = np.clip(semantic_margin(field, judges, nodes.positions, at.positions), -2, 2)
        margin = -nodes.against(-preferred)
    return replace(
        found,
        positions=moved,
        expected=expected,
        similarity=similarity,
        first_similarity=similarity,
        margin=margin,
        misfit=nodes.against(at.misfit),
        standard_deviation_mm=nodes.against(np.minimum(loose, LEAST_KNOWN_MM)),
        inverse_error_mm=nodes.against(at.inverse_error_mm),
        supported=supported,
        uncertainty_mm=uncertainty,
    )
