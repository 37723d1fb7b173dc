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

    def inverted(self) -> InverseOfKnown:
        """The transform that takes moving points back to fixed points."""
        return InverseOfKnown(self)

    def _residual(self, found: Floats, goal: Floats) -> tuple[Floats, Floats]:
        """Trial points, (N, 3), and their images under the transform minus the goals, (N, 3), mm."""
        return found, found + self.displacement(found) - goal


@dataclass(frozen=True)
class InverseOfKnown:
    """The inverse of a known transform: moving points to fixed points.

    Attributes:
        known: Fixed to moving.
    """

    known: KnownTransform

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (..., 3) moving world RAS mm to fixed world RAS mm; see `KnownTransform.inverse_apply`."""
        return self.known.inverse_apply(positions)

    def inverted(self) -> KnownTransform:
        """The known transform itself."""
        return self.known


@dataclass(frozen=True)
class TableShift(KnownTransform):
    """A translation: the patient lies elsewhere on the table.

    Attributes:
        shift_mm: (3,) displacement of every point, world RAS mm.
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
    """A rotation about a centre: the patient lies at another angle.

    Attributes:
        rotation_vector_degrees: (3,) axis times angle, right-handed, world RAS; at most 40 degrees.
        center: (3,) world RAS mm, the centre of rotation.

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


@dataclass(frozen=True)
class KnownComposite(KnownTransform):
    """A composition of known transforms.

    Attributes:
        parts: The transforms; the first is applied to points first.
    """

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

        Each part is inverted with a hundredth of `tolerance_mm`, so that errors of the later parts, propagated
        through the inverses of the earlier ones, stay below the tolerance.
        """
        world = np.asarray(positions, dtype=np.float64)
        for part in reversed(self.parts):
            world = part.inverse_apply(world, tolerance_mm=tolerance_mm / 100, iterations=iterations)
        return world


def compose(*parts: KnownTransform) -> KnownComposite:
    """Compose known transforms; the first argument is applied to points first."""
    return KnownComposite(tuple(parts))


def triple(values: NDArray[np.floating]) -> tuple[float, float, float]:
    """Convert a (3,) array to a tuple of floats, for parameters of transforms."""
    return float(values[0]), float(values[1]), float(values[2])
