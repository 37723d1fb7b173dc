"""`Field`: the fitted transform between two scans, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import AffineTransform, Transform, nearest
from meddift.registration.support import Support
from meddift.volume import Volume


@dataclass(frozen=True, eq=False)
class Field:
    """The result of dense matching and refinement.

    Attributes:
        transform: Fixed to moving; a `DisplacementField`, or the affine if there was no dense stage.
        parts: The transform of each sliding group, extrapolated smoothly beyond its region; one without sliding.
        sliding: (X, Y, Z) bool, region of the second group; None without sliding.
        affine: The affine part.
        support: Where neighbouring nodes agree; None without dense matching.
        evidence: Name of each candidate -> mean cosine of the finest level under it; the first was chosen.
        timing: Name of each stage -> seconds.
    """

    transform: Transform
    parts: tuple[Transform, ...]
    sliding: Volume | None
    affine: AffineTransform
    support: Support | None
    evidence: dict[str, float]
    timing: dict[str, float]

    def group_of(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) int64, the sliding group (index of `parts`) of (N, 3) fixed positions, world RAS mm."""
        if self.sliding is None:
            return np.zeros(len(positions), dtype=np.int64)
        return np.asarray(nearest(self.sliding.data, self.sliding.grid.world_to_index(positions)), dtype=np.int64)

    def apply(self, positions: NDArray[np.float64], group: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Map points, each by the transform of its sliding group.

        Args:
            positions: (N, 3) float64, fixed world RAS mm.
            group: (N,) int64, group of each point; None = that of `group_of`.

        Returns:
            (N, 3) float64, moving world RAS mm.
        """
        group = self.group_of(positions) if group is None else group
        result = np.empty((len(positions), 3))
        for number, part in enumerate(self.parts):
            result[group == number] = part.apply(positions[group == number])
        return result
