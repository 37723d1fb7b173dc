"""Conversion of voxels with their grid to images of SimpleITK and nibabel, in memory and for writing files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from meddift.errors import GeometryError, ImageError
from meddift.geometry import Grid, flip_affine_ras_lps
from meddift.geometry.voxel_space import SHEAR_TOLERANCE


def storable_array(data: NDArray[Any], grid: Grid, name: str, *, like_dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Voxels in a type that every format holds.

    Args:
        data: (X, Y, Z) or (1, X, Y, Z). Booleans become uint8, float16 becomes float32, and 64-bit integers become
            int32 where they fit.
        grid: Its grid.
        name: What is written, for messages.
        like_dtype: Convert to this type first; for integers, values are rounded and clipped to its range.

    Returns:
        (X, Y, Z), of a type that NIfTI, NRRD and MetaImage hold.

    Raises:
        ImageError: if there are several channels, or values of a type that no format holds.
        GeometryError: if the axes of the grid are not orthogonal.
    """
    if data.ndim == 4 and data.shape[0] == 1:
        data = data[0]
    if data.ndim != 3:
        raise ImageError(
            f"cannot write {name}: the volume has shape {data.shape}; write each of its channels to a file of its own."
        )
    if grid.shear > SHEAR_TOLERANCE:
        raise GeometryError(
            f"cannot write {name}: the axes of its grid are not orthogonal, and most programs refuse such images; "
            "resample the volume first."
        )
    if like_dtype is not None and np.dtype(like_dtype) != data.dtype:
        target = np.dtype(like_dtype)
        if target.kind in "iu" and data.dtype.kind == "f":
            limits = np.iinfo(target)
            data = np.clip(np.rint(np.nan_to_num(data.astype(np.float64))), limits.min, limits.max)
        elif target.kind in "iu" and data.dtype.kind in "iu":
            limits = np.iinfo(target)
            own = np.iinfo(data.dtype)
            data = np.clip(data, max(int(limits.min), int(own.min)), min(int(limits.max), int(own.max)))
        data = data.astype(target)
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype == np.float16:
        return data.astype(np.float32)
    if data.dtype in (np.int64, np.uint64):
        limits = np.iinfo(np.int32)
        return data.astype(np.int32) if limits.min <= data.min() and data.max() <= limits.max else data
    if data.dtype.kind not in "iuf" or data.dtype.itemsize > 8:
        raise ImageError(f"cannot write {name}: image files do not hold values of type {data.dtype}.")
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def sitk_image(data: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK.Image of (X, Y, Z) voxels on a grid.

    Args:
        data: (X, Y, Z), as `storable_array` makes it.
        grid: Its grid; its axes must be orthogonal.

    Returns:
        A SimpleITK.Image, whose world is LPS mm; its voxels are a copy.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose()))
    affine = flip_affine_ras_lps(grid.affine)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    direction = affine[:3, :3] / grid.spacing
    # ITK 5.4 inverts directions with entries below about 1e-290 wrongly, and reports this on the error stream only.
    direction[np.abs(direction) < 1e-15] = 0.0
    image.SetDirection(direction.ravel().tolist())
    return image


def nifti_image(data: NDArray[Any], grid: Grid) -> Any:
    """A nibabel NIfTI image whose sform and qform agree and both have code 1 (scanner).

    Args:
        data: (X, Y, Z) or (X, Y, Z, T, C), as `storable_array` makes it.
        grid: Its grid.

    Returns:
        A nibabel.Nifti1Image, or Nifti2Image where an axis is too long for that; its world is RAS mm.
    """
    import nibabel

    # NIfTI-1 counts voxels along an axis in 16 bits.
    kind = nibabel.Nifti2Image if max(data.shape) > np.iinfo(np.int16).max else nibabel.Nifti1Image
    image = kind(data, grid.affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    return image
