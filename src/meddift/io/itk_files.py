"""Voxels of SimpleITK images, and files written by it (`.nrrd`, `.mha`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.io.itk import captured_messages
from meddift.library_images import sitk_image


def array_of(image: Any) -> NDArray[Any]:
    """Voxels of a scalar SimpleITK image as an (X, Y, Z) view or copy; axes of length 1 beyond z are dropped."""
    import SimpleITK as sitk  # noqa: N813 - the name under which everybody knows it

    data = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1 and "vector" in image.GetPixelIDTypeAsString():
        data = data[..., 0]
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    return np.asarray(data.transpose())


def write_itk(data: NDArray[Any], grid: Grid, path: Path) -> None:
    """Write an NRRD or MetaImage file, compressed; not atomic by itself.

    Raises:
        RuntimeError: if SimpleITK cannot write.
    """
    import SimpleITK as sitk  # noqa: N813

    with captured_messages():
        sitk.WriteImage(sitk_image(data, grid), str(path), True)
