"""`Volume`: an array with the grid it lies on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from meddift.errors import GeometryError
from meddift.geometry import Grid, resample_axes, sample


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan, a map or a field: an array and its Grid.

    Attributes:
        data: (..., X, Y, Z) array; the last three axes are those of `grid`, leading axes are channels.
        grid: The grid in world RAS mm.
        notes: Sentences about what reading changed or left out, for provenance: "the gantry was tilted by ...".
        modality: What it was recorded with, in DICOM's words ("CT", "MR", ...); "" where nothing says it.

    Raises:
        GeometryError: if the last three axes of `data` are not `grid.shape`.
    """

    data: NDArray[Any]
    grid: Grid
    notes: tuple[str, ...] = ()
    modality: str = ""

    def __post_init__(self) -> None:
        """Validate."""
        if self.data.shape[-3:] != self.grid.shape:
            raise GeometryError(f"data of shape {self.data.shape} does not lie on a grid of shape {self.grid.shape}")

    def __repr__(self) -> str:
        """Type and geometry in words."""
        return f"Volume({self.data.dtype}, {self.grid!r})"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The voxels, without their place in space: `np.asarray(volume)`."""
        if copy is None:
            return np.asarray(self.data, dtype=dtype)
        return np.array(self.data, dtype=dtype, copy=copy)

    @classmethod
    def of(
        cls,
        data: ArrayLike,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        origin: Sequence[float] = (0.0, 0.0, 0.0),
        direction: ArrayLike | None = None,
        modality: str = "",
    ) -> Volume:
        """An array with its place in space said in parts.

        Args:
            data: (X, Y, Z) array.
            spacing: Of the voxels along each axis, mm.
            origin: Centre of voxel (0, 0, 0), world RAS mm. (ITK says LPS: negate x and y.)
            direction: (3, 3), columns are the unit vectors along which the axes run, world RAS; None = R, A, S.
            modality: As above.

        Raises:
            GeometryError: if they make no grid.
        """
        array = np.asarray(data)
        return cls(array, Grid.from_parts(array.shape[-3:], spacing, origin, direction), modality=modality)

    def reoriented(self, orientation: str = "RAS") -> Volume:
        """The same voxels with axes permuted and flipped; no value and no world position changes."""
        grid, axes, flips = self.grid.reoriented(orientation)
        lead = self.data.ndim - 3
        data = self.data.transpose(*range(lead), *(lead + a for a in axes))
        flipped = [lead + i for i in range(3) if flips[i]]
        turned = np.ascontiguousarray(np.flip(data, tuple(flipped)) if flipped else data)
        return Volume(turned, grid, modality=self.modality)

    def cropped(self, start: Sequence[int], shape: Sequence[int], *, fill: float = 0.0) -> Volume:
        """Cut out a box of voxels; where it reaches beyond the border, it holds `fill`."""
        grid = self.grid.cropped(start, shape)
        data = np.full((*self.data.shape[:-3], *grid.shape), fill, dtype=self.data.dtype)
        source, target = [], []
        for first, length, n in zip(start, grid.shape, self.grid.shape, strict=True):
            low, high = max(int(first), 0), min(int(first) + length, n)
            if low >= high:
                return Volume(data, grid, modality=self.modality)
            source.append(slice(low, high))
            target.append(slice(low - int(first), high - int(first)))
        data[..., target[0], target[1], target[2]] = self.data[..., source[0], source[1], source[2]]
        return Volume(data, grid, modality=self.modality)

    def resampled_along_axes(self, grid: Grid) -> Volume:
        """Read this volume on another grid whose axes run in the same directions.

        Separable linear interpolation, antialiased where the new grid is coarser; beyond the border
        the border value is repeated.

        Args:
            grid: A grid with the same direction, such as `self.grid.respaced(2.0)`.

        Returns:
            Volume of float32 on `grid`.

        Raises:
            GeometryError: if the axes of the two grids are not parallel.
        """
        data = np.ascontiguousarray(self.data, dtype=np.float32)
        resampled = np.asarray(resample_axes(data, self.grid, grid, first_axis=data.ndim - 3))
        return Volume(resampled, grid, modality=self.modality)

    def at(self, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values at world points by trilinear interpolation, clamped at the border.

        Args:
            positions: (N, 3) float, world RAS mm.

        Returns:
            (..., N) float64.
        """
        return sample(self.data, self.grid.world_to_index(positions))

    def to_sitk(self) -> Any:
        """The same voxels in the same place as a SimpleITK.Image; as `meddift.io.to_sitk`."""
        from meddift.io.convert import to_sitk

        return to_sitk(self)

    def to_nibabel(self) -> Any:
        """The same voxels in the same place as a nibabel NIfTI image; as `meddift.io.to_nibabel`."""
        from meddift.io.convert import to_nibabel

        return to_nibabel(self)

    def digest(self) -> str:
        """sha256 of voxel values and geometry, as 64 hexadecimal digits; equal scans have equal digests."""
        state = hashlib.sha256()
        state.update(repr((self.data.dtype.str, self.data.shape)).encode())
        state.update(np.ascontiguousarray(self.data).view(np.uint8).data)
        # Plus zero: a zero with a sign is the same place and must be the same bytes.
        state.update((np.round(self.grid.affine, 6) + 0.0).tobytes())
        return state.hexdigest()
