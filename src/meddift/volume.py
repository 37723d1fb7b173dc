"""`Volume`: an array with the grid it lies on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from meddift.errors import GeometryError
from meddift.geometry import Grid, resample_axes, sample
from meddift.library_images import nifti_image, sitk_image, storable_array
from meddift.system.once import once

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan, a map or a field: an array and its Grid.

    Attributes:
        data: (..., X, Y, Z) array; the last three axes are those of `grid`, leading axes are channels.
        grid: The grid in world RAS mm.
        notes: Sentences about what reading changed or left out, for provenance: "the gantry was tilted by ...".
        modality: How it was acquired, as DICOM names it ("CT", "MR", ...); "" if unknown.

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
        """A volume from an array, with its geometry given as spacing, origin and direction.

        Args:
            data: (X, Y, Z) array.
            spacing: Distance between voxel centres along each axis, mm.
            origin: Centre of voxel (0, 0, 0), world RAS mm. (ITK uses LPS: negate x and y.)
            direction: (3, 3), columns are the unit vectors along which the axes run, world RAS; None = R, A, S.
            modality: As for the class.

        Raises:
            GeometryError: if `data` does not have three axes, or the parts do not define a grid.
        """
        array = np.asarray(data)
        return cls(array, Grid.from_parts(array.shape[-3:], spacing, origin, direction), modality=modality)

    def reoriented(self, orientation: str = "RAS") -> Volume:
        """The same voxels with axes permuted and flipped; no value and no world position changes.

        Args:
            orientation: Directions in which the axes run: three letters, one of each pair L/R, P/A, I/S.

        Raises:
            GeometryError: if `orientation` is not such three letters.
        """
        grid, axes, flips = self.grid.reoriented(orientation)
        lead = self.data.ndim - 3
        data = self.data.transpose(*range(lead), *(lead + a for a in axes))
        flipped = [lead + i for i in range(3) if flips[i]]
        turned = np.ascontiguousarray(np.flip(data, tuple(flipped)) if flipped else data)
        return Volume(turned, grid, modality=self.modality)

    def cropped(self, start: Sequence[int], shape: Sequence[int], *, fill: float = 0.0) -> Volume:
        """Cut out a box of voxels.

        Args:
            start: (3,) integers, index of the first voxel; may be negative.
            shape: (3,) integers, size of the box in voxels.
            fill: Value of voxels of the box that lie outside this volume.
        """
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

    def strided(self, steps: Sequence[int]) -> Volume:
        """Every n-th voxel along each axis, from the first on; the data are a view.

        Args:
            steps: (3,) integers n, at least 1.
        """
        x, y, z = (slice(None, None, int(step)) for step in steps)
        return Volume(self.data[..., x, y, z], self.grid.strided(steps), modality=self.modality)

    def resampled_along_axes(self, grid: Grid) -> Volume:
        """Resample to another grid whose axes run in the same directions.

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
        """The same voxels in the same place as a SimpleITK.Image, in its world of LPS mm.

        Booleans become uint8, float16 becomes float32, and 64-bit integers become int32 where they fit.

        Raises:
            ImageError: if there are several channels, or values of a type that image files do not hold.
            GeometryError: if the axes of the grid are not orthogonal.
        """
        return sitk_image(storable_array(self.data, self.grid, "a SimpleITK image"), self.grid)

    def to_nibabel(self) -> Any:
        """The same voxels in the same place as a nibabel NIfTI image, whose sform and qform agree and have code 1.

        Types and errors as in `to_sitk`.
        """
        return nifti_image(storable_array(self.data, self.grid, "a nibabel image"), self.grid)

    def digest(self) -> str:
        """sha256 of voxel values and geometry, as 64 hexadecimal digits; equal scans have equal digests."""
        state = hashlib.sha256()
        state.update(repr((self.data.dtype.str, self.data.shape)).encode())
        state.update(np.ascontiguousarray(self.data).view(np.uint8).data)
        # Adding 0 turns -0.0 into 0.0: the same place must give the same bytes.
        state.update((np.round(self.grid.affine, 6) + 0.0).tobytes())
        return state.hexdigest()


class DeviceVolume(Volume):
    """A Volume whose voxels were computed on a device and stay there; `data` brings them to main memory when asked.

    Args:
        tensor: (..., X, Y, Z) tensor of any type.
        grid: The grid in world RAS mm.
        modality: As for `Volume`.

    Attributes:
        tensor: As above.

    Raises:
        GeometryError: if the last three axes of the tensor are not `grid.shape`.
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor, grid: Grid, modality: str = "") -> None:
        if tuple(tensor.shape[-3:]) != grid.shape:
            raise GeometryError(f"data of shape {tuple(tensor.shape)} does not lie on a grid of shape {grid.shape}")
        known = {"tensor": tensor, "grid": grid, "notes": (), "modality": modality}
        self.__dict__.update(known)

    @classmethod
    def sent(cls, volume: Volume, device: Any) -> DeviceVolume:
        """Copy a volume to a device; on the CPU the memory is shared where possible.

        Args:
            volume: Any volume; types that PyTorch lacks become float32.
            device: A `torch.device` or its name.
        """
        import torch

        if isinstance(volume, DeviceVolume):
            return cls(volume.tensor.to(device), volume.grid, volume.modality)
        data = volume.data
        if data.dtype.name not in _TENSOR_TYPES or not data.dtype.isnative:
            data = data.astype(np.float32)
        return cls(torch.from_numpy(np.ascontiguousarray(data)).to(device), volume.grid, volume.modality)

    @once
    def data(self) -> NDArray[Any]:
        """(..., X, Y, Z) array in main memory; on the CPU it shares the memory of the tensor."""
        found: NDArray[Any] = self.tensor.cpu().numpy()
        return found

    def __repr__(self) -> str:
        """Type and geometry in words."""
        return f"DeviceVolume({self.tensor.dtype}, {self.tensor.device}, {self.grid!r})"

    def reoriented(self, orientation: str = "RAS") -> DeviceVolume:
        """As `Volume.reoriented`, on the device."""
        grid, axes, flips = self.grid.reoriented(orientation)
        lead = self.tensor.ndim - 3
        turned = self.tensor.permute(*range(lead), *(lead + a for a in axes))
        turned = turned.flip([lead + i for i in range(3) if flips[i]]) if any(flips) else turned
        return DeviceVolume(turned.contiguous(), grid, self.modality)

    def cropped(self, start: Sequence[int], shape: Sequence[int], *, fill: float = 0.0) -> DeviceVolume:
        """As `Volume.cropped`, on the device."""
        grid = self.grid.cropped(start, shape)
        result = self.tensor.new_full((*self.tensor.shape[:-3], *grid.shape), fill)
        source, target = [], []
        for first, length, n in zip(start, grid.shape, self.grid.shape, strict=True):
            low, high = max(int(first), 0), min(int(first) + length, n)
            if low >= high:
                return DeviceVolume(result, grid, self.modality)
            source.append(slice(low, high))
            target.append(slice(low - int(first), high - int(first)))
        result[..., target[0], target[1], target[2]] = self.tensor[..., source[0], source[1], source[2]]
        return DeviceVolume(result, grid, self.modality)

    def strided(self, steps: Sequence[int]) -> DeviceVolume:
        """As `Volume.strided`, on the device."""
        x, y, z = (slice(None, None, int(step)) for step in steps)
        return DeviceVolume(self.tensor[..., x, y, z], self.grid.strided(steps), self.modality)

    def resampled_along_axes(self, grid: Grid) -> DeviceVolume:
        """As `Volume.resampled_along_axes`, on the device."""
        values = self.tensor.float().contiguous()
        return DeviceVolume(resample_axes(values, self.grid, grid, first_axis=values.ndim - 3), grid, self.modality)


#: Types of arrays that PyTorch accepts without conversion and computes with on every device.
_TENSOR_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")
