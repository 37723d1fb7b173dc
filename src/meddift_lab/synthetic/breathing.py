"""Breathing as a known transform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import OptionsError, TransformError
from meddift.geometry import Grid
from meddift_lab.synthetic.deformation import LARGEST_GRADIENT, KnownTransform
from meddift_lab.synthetic.profiles import plateau, rising_step

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BreathingDeformation(KnownTransform):
    """Breathing between two scans, in two steps: the first moves points along S only, the second along A only.

    Inferior step: the displacement is 0 at the apex of the lungs and above, grows to `amplitude_mm` at the
    diaphragm, and fades to 0 over `fade_mm` below. Across the body it is nearly constant over the lungs,
    0 at the spine, and 0 far outside. Anterior step: the front wall moves forward by `anterior_mm`; nothing
    moves behind the middle of the chest, and nothing far in front.

    Determinant: (1 + du_z/dz)(1 + du_y/dy); the steepest slopes are 1.875 * amplitude / length of the step
    (see `rising_step`), checked to be at most 0.8, so the determinant is at least 0.04.

    Attributes:
        lung_low: (3,) least x, y, z of the lungs on the fixed scan, world RAS mm.
        lung_high: (3,) greatest x, y, z of the lungs, world RAS mm.
        amplitude_mm: Descent of the diaphragm; positive is breathing in (fixed exhaled, moving inhaled).
        anterior_mm: Forward motion of the front wall; `None` means a fifth of the amplitude.
        fade_mm: Length below the diaphragm over which the motion fades out.

    Raises:
        OptionsError: if the box is empty, or the motion is too steep for its size.
    """

    lung_low: tuple[float, float, float]
    lung_high: tuple[float, float, float]
    amplitude_mm: float = 30.0
    anterior_mm: float | None = None
    fade_mm: float = 220.0

    def __post_init__(self) -> None:
        """Check the box and the slopes; see `Raises` of the class."""
        size = np.subtract(self.lung_high, self.lung_low)
        if size.shape != (3,) or not np.isfinite(size).all() or (size <= 0).any() or not self.fade_mm > 0:
            raise OptionsError(f"the lung box from {self.lung_low} to {self.lung_high} mm is empty or not finite")
        steepest = max(
            1.875 * abs(self.amplitude_mm) / min(self._descent_length, self.fade_mm),
            1.875 * abs(self._anterior) / self._forward_length,
        )
        if not steepest <= LARGEST_GRADIENT:
            raise OptionsError(
                f"a breathing amplitude of {self.amplitude_mm} mm is too steep for lungs of "
                f"{size.round().tolist()} mm (slope {steepest:.2f}, at most {LARGEST_GRADIENT}); use a smaller one"
            )

    @classmethod
    def for_grid(cls, grid: Grid, *, amplitude_mm: float = 30.0) -> BreathingDeformation:
        """Breathing for a scan of which only the grid is known.

        The box around the lungs is taken to be the inner three quarters of the field of view along each axis.

        Args:
            grid: Grid of the fixed scan.
            amplitude_mm: Descent of the diaphragm.
        """
        low, high = grid.corners.min(axis=0), grid.corners.max(axis=0)
        inset = (high - low) / 8
        box_low, box_high = (low + inset).tolist(), (high - inset).tolist()
        return cls(
            (box_low[0], box_low[1], box_low[2]),
            (box_high[0], box_high[1], box_high[2]),
            amplitude_mm=amplitude_mm,
        )

    @property
    def _anterior(self) -> float:
        return 0.2 * self.amplitude_mm if self.anterior_mm is None else self.anterior_mm

    @property
    def _descent_length(self) -> float:
        """Distance from the apex to the level of largest motion, mm; the domes lie above the lowest recess."""
        return 0.8 * (self.lung_high[2] - self.lung_low[2])

    @property
    def _forward_length(self) -> float:
        """Length along A over which the forward motion rises from zero to its maximum, mm."""
        return 0.6 * (self.lung_high[1] - self.lung_low[1])

    def _descent(self, positions: Floats) -> tuple[Floats, Floats]:
        """Displacement along z of (N, 3) RAS mm points, (N,) mm, and its gradient, (N, 3)."""
        x, y, z = positions.T
        middle, half = self._frame
        top, depth = self.lung_high[2], self._descent_length
        rise, rise_slope = rising_step((top - z) / depth)
        fall, fall_slope = rising_step((z - (top - depth - self.fade_mm)) / self.fade_mm)
        across, across_slope = plateau((x - middle[0]) / (1.15 * half[0]))
        along, along_slope = plateau((y - middle[1]) / (1.15 * half[1]))
        # The spine lies just behind the lungs, in the middle; 22 mm is the reach of a vertebra.
        spine_x, spine_y = x - middle[0], y - self.lung_low[1]
        hold = np.exp(-(spine_x**2 + spine_y**2) / (2 * 22.0**2))
        free = 1 - hold
        scale = -self.amplitude_mm
        profile = rise * fall
        value = scale * profile * across * along * free
        gradient = np.stack(
            [
                scale * profile * along * (across_slope / (1.15 * half[0]) * free + across * hold * spine_x / 22.0**2),
                scale * profile * across * (along_slope / (1.15 * half[1]) * free + along * hold * spine_y / 22.0**2),
                scale * across * along * free * (-rise_slope / depth * fall + rise * fall_slope / self.fade_mm),
            ],
            axis=1,
        )
        return value, gradient

    def _forward(self, positions: Floats) -> tuple[Floats, Floats]:
        """Displacement along y of (N, 3) RAS mm points, (N,) mm, and its gradient, (N, 3)."""
        x, y, z = positions.T
        middle, half = self._frame
        length = self._forward_length
        start = self.lung_high[1] - length
        rise, rise_slope = rising_step((y - start) / length)
        fall, fall_slope = rising_step((self.lung_high[1] + 60.0 + 2 * length - y) / (2 * length))
        across, across_slope = plateau((x - middle[0]) / (1.15 * half[0]))
        along, along_slope = plateau((z - middle[2]) / (1.1 * half[2]))
        value = self._anterior * rise * fall * across * along
        gradient = self._anterior * np.stack(
            [
                rise * fall * across_slope / (1.15 * half[0]) * along,
                across * along * (rise_slope / length * fall - rise * fall_slope / (2 * length)),
                rise * fall * across * along_slope / (1.1 * half[2]),
            ],
            axis=1,
        )
        return value, gradient

    @property
    def _frame(self) -> tuple[Floats, Floats]:
        """Centre and half size of the lung box, (3,) each, RAS mm."""
        low, high = np.asarray(self.lung_low), np.asarray(self.lung_high)
        return (low + high) / 2, (high - low) / 2

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) fixed world RAS mm points: (N, 3) float64, mm."""
        down, _ = self._descent(positions)
        result = np.zeros_like(positions)
        result[:, 2] = down
        result[:, 1], _ = self._forward(positions + result)
        return result

    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement, by the chain rule over the two steps: (N, 3, 3) float64."""
        down, down_gradient = self._descent(positions)
        halfway = positions + np.stack([np.zeros_like(down), np.zeros_like(down), down], axis=1)
        _, forward_gradient = self._forward(halfway)
        result = np.zeros((len(positions), 3, 3))
        result[:, 2] = down_gradient
        result[:, 1] = forward_gradient + forward_gradient[:, 2:] * down_gradient
        return result

    def inverse_apply(self, positions: ArrayLike, *, tolerance_mm: float = 1e-4, iterations: int = 60) -> Floats:
        """Map moving points back to the fixed scan: undo the anterior step first, then the inferior one.

        Args:
            positions: (..., 3) float, moving world RAS mm.
            tolerance_mm: The residual of each of the two steps is at most a hundredth of this.
            iterations: Upper limit of iterations for each step.

        Returns:
            (..., 3) float64, fixed world RAS mm.

        Raises:
            TransformError: if the tolerance is not reached within `iterations`.
        """
        world = np.asarray(positions, dtype=np.float64)
        found = world.reshape(-1, 3).copy()
        for axis, step in ((1, self._forward), (2, self._descent)):
            goal = found[:, axis].copy()
            for _ in range(iterations):
                value, gradient = step(found)
                error = found[:, axis] + value - goal
                rows = np.abs(error) > tolerance_mm / 100
                if not rows.any():
                    break
                # The slope is at most 0.8: dividing by no less than 1 keeps every step a contraction.
                found[rows, axis] -= error[rows] / np.maximum(1 + gradient[rows, axis], 1.0)
            else:
                raise TransformError(
                    f"inversion of breathing did not reach {tolerance_mm:g} mm; allow more iterations"
                )
        return found.reshape(world.shape)
