"""The displacement field that dense matching and refinement have fitted, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import AffineTransform, Transform, nearest
from meddift.registration.support import Support
from meddift.volume import Volume


@dataclass(frozen=True, eq=False)
class Field:
    """What dense stages have found.

    Attributes:
        transform: Fixed to moving; a `DisplacementField` where anything was matched densely, else the affine.
        parts: That of each group of places, on its own side and continued smoothly beyond; one where nothing slides.
        sliding: (X, Y, Z) bool, the places of the second group; None where there is one.
        affine: Its affine part.
        support: Where the scans have something in common; None where nothing was matched densely.
        evidence: Name of each candidate -> mean cosine of the finest level under it; the first was kept.
        timing: Seconds of each stage.
    """

    transform: Transform
    parts: tuple[Transform, ...]
    sliding: Volume | None
    affine: AffineTransform
    support: Support | None
    evidence: dict[str, float]
    timing: dict[str, float]

    def group_of(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) int64, to which of `parts` (N, 3) fixed world RAS mm belong."""
        if self.sliding is None:
            return np.zeros(len(positions), dtype=np.int64)
        return np.asarray(nearest(self.sliding.data, self.sliding.grid.world_to_index(positions)), dtype=np.int64)

    def apply(self, positions: NDArray[np.float64], group: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Map (N, 3) fixed world RAS mm, each by the part to which it belongs: `group`, or what `group_of` says."""
        group = self.group_of(positions) if group is None else group
        result = np.empty((len(positions), 3))
        for number, part in enumerate(self.parts):
            result[group == number] = part.apply(positions[group == number])
        return result
