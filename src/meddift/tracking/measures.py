"""Measurements on the mask of a lesion: diameters in the plane of acquisition, volume, mean HU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.tracking.calipers import Diameters, convex_hull, diameters_of
from meddift.volume import Volume

Floats = NDArray[np.float64]

#: Spacings that differ by less than this share count as equal.
_SAME_SPACING = 0.02
#: Half-width of a pixel for diameters, in pixels. With whole pixels (0.5) the longest diameter is about one pixel too
#: long, since it is determined by the pixels that extend farthest; with pixel centres (0) it is too short.
_REACH = 0.25


@dataclass(frozen=True, eq=False)
class Measures:
    """Sizes of one lesion in one scan.

    Attributes:
        center: (3,) float64, mean of its voxel centres, world RAS mm.
        long_mm: Longest diameter in the plane of acquisition over all slices, mm.
        short_mm: Longest diameter perpendicular to it in the same slice, mm.
        volume_mm3: Number of voxels times the volume of a voxel, mm^3.
        slice_mm: Slice spacing of the scan, mm.
        hu_mean: Mean intensity of the scan inside the mask; NaN without a scan.
        voxels: Number of voxels.
        long_ends: (2, 3) float64, ends of the longest diameter, world RAS mm.
        short_ends: (2, 3) float64, ends of the perpendicular diameter, world RAS mm.
        at_border: Whether the lesion reaches the border of the scan and may extend beyond it.
        one_slice: Whether the lesion lies in a single slice.
    """

    center: Floats
    long_mm: float
    short_mm: float
    volume_mm3: float
    slice_mm: float
    hu_mean: float
    voxels: int
    long_ends: Floats
    short_ends: Floats
    at_border: bool
    one_slice: bool

    @property
    def mean_mm(self) -> float:
        """Mean of both diameters, mm (Lung-RADS v2022 rounds it to 0.1 mm)."""
        return (self.long_mm + self.short_mm) / 2


def slice_axis(grid: Grid) -> int:
    """The index axis perpendicular to the slices.

    The axis whose spacing differs from that of both others; if all are equal, the one closest to the long axis of the
    body; if all differ, the one with the largest spacing.
    """
    spacing = grid.spacing

    def same(a: int, b: int) -> bool:
        return bool(abs(spacing[a] - spacing[b]) <= _SAME_SPACING * max(spacing[a], spacing[b]))

    alike = [(a, b) for a, b in ((0, 1), (0, 2), (1, 2)) if same(a, b)]
    if len(alike) == 1:
        return 3 - sum(alike[0])
    if alike:
        return int(np.argmax(np.abs(grid.direction[2])))
    return int(np.argmax(spacing))


def measure(voxels: NDArray[np.int64], grid: Grid, *, scan: Volume | None = None) -> Measures:
    """Measure a lesion on its own mask.

    Args:
        voxels: (N, 3) int64, indices of its voxels in `grid`, N >= 1.
        grid: Grid of the mask.
        scan: The scan, for the plane of acquisition, mean intensity and border; None = the grid of the mask is used.

    Returns:
        The sizes. If the axes of mask and scan are not parallel, slices are those of the mask.
    """
    acquired = grid if scan is None else scan.grid
    axis = _axis_in(grid, acquired)
    points = grid.index_to_world(voxels)
    center = points.mean(axis=0)
    slices = np.unique(voxels[:, axis])
    best: tuple[Diameters, int] | None = None
    plane = _Plane.across(grid, axis)
    for number in slices:
        found = plane.diameters(voxels[voxels[:, axis] == number])
        if best is None or found.long > best[0].long + 1e-9:
            best = found, int(number)
    assert best is not None
    sizes, number = best
    closest = np.rint(acquired.world_to_index(points))
    rim = (closest <= 0) | (closest >= np.asarray(acquired.shape) - 1)
    return Measures(
        center=center,
        long_mm=sizes.long,
        short_mm=sizes.short,
        volume_mm3=len(voxels) * grid.voxel_volume,
        slice_mm=float(acquired.spacing[slice_axis(acquired)]),
        hu_mean=float("nan") if scan is None else float(scan.at(points).mean()),
        voxels=len(voxels),
        long_ends=plane.world(sizes.long_ends, number),
        short_ends=plane.world(sizes.short_ends, number),
        at_border=bool(rim.any()),
        one_slice=len(slices) == 1,
    )


def _axis_in(grid: Grid, acquired: Grid) -> int:
    """Index axis of a mask that is perpendicular to the slices of its scan."""
    normal = acquired.direction[:, slice_axis(acquired)]
    cosines = np.abs(normal @ grid.direction)
    return int(np.argmax(cosines)) if cosines.max() > 0.99 else slice_axis(grid)


@dataclass(frozen=True, eq=False)
class _Plane:
    """Coordinates in mm within the slices of a grid."""

    grid: Grid
    axis: int
    basis: Floats  # (3, 2), orthonormal

    @classmethod
    def across(cls, grid: Grid, axis: int) -> _Plane:
        first, second = (grid.direction[:, a] for a in range(3) if a != axis)
        second = second - (second @ first) * first
        return cls(grid, axis, np.stack([first, second / np.linalg.norm(second)], axis=1))

    def diameters(self, voxels: NDArray[np.int64]) -> Diameters:
        """Diameters of the voxels of one slice."""
        others = [a for a in range(3) if a != self.axis]
        # Only the first and the last voxel of each row can lie on the convex hull.
        order = np.lexsort((voxels[:, others[1]], voxels[:, others[0]]))
        rows = voxels[order]
        change = np.flatnonzero(np.diff(rows[:, others[0]])) + 1
        ends = rows[np.concatenate([[0], change, change - 1, [len(rows) - 1]])].astype(np.float64)
        reach = np.zeros((4, 3))
        reach[:, others] = [[a, b] for a in (-_REACH, _REACH) for b in (-_REACH, _REACH)]
        corners = self.grid.index_to_world((ends[:, None] + reach).reshape(-1, 3))
        return diameters_of(convex_hull((corners - self.grid.origin) @ self.basis))

    def world(self, plane: Floats, number: int) -> Floats:
        """(N, 3) world RAS mm of (N, 2) coordinates in slice `number`."""
        start = np.zeros(3)
        start[self.axis] = number
        middle = self.grid.index_to_world(start)
        offset = (middle - self.grid.origin) @ self.basis
        return np.asarray(middle + (plane - offset) @ self.basis.T)
