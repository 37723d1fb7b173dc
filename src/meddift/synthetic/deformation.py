"""Known transforms: closed form, smooth, invertible everywhere, with exact derivatives.

Each takes points of the fixed scan to points of the moving scan, as every `Transform` does, and knows
its Jacobian. All of them are bijections of the whole space, for a reason that is checked on construction:

* a map that moves points along one axis only is a bijection if its derivative along that axis is
  above -1; its Jacobian determinant is one plus that derivative;
* `x + u(x)` is a bijection if `u` is a contraction (Lipschitz constant L below 1); its Jacobian
  determinant is at least (1 - L)^3;
* compositions of bijections are bijections, and their determinants multiply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import OptionsError, TransformError
from meddift.geometry import Grid
from meddift.synthetic.profiles import plateau, rising_step

Floats = NDArray[np.float64]

#: Largest Lipschitz constant of a displacement: beyond it inversion by iteration becomes slow.
LARGEST_GRADIENT = 0.8


class KnownTransform(ABC):
    """A smooth bijection from fixed to moving world points whose displacement has a closed form.

    Subclasses give `displacement` and `gradient`; mapping, Jacobian and inverse follow. Rows of NaN stay NaN.
    """

    @abstractmethod
    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) fixed world RAS mm points: (N, 3) float64, mm."""

    @abstractmethod
    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement: (N, 3, 3) float64, `[n, i, j]` is d displacement_i / d position_j."""

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (..., 3) world RAS mm on the fixed scan to (..., 3) world RAS mm on the moving scan."""
        world = np.asarray(positions, dtype=np.float64)
        flat = world.reshape(-1, 3)
        return (flat + self.displacement(flat)).reshape(world.shape)

    def jacobian(self, positions: ArrayLike) -> Floats:
        """Jacobian matrices at (N, 3) fixed points: (N, 3, 3) float64, dimensionless."""
        flat = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
        return np.eye(3) + self.gradient(flat)

    def jacobian_determinant(self, positions: ArrayLike) -> Floats:
        """Local change of volume at (N, 3) fixed points: (N,) float64, above 0 everywhere."""
        return np.asarray(np.linalg.det(self.jacobian(positions)))

    def inverse_apply(self, positions: ArrayLike, *, tolerance_mm: float = 1e-4, iterations: int = 60) -> Floats:
        """Map world points of the moving scan back to the fixed scan.

        Newton's method with the exact Jacobian; where a step does not lessen the residual, a fixed-point
        step is taken, which always does because the displacement is a contraction.

        Args:
            positions: (..., 3) float, moving world RAS mm.
            tolerance_mm: Bound on the residual `|T(result) - position|` of every point.
            iterations: Upper limit of steps; Newton usually needs 3 to 5.

        Returns:
            (..., 3) float64, fixed world RAS mm.

        Raises:
            TransformError: if the residual of some point is still above `tolerance_mm`.
        """
        world = np.asarray(positions, dtype=np.float64)
        goal = world.reshape(-1, 3)
        found = goal - self.displacement(goal)
        error = found + self.displacement(found) - goal
        size = np.linalg.norm(error, axis=1)
        for _ in range(iterations):
            rows = np.flatnonzero(size > tolerance_mm)
            if rows.size == 0:
                return found.reshape(world.shape)
            step = np.linalg.solve(self.jacobian(found[rows]), error[rows, :, None])[:, :, 0]
            trial, trial_error = self._residual(found[rows] - step, goal[rows])
            worse = ~(np.linalg.norm(trial_error, axis=1) < 0.9 * size[rows])
            if worse.any():
                plain = found[rows[worse]] - error[rows[worse]]
                trial[worse], trial_error[worse] = self._residual(plain, goal[rows[worse]])
            found[rows], error[rows] = trial, trial_error
            size[rows] = np.linalg.norm(trial_error, axis=1)
        if (size > tolerance_mm).any():
            raise TransformError(
                f"inversion of {type(self).__name__} left a residual of {np.nanmax(size):.3g} mm "
                f"after {iterations} steps (asked for {tolerance_mm:g} mm); allow more iterations"
            )
        return found.reshape(world.shape)

    def _residual(self, found: Floats, goal: Floats) -> tuple[Floats, Floats]:
        """A trial and how far its image lies from the goal."""
        return found, found + self.displacement(found) - goal


@dataclass(frozen=True)
class BreathingDeformation(KnownTransform):
    """Breathing between two scans: first along S, then along A; each step moves points along one axis only.

    Inferior step: the displacement is 0 at the apex of the lungs and above, grows to `amplitude_mm` at the
    diaphragm, and fades to 0 over `fade_mm` below. Across the body it is nearly constant over the lungs,
    0 at the spine, and 0 far outside. Anterior step: the front wall moves forward by `anterior_mm`; nothing
    moves behind the middle of the chest, and nothing far in front.

    Determinant: (1 + du_z/dz)(1 + du_y/dy); the steepest slopes are 1.875 * amplitude / length of the step
    (see `rising_step`), checked to be at most 0.8, so the determinant is at least 0.04 and typically above 0.6.

    Attributes:
        lung_low: (3,) least x, y, z of the lungs on the fixed scan, world RAS mm.
        lung_high: (3,) greatest x, y, z of the lungs, world RAS mm.
        amplitude_mm: Descent of the diaphragm; positive is breathing in (fixed exhaled, moving inhaled).
        anterior_mm: Forward motion of the front wall; `None` is a fifth of the amplitude.
        fade_mm: Over which length below the diaphragm the motion fades out.

    Raises:
        OptionsError: if the box is empty, or the motion is too steep for its size.
    """

    lung_low: tuple[float, float, float]
    lung_high: tuple[float, float, float]
    amplitude_mm: float = 30.0
    anterior_mm: float | None = None
    fade_mm: float = 220.0

    def __post_init__(self) -> None:
        """Validate."""
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
        """Breathing for a scan of which only the field of view is known: the lungs are its inner three quarters."""
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
        """From the apex to where the motion is largest, mm: the domes stand above the lowest recess."""
        return 0.8 * (self.lung_high[2] - self.lung_low[2])

    @property
    def _forward_length(self) -> float:
        """Over which the forward motion sets in, mm."""
        return 0.6 * (self.lung_high[1] - self.lung_low[1])

    def _descent(self, positions: Floats) -> tuple[Floats, Floats]:
        """Displacement along z, (N,), and its gradient, (N, 3)."""
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
        """Displacement along y, (N,), and its gradient, (N, 3)."""
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
        """Middle and half size of the lung box, mm."""
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
        """Map moving points back: the anterior step first, then the inferior one, each along its own axis.

        The residual of each step is at most a hundredth of `tolerance_mm`.

        Raises:
            TransformError: if that was not reached in `iterations` steps.
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


@dataclass(frozen=True)
class TableShift(KnownTransform):
    """A patient lying elsewhere: a translation.

    Attributes:
        shift_mm: (3,) world RAS mm.
    """

    shift_mm: tuple[float, float, float]

    def displacement(self, positions: Floats) -> Floats:
        """The same shift for all (N, 3) points."""
        return np.broadcast_to(np.asarray(self.shift_mm, dtype=np.float64), positions.shape) + 0 * positions

    def gradient(self, positions: Floats) -> Floats:
        """(N, 3, 3) zeros."""
        return np.zeros((len(positions), 3, 3))


@dataclass(frozen=True)
class SmallRotation(KnownTransform):
    """A patient lying askew: a rotation about a centre.

    Attributes:
        rotation_vector_degrees: (3,) axis times angle, right-handed, world RAS; at most 40 degrees.
        center: (3,) world RAS mm, the point that stays.

    Raises:
        OptionsError: if the angle is above 40 degrees.
    """

    rotation_vector_degrees: tuple[float, float, float]
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Validate: up to 40 degrees the displacement is a contraction (2 sin(angle / 2) < 0.7)."""
        angle = float(np.linalg.norm(self.rotation_vector_degrees))
        if not angle <= 40:
            raise OptionsError(f"a small rotation is at most 40 degrees, got {angle:g}")

    @cached_property
    def matrix(self) -> Floats:
        """(3, 3) rotation matrix, by Rodrigues' formula."""
        vector = np.radians(self.rotation_vector_degrees)
        angle = float(np.linalg.norm(vector))
        if angle == 0:
            return np.eye(3)
        a, b, c = vector / angle
        cross = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) points, mm."""
        return np.asarray((positions - np.asarray(self.center)) @ (self.matrix - np.eye(3)).T)

    def gradient(self, positions: Floats) -> Floats:
        """(N, 3, 3), the same matrix everywhere."""
        return np.broadcast_to(self.matrix - np.eye(3), (len(positions), 3, 3)).copy()


@dataclass(frozen=True, eq=False)
class LocalWarps(KnownTransform):
    """A few Gaussian bumps: `u(x) = sum_k a_k exp(-|x - c_k|^2 / (2 s_k^2))`.

    The gradient of one bump has norm at most |a_k| exp(-1/2) / s_k. Their sum bounds the Lipschitz constant
    L of `u`; it must be at most 0.8. Then the map is a bijection and its determinant at least (1 - L)^3.

    Attributes:
        centers: (K, 3) float64, fixed world RAS mm.
        amplitudes: (K, 3) float64, displacement at the centres, mm.
        widths: (K,) float64, s_k, mm.

    Raises:
        OptionsError: if the bound on the gradient is above 0.8.
    """

    centers: Floats
    amplitudes: Floats
    widths: Floats

    def __post_init__(self) -> None:
        """Validate."""
        if not self.gradient_bound <= LARGEST_GRADIENT:
            raise OptionsError(
                f"local warps are too steep (bound {self.gradient_bound:.2f}, at most {LARGEST_GRADIENT}); "
                "use smaller amplitudes, larger widths, or fewer bumps"
            )

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        low: ArrayLike,
        high: ArrayLike,
        count: int = 8,
        amplitude_mm: float = 5.0,
        width_mm: float = 35.0,
    ) -> LocalWarps:
        """Bumps in random directions at random places of a box.

        Args:
            seed: Seed; equal seeds give equal warps.
            low: (3,) least corner of the box, fixed world RAS mm.
            high: (3,) greatest corner, mm.
            count: Number of bumps.
            amplitude_mm: Largest displacement of one bump; lessened where the gradient bound asks for it.
            width_mm: Mean width s of a bump; they vary by a quarter.
        """
        generator = np.random.default_rng(seed)
        centers = generator.uniform(np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64), (count, 3))
        direction = generator.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        amplitudes = direction * generator.uniform(0.5, 1.0, (count, 1)) * amplitude_mm
        widths = generator.uniform(0.75, 1.25, count) * width_mm
        bound = _gradient_bound(amplitudes, widths)
        # 0.7 rather than the limit: leaves det >= 0.027 even where all bumps would coincide.
        return cls(centers, amplitudes * min(1.0, 0.7 / max(bound, 1e-12)), widths)

    @property
    def gradient_bound(self) -> float:
        """Upper bound of the Lipschitz constant of the displacement."""
        return _gradient_bound(self.amplitudes, self.widths)

    def _bump(self, positions: Floats, k: int) -> tuple[Floats, Floats]:
        """Offsets from the centre of bump k, (N, 3), and its weight, (N,)."""
        offset = positions - self.centers[k]
        return offset, np.exp(-(offset**2).sum(axis=1) / (2 * self.widths[k] ** 2))

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) points, mm."""
        result = np.zeros_like(positions)
        for k in range(len(self.widths)):
            result += self._bump(positions, k)[1][:, None] * self.amplitudes[k]
        return result

    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement: (N, 3, 3) float64."""
        result = np.zeros((len(positions), 3, 3))
        for k in range(len(self.widths)):
            offset, weight = self._bump(positions, k)
            slope = offset * (-weight / self.widths[k] ** 2)[:, None]
            result += self.amplitudes[k][None, :, None] * slope[:, None, :]
        return result


def _gradient_bound(amplitudes: Floats, widths: Floats) -> float:
    """Sum over bumps of the largest gradient norm of each."""
    return float((np.linalg.norm(amplitudes, axis=1) / widths).sum() * np.exp(-0.5))


@dataclass(frozen=True)
class KnownComposite(KnownTransform):
    """Several known transforms, applied to points in the order in which they stand."""

    parts: tuple[KnownTransform, ...]

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) points through all parts, mm."""
        moved = positions
        for part in self.parts:
            moved = moved + part.displacement(moved)
        return moved - positions

    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement, by the chain rule: (N, 3, 3) float64."""
        moved = positions
        total = np.broadcast_to(np.eye(3), (len(positions), 3, 3))
        for part in self.parts:
            total = part.jacobian(moved) @ total
            moved = moved + part.displacement(moved)
        return np.asarray(total - np.eye(3))

    def inverse_apply(self, positions: ArrayLike, *, tolerance_mm: float = 1e-4, iterations: int = 60) -> Floats:
        """Map moving points back through the parts, the last part first.

        Each part is inverted 100 times finer than `tolerance_mm`, so that what the errors of later parts
        become in the earlier ones stays below it.
        """
        world = np.asarray(positions, dtype=np.float64)
        for part in reversed(self.parts):
            world = part.inverse_apply(world, tolerance_mm=tolerance_mm / 100, iterations=iterations)
        return world


def compose(*parts: KnownTransform) -> KnownComposite:
    """One known transform out of several; the first given is applied to points first."""
    return KnownComposite(tuple(parts))
