"""`Grid`: a voxel grid in world coordinates, and all operations that derive one grid from another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from meddift.errors import GeometryError
from meddift.geometry.orientation import turned_axes
from meddift.geometry.voxel_space import Floats, VoxelSpace


@dataclass(frozen=True, eq=False, repr=False)
class Grid(VoxelSpace):
    """A voxel grid in world coordinates (RAS, mm); voxel centres lie at integer indices.

    Attributes:
        shape: Number of voxels along each of the three index axes, each at least 1.
        affine: (4, 4) float64, voxel index to world RAS mm.

    Raises:
        GeometryError: if the shape is not three positive integers, or the affine is not finite,
            not (4, 4), has another last row than [0, 0, 0, 1], or is singular.

    Examples:
        >>> grid = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
        >>> grid.index_to_world([1, 2, 3])
        array([2., 4., 6.])
    """

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """The grid of `shape` voxels that begins at index `start`; beyond the border it is padding.

        Args:
            start: First index along each axis; negative values extend the grid.
            shape: Number of voxels along each axis.
        """
        return self._derived(shape, step=np.ones(3), first=np.asarray(start, dtype=np.float64))

    def strided(self, step: int | Sequence[int]) -> Grid:
        """The grid of every `step`-th voxel, from index 0 on: `data[::step, ::step, ::step]`."""
        steps = np.broadcast_to(np.asarray(step, dtype=np.int64), (3,))
        shape = [-(-n // int(s)) for n, s in zip(self.shape, steps, strict=True)]
        return self._derived(shape, step=steps.astype(np.float64), first=np.zeros(3))

    def resized(self, shape: Sequence[int]) -> Grid:
        """The grid with another number of voxels over the same field of view.

        This is the grid of `torch.nn.functional.interpolate(align_corners=False)`, of pooling with
        equal stride and kernel, and of every network stage with an integer stride: outer voxel faces stay.
        """
        target = np.asarray([int(n) for n in shape], dtype=np.float64)
        if (target < 1).any():
            raise GeometryError(f"a grid needs three axes of at least one voxel, got shape {shape}")
        step = np.asarray(self.shape) / target
        return self._derived(shape, step=step, first=(step - 1) / 2)

    def downsampled(self, factor: int | Sequence[int]) -> Grid:
        """The grid after averaging blocks of `factor` voxels; the shape must be divisible by it.

        Raises:
            GeometryError: if an axis is not divisible.
        """
        factors = np.broadcast_to(np.asarray(factor, dtype=np.int64), (3,))
        if (np.asarray(self.shape) % factors).any():
            raise GeometryError(f"shape {self.shape} cannot be divided into blocks of {factors}")
        return self.resized([n // int(f) for n, f in zip(self.shape, factors, strict=True)])

    def respaced(self, spacing: float | Sequence[float]) -> Grid:
        """The smallest grid of this spacing that covers the same field of view, with the same middle.

        Args:
            spacing: mm, along each index axis.
        """
        target = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
        if not (np.isfinite(target).all() and (target > 0).all()):
            raise GeometryError(f"a spacing must be positive, got {target} mm")
        # Tolerance of 1e-4 voxel, so that 180 voxels of 1.9999999 mm become 180 voxels of 2 mm and not 181.
        shape = np.maximum(np.ceil(self.extent / target - 1e-4), 1).astype(int)
        step = target / self.spacing
        middle = (np.asarray(self.shape) - 1) / 2
        return self._derived(shape.tolist(), step=step, first=middle - step * (shape - 1) / 2)

    def coarsened(self, spacing: float) -> Grid:
        """`respaced`, but along no axis finer than it is; `spacing` in mm."""
        return self.respaced(np.maximum(spacing, self.spacing).tolist())

    def padded_to_multiple(self, multiple: int) -> tuple[Grid, tuple[int, int, int]]:
        """Extend each axis on both sides until its length is a multiple.

        Returns:
            The extended grid, and how many voxels were put before index 0 along each axis.
        """
        shape = [-(-n // multiple) * multiple for n in self.shape]
        before = tuple((new - n) // 2 for new, n in zip(shape, self.shape, strict=True))
        return self.cropped([-b for b in before], shape), (before[0], before[1], before[2])

    def without_shear(self) -> Grid:
        """The grid with the closest orthogonal axes; shape, spacing and the middle of the field of view stay.

        Closest in the sum of squares (polar decomposition: Higham 1986, doi:10.1137/0907079).
        """
        left, _, right = np.linalg.svd(self.direction)
        affine = np.eye(4)
        affine[:3, :3] = left @ right * self.spacing
        affine[:3, 3] = self.center - affine[:3, :3] @ ((np.asarray(self.shape) - 1) / 2)
        return Grid(self.shape, affine)

    def reoriented(self, orientation: str = "RAS") -> tuple[Grid, tuple[int, int, int], tuple[bool, bool, bool]]:
        """The same voxels with index axes permuted and flipped to the closest given orientation.

        Args:
            orientation: Three letters, one of each pair L/R, P/A, I/S.

        Returns:
            The new grid; for each new axis the old axis it comes from; and for each new axis whether
            it is flipped. `numpy.flip(data.transpose(axes), [i for i in range(3) if flips[i]])` turns the data.

        Raises:
            GeometryError: if `orientation` is not such three letters.
        """
        axes, flips = turned_axes(self.direction, orientation)
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
            turn[old, new] = -1.0 if flip else 1.0
            turn[old, 3] = self.shape[old] - 1 if flip else 0.0
        grid = Grid((self.shape[axes[0]], self.shape[axes[1]], self.shape[axes[2]]), self.affine @ turn)
        return grid, axes, flips

    def planes(self) -> Iterator[Floats]:
        """`voxel_centers` plane by plane along the first axis, each (Y, Z, 3): for grids whose centres fill memory."""
        for i in range(self.shape[0]):
            yield self.cropped((i, 0, 0), (1, *self.shape[1:])).voxel_centers()[0]

    def _derived(self, shape: Sequence[int], *, step: Floats, first: Floats) -> Grid:
        """The grid whose index j lies at index `first + step * j` of this one."""
        affine = self.affine @ np.block([[np.diag(step), np.reshape(first, (3, 1))], [np.zeros((1, 3)), 1.0]])
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
