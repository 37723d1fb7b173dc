"""`VoxelSpace`: the geometry of a voxel grid, and conversion between voxel indices and world points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import GeometryError
from meddift.geometry.orientation import closest_axes
from meddift.geometry.sampling import constant, is_tensor, mapped

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Floats = NDArray[np.float64]

#: Largest cosine between two index axes that counts as rounding. ITK, and with it 3D Slicer, refuses NIfTI images
#: beyond about this value.
SHEAR_TOLERANCE = 1e-4

#: Lengths beyond this, mm, are taken for damaged headers; their squares might overflow.
_LARGEST = 1e9


@dataclass(frozen=True, eq=False)
class VoxelSpace:
    """The geometry of `Grid`; see there for its attributes."""

    shape: tuple[int, int, int]
    affine: Floats

    def __post_init__(self) -> None:
        """Validate and freeze."""
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or any(n < 1 for n in shape):
            raise GeometryError(f"a grid needs three axes of at least one voxel, got shape {shape}")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GeometryError(f"an affine must have shape (4, 4), got {affine.shape}")
        if not np.isfinite(affine).all() or np.abs(affine).max() > _LARGEST:
            raise GeometryError(f"an affine must be finite, and its lengths below {_LARGEST:g} mm, got\n{affine}")
        if not np.allclose(affine[3], [0, 0, 0, 1]):
            raise GeometryError(f"the last row of an affine must be [0, 0, 0, 1], got {affine[3]}")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if (spacing < 1 / _LARGEST).any() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
            raise GeometryError(f"the affine is singular (spacing {spacing} mm):\n{affine}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    # ------------------------------------------------------------------ geometry

    @classmethod
    def from_parts(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float],
        origin: Sequence[float] = (0.0, 0.0, 0.0),
        direction: ArrayLike | None = None,
    ) -> Self:
        """A grid from shape, spacing, origin and direction.

        Args:
            shape: Number of voxels along each axis.
            spacing: Spacing of voxels along each axis, mm.
            origin: Centre of voxel (0, 0, 0), world RAS mm.
            direction: (3, 3), unit vectors of the index axes as columns, world RAS; None = R, A, S.

        Raises:
            GeometryError: if a value is invalid.
        """
        turn = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64).reshape(3, 3)
        if np.abs(np.linalg.norm(turn, axis=0) - 1).max() > 1e-3:
            raise GeometryError(f"the columns of a direction must have length 1, got\n{turn}")
        affine = np.eye(4)
        affine[:3, :3] = turn * np.asarray(spacing, dtype=np.float64)
        affine[:3, 3] = origin
        return cls((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    @cached_property
    def inverse(self) -> Floats:
        """(4, 4) float64, world RAS mm to voxel index."""
        return np.asarray(np.linalg.inv(self.affine), dtype=np.float64)

    @property
    def spacing(self) -> Floats:
        """(3,) float64, distance between neighbouring voxel centres along each index axis, mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), dtype=np.float64)

    @property
    def origin(self) -> Floats:
        """(3,) float64, world RAS mm of the centre of voxel (0, 0, 0)."""
        return self.affine[:3, 3].copy()

    @property
    def direction(self) -> Floats:
        """(3, 3) float64, unit vectors of the index axes as columns, RAS."""
        return self.affine[:3, :3] / self.spacing

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel, mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def voxel_diagonal(self) -> float:
        """Distance between opposite corners of a voxel, mm."""
        return float(np.linalg.norm(self.affine[:3, :3].sum(axis=1)))

    @property
    def extent(self) -> Floats:
        """(3,) float64, edge lengths of the field of view along the index axes, mm (outer voxel faces)."""
        return self.spacing * self.shape

    @property
    def center(self) -> Floats:
        """(3,) float64, world RAS mm of the middle of the field of view."""
        return self.index_to_world((np.asarray(self.shape) - 1) / 2)

    @property
    def orientation(self) -> str:
        """Three letters: the direction in which each index axis mostly grows, e.g. "RAS" or "LPS"."""
        axes, signs = closest_axes(self.direction)
        return "".join(("LPI", "RAS")[int(s > 0)][a] for a, s in zip(axes, signs, strict=True))

    @property
    def obliqueness_degrees(self) -> float:
        """Largest angle between an index axis and its closest world axis, degrees."""
        axes, _ = closest_axes(self.direction)
        cosines = np.abs(self.direction[list(axes), range(3)])
        return float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))

    @property
    def shear(self) -> float:
        """Largest absolute cosine between two index axes; 0 where they are orthogonal."""
        gram = self.direction.T @ self.direction
        return float(np.abs(gram - np.diag(np.diag(gram))).max())

    @property
    def corners(self) -> Floats:
        """(8, 3) float64, world RAS mm of the centres of the eight corner voxels."""
        last = np.asarray(self.shape) - 1
        unit = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
        return np.asarray(self.index_to_world(unit * last))

    def same_as(self, other: VoxelSpace, *, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and no corner differs by more than `tolerance_mm`."""
        return self.shape == other.shape and bool(np.abs(self.corners - other.corners).max() <= tolerance_mm)

    def __eq__(self, other: object) -> bool:
        """Equal shape and exactly equal affine."""
        if not isinstance(other, VoxelSpace):
            return NotImplemented
        return self.shape == other.shape and bool((self.affine == other.affine).all())

    def __hash__(self) -> int:
        """Hash of shape and affine."""
        return hash((self.shape, self.affine.tobytes()))

    def __repr__(self) -> str:
        """Geometry in words."""
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing)
        origin = ", ".join(f"{o:.2f}" for o in self.origin)
        shape = "x".join(map(str, self.shape))
        return f"Grid({shape}, {spacing} mm, origin RAS ({origin}) mm, {self.orientation})"

    # ------------------------------------------------------------------ points

    @overload
    def index_to_world(self, indices: Tensor) -> Tensor: ...
    @overload
    def index_to_world(self, indices: ArrayLike) -> Floats: ...
    def index_to_world(self, indices: Any) -> Any:
        """Convert (continuous) voxel indices to world points.

        Args:
            indices: (..., 3) float, voxel indices; centres are integers.

        Returns:
            (..., 3) float64, world RAS mm; for a tensor, of its type and on its device.
        """
        return mapped(self.affine, indices)

    @overload
    def world_to_index(self, positions: Tensor) -> Tensor: ...
    @overload
    def world_to_index(self, positions: ArrayLike) -> Floats: ...
    def world_to_index(self, positions: Any) -> Any:
        """Convert world points to continuous voxel indices.

        Args:
            positions: (..., 3) float, world RAS mm.

        Returns:
            (..., 3) float64, voxel indices, neither rounded nor clipped; for a tensor, of its type and on its device.
        """
        return mapped(self.inverse, positions)

    @overload
    def vectors_to_world(self, vectors: Tensor) -> Tensor: ...
    @overload
    def vectors_to_world(self, vectors: ArrayLike) -> Floats: ...
    def vectors_to_world(self, vectors: Any) -> Any:
        """Convert (..., 3) differences of voxel indices to differences of world points, RAS mm."""
        return mapped(self.affine, vectors, shifts=False)

    def in_voxels(self, length_mm: float) -> Floats:
        """(3,) float64, a length in voxels along each index axis; not rounded."""
        return np.asarray(length_mm / self.spacing, dtype=np.float64)

    def rim_distance_mm(self, positions: ArrayLike) -> Floats:
        """Distance of world points from the border of the field of view (the outer voxel faces).

        Args:
            positions: (..., 3) float, world RAS mm.

        Returns:
            (...,) float64, mm along the index axes to the closest face; positive inside, negative outside.
        """
        index = self.world_to_index(positions)
        inside = np.minimum(index + 0.5, np.asarray(self.shape) - 0.5 - index)
        return np.asarray((inside * self.spacing).min(axis=-1))

    @overload
    def contains(self, positions: Tensor, *, margin_mm: float = ...) -> Tensor: ...
    @overload
    def contains(self, positions: ArrayLike, *, margin_mm: float = ...) -> NDArray[np.bool_]: ...
    def contains(self, positions: Any, *, margin_mm: float = 0.0) -> Any:
        """Whether world points lie in the field of view (bounded by the outer voxel faces).

        Args:
            positions: (..., 3) float, world RAS mm.
            margin_mm: Width by which the field of view is reduced on each side, mm; negative values enlarge it.

        Returns:
            (...,) bool. NaN positions are outside.
        """
        index = self.world_to_index(positions)
        # A tolerance of a nanometre: a point on a face stays inside after rounding in the affine.
        margin = margin_mm / self.spacing - 0.5 - 1e-6 / self.spacing
        if is_tensor(index):
            low, high = constant(index, margin), constant(index, np.asarray(self.shape) - 1 - margin)
            return ((index >= low) & (index <= high)).all(-1)
        with np.errstate(invalid="ignore"):
            inside = (index >= margin) & (index <= np.asarray(self.shape) - 1 - margin)
        return np.asarray(inside.all(-1))

    def voxel_centers(self) -> Floats:
        """(X, Y, Z, 3) float64, world RAS mm of every voxel centre (24 bytes for each voxel)."""
        axes = [np.arange(n, dtype=np.float64) for n in self.shape]
        return self.index_to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1))

    def voxel_centers_on(self, device: str | torch.device) -> Tensor:
        """(X * Y * Z, 3) float64, world RAS mm of every voxel centre on a device, the last axis running fastest."""
        import torch

        axes = [torch.arange(n, dtype=torch.float64, device=device) for n in self.shape]
        return self.index_to_world(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3))
