"""Rasterise shapes with soft edges: each voxel holds the fraction of it that a shape covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.geometry import Grid, spline_matrix
from meddift_lab.synthetic.profiles import smoothing_gain

Floats = NDArray[np.float64]
Layer = NDArray[np.float32]


@dataclass
class Canvas:
    """A scan being drawn: HU on a grid whose axes are parallel to the world axes.

    Attributes:
        grid: Grid with RAS orientation, not oblique.
        hounsfield: (X, Y, Z) float32, what has been drawn so far.
        spacing_mm: Mean voxel size: the width of soft edges.
    """

    grid: Grid
    hounsfield: Layer = field(init=False)
    spacing_mm: float = field(init=False)
    _lines: tuple[Layer, Layer, Layer] = field(init=False, repr=False)
    _first: list[float] = field(init=False, repr=False)
    _step: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fill with air, and precompute the coordinates that every shape needs."""
        self.hounsfield = np.full(self.grid.shape, -1000.0, dtype=np.float32)
        spacing, origin = self.grid.spacing, self.grid.origin
        self.spacing_mm = float(spacing.mean())
        x, y, z = ((origin[a] + spacing[a] * np.arange(self.grid.shape[a])).astype(np.float32) for a in range(3))
        # Plain floats: arithmetic on arrays of three numbers is much slower.
        self._first = [float(o) for o in origin]
        self._step = [float(s) for s in spacing]
        self._lines = x[:, None, None], y[None, :, None], z[None, None, :]

    def axes(self) -> tuple[Layer, Layer, Layer]:
        """World x, y and z as arrays that broadcast to the grid: (X, 1, 1), (1, Y, 1), (1, 1, Z), mm."""
        return self._lines

    def cover(self, distance: Layer) -> Layer:
        """Covered fraction of each voxel, (X, Y, Z), from the signed distance to a surface, mm (negative inside)."""
        return np.asarray(np.clip(0.5 - distance / self.spacing_mm, 0, 1), dtype=np.float32)

    def paint(self, share: Layer, hounsfield: float | Layer) -> None:
        """Paint a material over the scan.

        Args:
            share: Fraction of each voxel that the material covers, broadcastable to the grid.
            hounsfield: HU of the material, one number or one for each voxel.
        """
        self.hounsfield += share * (hounsfield - self.hounsfield)

    def empty(self) -> Layer:
        """A layer of zeros, (X, Y, Z) float32."""
        return np.zeros(self.grid.shape, dtype=np.float32)

    def box(self, low: Sequence[float] | Floats, high: Sequence[float] | Floats) -> tuple[slice, slice, slice] | None:
        """Slices of the voxels within a world box, or None if there are none."""
        slices = []
        for axis in range(3):
            first = max(math.ceil((low[axis] - self._first[axis]) / self._step[axis]), 0)
            last = min(math.floor((high[axis] - self._first[axis]) / self._step[axis]) + 1, self.grid.shape[axis])
            if first >= last:
                return None
            slices.append(slice(first, last))
        return slices[0], slices[1], slices[2]

    def local_axes(self, box: tuple[slice, slice, slice]) -> tuple[Layer, Layer, Layer]:
        """World x, y and z of a box of voxels as arrays that broadcast to the box, mm."""
        x, y, z = self.axes()
        return x[box[0]], y[:, box[1]], z[:, :, box[2]]

    def capsule(
        self, layer: Layer, start: Floats, end: Floats, *, radius_start: float, radius_end: float | None = None
    ) -> None:
        """Draw a tapered rod with round ends into a layer; where rods overlap the larger share is kept.

        A rod thinner than a voxel is spread over neighbouring voxels, so that its subvoxel position is
        preserved, and scaled so that the integral over a cross-section is pi r^2.
        """
        radius_end = radius_start if radius_end is None else radius_end
        edge, factor = _soft_rod((radius_start + radius_end) / 2, self.spacing_mm)
        reach = max(radius_start, radius_end) + edge / 2
        a, b = start.tolist(), end.tolist()
        box = self.box(
            [min(p, q) - reach for p, q in zip(a, b, strict=True)],
            [max(p, q) + reach for p, q in zip(a, b, strict=True)],
        )
        if box is None:
            return
        x, y, z = self.local_axes(box)
        along = end - start
        length2 = float(along @ along)
        x, y, z = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
        if length2 < 1e-12:
            part: Layer | float = 0.0
        else:
            fx, fy, fz = (along / length2).astype(np.float32)
            part = np.clip(x * fx + y * fy + z * fz, 0, 1)
        ax, ay, az = along.astype(np.float32)
        distance = np.sqrt((x - part * ax) ** 2 + (y - part * ay) ** 2 + (z - part * az) ** 2)
        radius = radius_start + np.float32(radius_end - radius_start) * part
        share = np.clip((radius - distance) / np.float32(edge) + np.float32(0.5), 0, 1)
        share *= np.float32(factor)
        view = layer[box]
        np.maximum(view, share, out=view)

    def tube(self, layer: Layer, path: ArrayLike, radii: float | Sequence[float] | Floats) -> None:
        """Draw a chain of rods along an (N, 3) world path, mm, with one radius, or one for each point, mm."""
        points = np.asarray(path, dtype=np.float64)
        widths = np.broadcast_to(np.asarray(radii, dtype=np.float64), len(points))
        for k in range(len(points) - 1):
            self.capsule(layer, points[k], points[k + 1], radius_start=widths[k], radius_end=widths[k + 1])

    def ellipsoid_distance(self, center: ArrayLike, radii: ArrayLike, rotation: Floats | None = None) -> Layer:
        """Signed distance to an ellipsoid, to first order, mm, on the whole grid.

        Args:
            center: (3,) world mm.
            radii: (3,) half axes, mm.
            rotation: (3, 3), columns are the directions of the half axes; `None` means the world axes.

        Returns:
            (X, Y, Z) float32, mm, negative inside.
        """
        x, y, z = (axis - np.float32(c) for axis, c in zip(self.axes(), np.asarray(center), strict=True))
        turn = np.eye(3) if rotation is None else rotation
        scaled = [
            sum((part * np.float32(turn[a, k] / radius) for a, part in enumerate((x, y, z))), np.float32(0))
            for k, radius in enumerate(np.asarray(radii, dtype=np.float64))
        ]
        level = np.sqrt(np.asarray(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2))
        reach = np.sqrt(x * x + y * y + z * z)
        # Along the ray from the centre, the surface lies at reach / level.
        smallest = np.float32(np.min(np.asarray(radii, dtype=np.float64)))
        return np.where(level > 1e-3, reach * (1 - 1 / np.maximum(level, 1e-3)), -smallest).astype(np.float32)


def _soft_rod(radius: float, voxel: float) -> tuple[float, float]:
    """Width of the soft edge of a rod, and the factor that makes its cross-section integrate to pi r^2.

    The edge of a thick rod is a voxel wide. Below 3/4 of a voxel it widens, so that the rod always reaches
    1.25 voxels: otherwise a single voxel would hold all of it, wherever it lies.
    """
    edge = max(voxel, 2 * (1.25 * voxel - radius))
    if radius >= voxel:
        return edge, 1.0
    cone = (radius + edge / 2) ** 3 / (3 * edge)
    painted = radius**2 + edge**2 / 12 if radius >= edge / 2 else cone
    return edge, radius**2 / painted


def smooth_maximum(first: Layer, second: Layer, rounding_mm: float) -> Layer:
    """Maximum of two signed distances (the intersection of shapes) with the edge rounded off.

    The polynomial blend of I. Quilez: where the two differ by less than `rounding_mm`, a parabola.
    """
    blend = np.maximum(np.float32(rounding_mm) - np.abs(first - second), 0) / np.float32(rounding_mm)
    return np.asarray(np.maximum(first, second) + blend * blend * np.float32(rounding_mm / 4), dtype=np.float32)


def smooth_noise(grid: Grid, generator: np.random.Generator, *, scale_mm: float) -> Layer:
    """Random texture with a correlation length of about `scale_mm`, zero mean and unit standard deviation.

    White noise on a grid with half that spacing, interpolated by cubic B-splines (or smoothed white noise where
    the scale is near the voxel size).

    Args:
        grid: Grid of the texture.
        generator: Source of randomness.
        scale_mm: Approximate width of the blobs.

    Returns:
        (X, Y, Z) float32.
    """
    from scipy import ndimage

    pitch = max(scale_mm / 2, 1e-3)
    if pitch < 1.5 * float(grid.spacing.max()):
        noise = generator.standard_normal(grid.shape, dtype=np.float32)
        sigmas = [float(s) for s in np.maximum(scale_mm / 2.355 / grid.spacing, 0.05)]
        noise = ndimage.gaussian_filter(noise, sigmas, mode="wrap", truncate=4)
        return np.asarray(noise / np.float32(np.prod([smoothing_gain(s) for s in sigmas])), dtype=np.float32)
    counts = [int(np.ceil(n * s / pitch)) + 6 for n, s in zip(grid.shape, grid.spacing, strict=True)]
    values = generator.standard_normal(counts, dtype=np.float32)
    for axis in range(3):
        where = 2.5 + np.arange(grid.shape[axis]) * grid.spacing[axis] / pitch
        weights = spline_matrix(counts[axis], where).astype(np.float32)
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ weights.T, -1, axis)
    # Variance of white noise under cubic B-spline weights: the integral of the squared spline along each axis.
    return np.ascontiguousarray(values / np.float32((151 / 315) ** 1.5), dtype=np.float32)
