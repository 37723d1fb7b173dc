"""Deforming a scan by a known transform: how the moving scan of a synthetic pair is made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, OptionsError
from meddift.geometry import Grid, as_type, spline_matrix
from meddift.volume import Volume
from meddift_lab.synthetic.deformation import KnownTransform

#: HU of what lies outside the field of view.
AIR_HU = -1000.0
#: Number of voxels that are computed at a time, which bounds the working memory.
VOXELS_AT_ONCE = 1_000_000


def deform_volume(
    volume: Volume,
    transform: KnownTransform,
    grid_out: Grid | None = None,
    *,
    order: int = 3,
    lattice_mm: float = 8.0,
    fill: float = AIR_HU,
) -> Volume:
    """Make the moving scan: `moving(y) = fixed(T^-1(y))`.

    T^-1 is evaluated on a coarse grid and interpolated by cubic B-splines in between. With a spacing of 8 mm the
    error of the positions is below 0.05 mm for breathing of up to 50 mm with local warps of 25 mm width, which the
    tests check. Intensities are interpolated by cubic B-splines (`order=3`) or trilinearly (`order=1`). Cubic
    interpolation preserves more contrast and takes longer.

    Args:
        volume: The fixed scan, (X, Y, Z) numbers, HU.
        transform: Takes fixed points to moving points.
        grid_out: Grid of the moving scan; `None` means the grid of `volume`.
        order: 1 or 3, degree of the splines that interpolate intensities.
        lattice_mm: Spacing of the grid on which the transform is inverted.
        fill: Value outside the field of view of the fixed scan.

    Returns:
        Volume on `grid_out` with the dtype of `volume.data` (integers are rounded and clipped to their range).

    Raises:
        ImageError: if the volume has channels.
        OptionsError: if `order` is neither 1 nor 3.
    """
    from scipy import ndimage

    if volume.data.ndim != 3:
        raise ImageError(f"a scan of shape (X, Y, Z) is needed, got {volume.data.shape}")
    if order not in (1, 3):
        raise OptionsError(f"order must be 1 (linear) or 3 (cubic), got {order}")
    grid = volume.grid if grid_out is None else grid_out
    coefficients = np.ascontiguousarray(volume.data, dtype=np.float32)
    if order == 3:
        coefficients = ndimage.spline_filter(coefficients, order=3, output=np.float32, mode="mirror")
    field = InverseField(transform, grid, lattice_mm=lattice_mm)
    last = np.asarray(volume.grid.shape) - 1
    result = np.empty(grid.shape, dtype=volume.data.dtype)
    thickness = max(1, VOXELS_AT_ONCE // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], thickness):
        stop = min(start + thickness, grid.shape[0])
        world = field.slab(start, stop)
        matrix = volume.grid.inverse
        index = np.tensordot(matrix[:3, :3], world, axes=1) + matrix[:3, 3].reshape(3, 1, 1, 1)
        limit = last.reshape(3, 1, 1, 1)
        # The field of view ends at the outer voxel faces; beyond the last centre the border voxel is extended.
        outside = ((index < -0.5 - 1e-6) | (index > limit + 0.5 + 1e-6)).any(axis=0)
        np.clip(index, 0, limit, out=index)
        values = ndimage.map_coordinates(coefficients, index, order=order, mode="mirror", prefilter=False)
        values[outside] = fill
        result[start:stop] = as_type(values, result.dtype)
    return Volume(result, grid)


class InverseField:
    """The inverse of a known transform, sampled on a coarse grid along the axes of a grid.

    Args:
        transform: Takes fixed points to moving points.
        grid: Grid in the moving world on whose voxels the inverse is wanted.
        lattice_mm: Spacing of the coarse grid.
    """

    def __init__(self, transform: KnownTransform, grid: Grid, *, lattice_mm: float = 8.0) -> None:
        """Invert the transform at the grid points."""
        from scipy import ndimage

        self.grid = grid
        coarse = grid.coarsened(lattice_mm)
        # Pad by four cells: cubic splines assume mirrored ends, which is wrong for a displacement, and the error
        # this causes decays by a factor of 0.27 from cell to cell.
        coarse = coarse.cropped([-4, -4, -4], [n + 8 for n in coarse.shape])
        centers = coarse.voxel_centers().reshape(-1, 3)
        displacement = transform.inverse_apply(centers) - centers
        shaped = displacement.T.reshape(3, *coarse.shape)
        self._coefficients = np.stack([ndimage.spline_filter(part, order=3, mode="mirror") for part in shaped])
        relation = coarse.inverse @ grid.affine
        self._weights = [
            spline_matrix(coarse.shape[a], relation[a, 3] + relation[a, a] * np.arange(grid.shape[a]))
            for a in range(3)
        ]

    def slab(self, start: int, stop: int) -> NDArray[np.float64]:
        """Fixed world RAS mm of the voxels `start` to `stop` along the first axis: (3, stop - start, Y, Z)."""
        along_x, along_y, along_z = self._weights
        part = np.tensordot(along_x[start:stop], self._coefficients, axes=(1, 1))  # (x, 3, cy, cz)
        part = part @ along_z.T
        part = along_y @ part  # (x, 3, Y, Z)
        origin = self.grid.affine[:3, 3].reshape(3, 1, 1, 1)
        steps = [np.arange(start, stop), np.arange(self.grid.shape[1]), np.arange(self.grid.shape[2])]
        world = part.transpose(1, 0, 2, 3) + origin
        for axis, indices in enumerate(steps):
            shape = [1, 1, 1]
            shape[axis] = -1
            world += self.grid.affine[:3, axis].reshape(3, 1, 1, 1) * indices.reshape(1, *shape)
        return np.asarray(world)
