"""Transforms, which map points of the fixed scan to points of the moving scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import TransformError
from meddift.geometry.grid import Grid
from meddift.geometry.sampling import mapped, sample

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]


@runtime_checkable
class Transform(Protocol):
    """Any map from fixed points to moving points."""

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (N, 3) world RAS mm on the fixed scan to (N, 3) world RAS mm on the moving scan."""
        ...

    def inverted(self) -> Transform:
        """The inverse: a transform from moving points to fixed points."""
        ...


@dataclass(frozen=True, eq=False)
class AffineTransform:
    """An affine map.

    Attributes:
        matrix: (4, 4) float64, fixed world RAS mm to moving world RAS mm.
    """

    matrix: Floats

    def __post_init__(self) -> None:
        """Validate and freeze."""
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise TransformError(f"an affine transform needs a finite, invertible (4, 4) matrix, got\n{matrix}")
        if not np.allclose(matrix[3], [0, 0, 0, 1]):
            raise TransformError(
                f"the last row of an affine transform must be 0 0 0 1, got {matrix[3]}; is it the transpose of one?"
            )
        matrix[3] = (0.0, 0.0, 0.0, 1.0)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __repr__(self) -> str:
        """The displacement of the origin, and the change of volume."""
        shift = ", ".join(f"{v:.2f}" for v in self.matrix[:3, 3])
        return f"AffineTransform(shift {shift} mm, volume x {np.linalg.det(self.matrix[:3, :3]):.3f})"

    @classmethod
    def identity(cls) -> AffineTransform:
        """The identity."""
        return cls(np.eye(4))

    @classmethod
    def fit(cls, fixed: ArrayLike, moving: ArrayLike) -> AffineTransform:
        """Least-squares affine from (N, 3) fixed points to (N, 3) moving points; N >= 4, not coplanar.

        Raises:
            TransformError: if there are fewer than 4 points or they lie in a plane.
        """
        source = np.asarray(fixed, dtype=np.float64)
        target = np.asarray(moving, dtype=np.float64)
        middle = source.mean(axis=0)
        system = np.column_stack([source - middle, np.ones(len(source))])
        if len(source) < 4 or np.linalg.matrix_rank(system) < 4:
            raise TransformError(f"an affine needs at least 4 points that do not lie in one plane, got {len(source)}")
        solution, *_ = np.linalg.lstsq(system, target, rcond=None)
        matrix = np.eye(4)
        matrix[:3, :3] = solution[:3].T
        matrix[:3, 3] = solution[3] - solution[:3].T @ middle
        return cls(matrix)

    @classmethod
    def fit_rigid(cls, fixed: ArrayLike, moving: ArrayLike) -> AffineTransform:
        """Least-squares rigid transform from (N, 3) fixed to (N, 3) moving points; see `rigid_motions`.

        Raises:
            TransformError: if there are fewer than 3 points.
        """
        source, target = np.asarray(fixed, dtype=np.float64), np.asarray(moving, dtype=np.float64)
        if len(source) < 3:
            raise TransformError(f"a rigid transform needs at least 3 points, got {len(source)}")
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rigid_motions(source, target)
        return cls(matrix)

    @overload
    def apply(self, positions: Tensor) -> Tensor: ...
    @overload
    def apply(self, positions: ArrayLike) -> Floats: ...
    def apply(self, positions: Any) -> Any:
        """Map (N, 3) points on the fixed scan, world RAS mm, to the moving scan; a tensor stays on its device."""
        return mapped(self.matrix, positions)

    def inverted(self) -> AffineTransform:
        """The inverse affine, from moving points to fixed points."""
        return AffineTransform(np.asarray(np.linalg.inv(self.matrix), dtype=np.float64))


def rigid_motions(fixed: Floats, moving: Floats) -> tuple[Floats, Floats]:
    """Rotations R and translations t that minimise the sum of |R x + t - y|^2 over the points of each set.

    By singular value decomposition (Kabsch 1976, doi:10.1107/S0567739476001873), without reflections.

    Args:
        fixed: (..., N, 3) float64, x, world RAS mm.
        moving: (..., N, 3) float64, y, world RAS mm.

    Returns:
        (..., 3, 3) float64, R, and (..., 3) float64, t in mm.
    """
    middle, end = fixed.mean(axis=-2, keepdims=True), moving.mean(axis=-2, keepdims=True)
    left, _, right = np.linalg.svd((moving - end).swapaxes(-1, -2) @ (fixed - middle))
    left[..., :, 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    rotation = left @ right
    shift = end[..., 0, :] - (rotation @ middle.swapaxes(-1, -2))[..., 0]
    return np.asarray(rotation), np.asarray(shift)


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """Displacements on a grid: `T(x) = x + d(x)`.

    Attributes:
        displacement: (3, X, Y, Z) float, world RAS mm, at the voxel centres of `grid`.
        grid: Grid in the fixed world.
    """

    displacement: NDArray[np.floating]
    grid: Grid

    def __post_init__(self) -> None:
        """Validate."""
        if self.displacement.shape != (3, *self.grid.shape):
            raise TransformError(
                f"a displacement field on a grid of {self.grid.shape} needs shape {(3, *self.grid.shape)}, "
                f"got {self.displacement.shape}"
            )

    def __repr__(self) -> str:
        """The grid, and the size of the displacements."""
        longest = float(np.sqrt(np.square(self.displacement, dtype=np.float64).sum(axis=0).max()))
        return f"DisplacementField({self.grid!r}, up to {longest:.1f} mm)"

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (N, 3) world RAS mm on the fixed scan to the moving scan.

        Displacements are interpolated trilinearly. Outside the grid the displacement is that of the nearest border
        voxel; `grid.contains` tells which points lie inside.
        """
        world = np.asarray(positions, dtype=np.float64)
        flat = world.reshape(-1, 3)
        moved = flat + sample(self.displacement, self.grid.world_to_index(flat)).T
        return moved.reshape(world.shape)

    def inverted(self) -> Transform:
        """The inverse, computed numerically when it is applied; inexact where the field folds."""
        from meddift.geometry.inverse import NumericalInverse

        return NumericalInverse.of(self)


@dataclass(frozen=True, eq=False)
class CompositeTransform:
    """A composition of transforms.

    Attributes:
        parts: The transforms, in the order in which they are applied to points.
    """

    parts: tuple[Transform, ...]

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (N, 3) points, world RAS mm, by all parts, the first part first."""
        world = np.asarray(positions, dtype=np.float64)
        for part in self.parts:
            world = part.apply(world)
        return world

    def inverted(self) -> CompositeTransform:
        """The inverses of all parts, the last part first."""
        return CompositeTransform(tuple(part.inverted() for part in reversed(self.parts)))
