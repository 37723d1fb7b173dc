"""Sliding of the lungs along the chest wall as a known transform that is discontinuous at the lung surface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import NoCorrespondenceError, OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic.deformation import KnownTransform, compose
from meddift_lab.synthetic.profiles import rising_step
from meddift_lab.synthetic.warp import deform_volume

Floats = NDArray[np.float64]

#: Number of integration steps of the flow (fourth-order Runge-Kutta).
STEPS = 6
#: Standard deviation of the Gaussian that smooths the mask, mm; tissue slides along the level sets of the result.
SMOOTH_MM = 6.0
#: Distance from the box around the lungs beyond which points do not move, mm.
BEYOND_MM = 30.0


@dataclass(frozen=True, eq=False)
class SurfaceFlow(KnownTransform):
    """A smooth flow, mainly along S, that maps the surface of the lungs onto itself.

    The flow of a stationary velocity along S from which, near the surface, the component normal to the level sets of
    the smoothed mask is removed. The velocity is largest half-way between the top and the bottom of the lungs and
    vanishes near the median plane, where the lungs are attached at their roots.

    Attributes:
        lungs: Mask of the lungs on the fixed scan.
        amplitude_mm: Largest displacement, downwards.

    Raises:
        NoCorrespondenceError: if the mask is empty.
        OptionsError: if the lungs are not high enough for the amplitude.
    """

    lungs: Volume
    amplitude_mm: float = 20.0

    def __post_init__(self) -> None:
        """Check mask and amplitude; see `Raises` of the class."""
        if not self.lungs.data.any():
            raise NoCorrespondenceError("no lungs were found in the scan: there is nothing to slide")
        low, high = self._box
        if not np.pi * abs(self.amplitude_mm) / (high[2] - low[2]) < 1:
            raise OptionsError(
                f"lungs of {high[2] - low[2]:.0f} mm cannot slide by {self.amplitude_mm:g} mm; use a smaller amplitude"
            )

    @cached_property
    def _box(self) -> tuple[Floats, Floats]:
        world = self.lungs.grid.index_to_world(np.argwhere(self.lungs.data))
        return np.percentile(world, 0.5, axis=0), np.percentile(world, 99.5, axis=0)

    @cached_property
    def smoothed(self) -> Volume:
        """(X, Y, Z) float32, the smoothed mask; above 1/2 is inside."""
        from scipy import ndimage

        grid = self.lungs.grid
        smooth = ndimage.gaussian_filter(self.lungs.data.astype(np.float32), SMOOTH_MM / grid.spacing, truncate=3)
        return Volume(smooth, grid)

    @cached_property
    def _velocity(self) -> Volume:
        """(3, X, Y, Z) float32, velocity in RAS mm per unit of time, interpolated between voxels."""
        from scipy import ndimage

        grid = self.lungs.grid
        slope = np.tensordot(grid.inverse[:3, :3].T, np.stack(np.gradient(self.smoothed.data)), axes=1)
        steep = np.linalg.norm(slope, axis=0)
        normal = slope / np.maximum(steep, 1e-9)
        # The gradient of the smoothed mask is 1 / (sigma sqrt(2 pi)) at a flat surface and 0 far from it.
        near, _ = rising_step(2 * steep * SMOOTH_MM * np.sqrt(2 * np.pi))
        low, high = self._box
        world = grid.voxel_centers()
        height = np.clip((world[..., 2] - low[2]) / (high[2] - low[2]), 0, 1)
        middle, half = (low[0] + high[0]) / 2, (high[0] - low[0]) / 2
        aside, _ = rising_step((np.abs(world[..., 0] - middle) / half - 0.15) / 0.4)
        # Motion along S must vanish at the domes, so the velocity decreases gradually towards them.
        free = ndimage.gaussian_filter(1 - near * normal[2] ** 2, 2 * SMOOTH_MM / grid.spacing, truncate=2)
        along = -near * normal[2] * normal
        along[2] += 1.0
        return Volume((-self.amplitude_mm * np.sin(np.pi * height) * aside * free**2 * along).astype(np.float32), grid)

    def _flow(self, positions: Floats, direction: float) -> Floats:
        low, high = self._box
        result = np.array(positions, dtype=np.float64)
        # Points far outside the lungs do not move.
        rows = ((result > low - BEYOND_MM) & (result < high + BEYOND_MM)).all(axis=1)
        found, step = result[rows], direction / STEPS
        for _ in range(STEPS):
            first = self._velocity.at(found).T
            second = self._velocity.at(found + step / 2 * first).T
            third = self._velocity.at(found + step / 2 * second).T
            fourth = self._velocity.at(found + step * third).T
            found += step / 6 * (first + 2 * second + 2 * third + fourth)
        result[rows] = found
        return result

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) fixed world RAS mm points: (N, 3) float64, mm."""
        return self._flow(positions, 1.0) - positions

    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement at (N, 3) points by central differences: (N, 3, 3) float64."""
        result = np.empty((len(positions), 3, 3))
        for axis in range(3):
            shift = np.zeros(3)
            shift[axis] = 0.5
            result[:, :, axis] = self.displacement(positions + shift) - self.displacement(positions - shift)
        return result

    def inverse_apply(self, positions: ArrayLike, *, tolerance_mm: float = 1e-4, iterations: int = 60) -> Floats:
        """Map moving points back by integrating the flow backwards.

        The result is as exact as the integration; `tolerance_mm` and `iterations` are not used.

        Args:
            positions: (..., 3) float, moving world RAS mm.
            tolerance_mm: Not used.
            iterations: Not used.

        Returns:
            (..., 3) float64, fixed world RAS mm.
        """
        world = np.asarray(positions, dtype=np.float64)
        return self._flow(world.reshape(-1, 3), -1.0).reshape(world.shape)


@dataclass(frozen=True, eq=False)
class Sliding(KnownTransform):
    """Sliding lungs: points inside the lungs follow `SurfaceFlow`, points outside do not move.

    The flow maps the surface of the lungs onto itself, so inside and outside stay in contact without overlap or gap
    and slide along each other. The map is a bijection that is discontinuous at the surface.

    Attributes:
        inner: The flow inside the lungs.
    """

    inner: SurfaceFlow

    def inside(self, positions: Floats) -> NDArray[np.bool_]:
        """(N,) bool, which (N, 3) world RAS mm points lie in the lungs."""
        return np.asarray((self.inner.smoothed.at(positions) > 0.5) & self.inner.lungs.grid.contains(positions))

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) fixed world RAS mm points: (N, 3) float64, mm; 0 outside the lungs."""
        result = np.zeros_like(positions)
        inside = self.inside(positions)
        result[inside] = self.inner.displacement(positions[inside])
        return result

    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement at (N, 3) points, on the side of the surface of each: (N, 3, 3) float64."""
        result = np.zeros((len(positions), 3, 3))
        inside = self.inside(positions)
        result[inside] = self.inner.gradient(positions[inside])
        return result

    def inverse_apply(self, positions: ArrayLike, *, tolerance_mm: float = 1e-4, iterations: int = 60) -> Floats:
        """Map moving points back, see `SurfaceFlow.inverse_apply`; no point changes its side of the surface."""
        world = np.asarray(positions, dtype=np.float64)
        found = world.reshape(-1, 3).copy()
        inside = self.inside(found)
        found[inside] = self.inner.inverse_apply(found[inside])
        return found.reshape(world.shape)


def deform_sliding(volume: Volume, sliding: Sliding, after: KnownTransform, grid: Grid) -> Volume:
    """Make the moving scan: the lungs slide, then a smooth transform deforms everything; see `deform_volume`.

    Args:
        volume: The fixed scan, (X, Y, Z), HU.
        sliding: Sliding of the lungs, applied to points first.
        after: Smooth transform of the whole body, applied to points second.
        grid: Grid of the moving scan.

    Returns:
        Volume on `grid`.
    """
    outer = deform_volume(volume, after, grid)
    inner = deform_volume(volume, compose(sliding.inner, after), grid)
    inside = deform_volume(sliding.inner.smoothed, after, grid, order=1, fill=0.0).data > 0.5
    return Volume(np.where(inside, inner.data, outer.data), grid)
