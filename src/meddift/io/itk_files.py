"""Images of SimpleITK from and to arrays, and files written by it (`.nrrd`, `.mha`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid, flip_affine_ras_lps
from meddift.io.itk import captured_messages


def array_of(image: Any) -> NDArray[Any]:
    """Voxels of a scalar SimpleITK image as an (X, Y, Z) view or copy; axes of length 1 beyond z are dropped."""
    import SimpleITK as sitk  # noqa: N813 - the name under which everybody knows it

    data = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1 and "vector" in image.GetPixelIDTypeAsString():
        data = data[..., 0]
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    return np.asarray(data.transpose())


def image_of(data: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK.Image of (X, Y, Z) voxels on a grid.

    Args:
        data: (X, Y, Z), of a type that SimpleITK knows.
        grid: Its grid; its axes must be orthogonal.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose()))
    affine = flip_affine_ras_lps(grid.affine)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    direction = affine[:3, :3] / grid.spacing
    # ITK 5.4 inverts directions with entries below some 1e-290 wrongly, and says so on the error stream only.
    direction[np.abs(direction) < 1e-15] = 0.0
    image.SetDirection(direction.ravel().tolist())
    return image


def write_itk(data: NDArray[Any], grid: Grid, path: Path) -> None:
    """Write an NRRD or MetaImage file, compressed; not atomic by itself.

    Raises:
        RuntimeError: if SimpleITK cannot write.
    """
    import SimpleITK as sitk  # noqa: N813

    with captured_messages():
        sitk.WriteImage(image_of(data, grid), str(path), True)
