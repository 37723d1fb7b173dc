"""Very many points under a field: neighbourhoods are aligned at the nodes of a grid, and read in between.

An alignment compares everything within 12 mm of a place, weighted by a Gaussian of 6 mm, so it changes slowly from
place to place. Where points lie closer to each other than that, or where they are so many that nobody looks at each,
aligning every one of them says little more than aligning at nodes does: docs/verdicts.md has what was measured.
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

#: At most so many nodes: about as much work as so many points.
NODES = 6_000
#: Distances of nodes that are tried, mm, least first.
SPACINGS_MM = (4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 25.0, 30.0, 40.0)
#: Nodes that are better determined than this, mm, count alike.
LEAST_DEVIATION_MM = 0.1
#: Nodes that are less well determined than this, mm, say nothing.
LEAST_KNOWN_MM = 10.0
#: Points whose similarity is looked at in one go.
_AT_ONCE = 8_192

_CORNERS = np.array(list(product((0, 1), repeat=3)))


@dataclass(frozen=True, eq=False)
class Nodes:
    """The corners of all cells of a grid in which points lie, each for one group of places.

    Attributes:
        positions: (M, 3) float64, world RAS mm.
        group: (M,) int64, of places that slide along each other, see `Field`.
        corners: (8, N) int64, which nodes surround each point.
        weights: (8, N) float64, trilinear; they sum to 1.
    """

    positions: NDArray[np.float64]
    group: NDArray[np.int64]
    corners: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def around(cls, positions: NDArray[np.float64], group: NDArray[np.int64], *, most: int = NODES) -> Self:
        """The closest nodes, by `SPACINGS_MM`, that are no more than `most`; or else the widest."""
        for spacing in SPACINGS_MM:
            base = np.floor(positions / spacing)
            cells = np.concatenate([base, group[:, None]], axis=1).astype(np.int64)
            around = (cells + np.pad(_CORNERS, ((0, 0), (0, 1)))[:, None]).reshape(-1, 4)
            # One number a cell is sorted far faster than four.
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
        """(N, ...), means of (M, ...) values of nodes at the points, by (8, N) weights that sum to 1."""
        total = np.zeros((self.corners.shape[1], *values.shape[1:]))
        for corners, weight in zip(self.corners, weights, strict=True):
            total += values[corners] * weight.reshape(-1, *[1] * (values.ndim - 1))
        return total

    def against(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,), what (M,) values of nodes that speak against a match say at the points.

        Their trilinear mean, and half of their standard deviation: nodes that differ say less about what lies between.
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
    """Find points that the field takes into the moving scan, by nodes around them.

    A point lies where the field has it, plus the mean of what alignment adds at the nodes of its cell; each counts by
    its trilinear weight and by its precision, 1 over the square of `standard_deviation_mm`. What speaks against a
    match is the mean of what speaks against these nodes and half of its standard deviation among them, by trilinear
    weights alone: nodes that say little count as much. What can be told at the point itself (support, similarity) is.

    Args:
        field: Fixed to moving.
        sides: The fixed and the moving scan.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        judges: Both scans by the levels that have a say in verdicts; None = there are none, or they are not asked.
        confidence: Whether to align back.
    """
    group = field.group_of(positions)
    nodes = Nodes.around(positions, group)
    at = align_under(field, sides, nodes.positions, confidence=confidence, group=nodes.group)
    added = at.positions - at.expected
    loose = np.where(np.isfinite(at.standard_deviation_mm), at.standard_deviation_mm, np.inf)
    # Nothing is known at a node whose place the moving scan does not show.
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
    # How far apart both sides of what slides put a node that may lie on either.
    _, own = under_support(field, nodes.positions)
    doubt = np.where(at.uncertainty_mm > own, at.uncertainty_mm, 0.0)
    uncertainty = np.maximum(uncertainty, nodes.against(doubt))
    margin = np.full(len(positions), np.nan)
    if judges is not None:
        # Without any rival a margin is infinite; cosines do not differ by more than 2.
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
