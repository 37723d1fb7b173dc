"""How a search lattice reads a level: along each axis two neighbours and a weight, nothing else.

Lattice and level share their axes (both come from one scan by resizing, cropping and padding), so trilinear
interpolation is three linear ones. All of it is precomputed, once for a lattice and a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError
from meddift.geometry import Grid


@dataclass(frozen=True, eq=False)
class AxisReading:
    """Reads one axis of a level at every position of a lattice, clamped at the border.

    Attributes:
        low: (n,) int64, index of the lower neighbour on the level.
        part: (n,) float32, weight of the upper neighbour, 0..1; the lower one has 1 - part.
        length: Number of voxels of the level along this axis.
    """

    low: NDArray[np.int64]
    part: NDArray[np.float32]
    length: int

    @property
    def high(self) -> NDArray[np.int64]:
        """(n,) int64, index of the upper neighbour."""
        return np.minimum(self.low + 1, self.length - 1)

    def matrix(self, start: int, stop: int) -> tuple[NDArray[np.float32], int, int]:
        """Weights for lattice positions start..stop, over the level samples that they touch.

        Returns:
            (stop - start, k) float32, and the range first..last (last excluded) of level samples.
        """
        low, high = self.low[start:stop], self.high[start:stop]
        first, last = int(low[0]), int(high[-1]) + 1
        weights = np.zeros((stop - start, last - first), dtype=np.float32)
        rows = np.arange(stop - start)
        weights[rows, low - first] = 1 - self.part[start:stop]
        weights[rows, high - first] += self.part[start:stop]
        return weights, first, last


def read_axes(lattice: Grid, level: Grid) -> tuple[AxisReading, AxisReading, AxisReading]:
    """Work out how `lattice` reads `level` along each axis.

    Raises:
        GeometryError: if their axes are not parallel and equally directed.
    """
    relation = level.inverse @ lattice.affine
    step, first = np.diag(relation)[:3], relation[:3, 3]
    off_diagonal = np.abs(relation[:3, :3] - np.diag(step)).max()
    # Over the whole lattice the axes may drift apart by a thousandth of a level voxel, not more.
    if off_diagonal * max(lattice.shape) > 1e-3 or (step <= 0).any():
        raise GeometryError(f"the search lattice {lattice!r} and the level {level!r} have different axes")
    readings = []
    for axis in range(3):
        length = level.shape[axis]
        position = first[axis] + step[axis] * np.arange(lattice.shape[axis])
        # A lattice that coincides with the level reads samples, not mixtures with a 1e-13 of the neighbour.
        nearest = np.round(position)
        position = np.where(np.abs(position - nearest) < 1e-6, nearest, position)
        position = np.clip(position, 0, length - 1)
        low = np.minimum(np.floor(position).astype(np.int64), max(length - 2, 0))
        readings.append(AxisReading(low, (position - low).astype(np.float32), length))
    return readings[0], readings[1], readings[2]
