"""FreeSurfer's MGH (`.mgh`, `.mgz`), read by nibabel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError
from meddift.io.compressed import opened, read_voxels, require_room
from meddift.io.header import ImageHeader, content_problems, geometry_problems, stored_shape

#: Bytes before the first voxel (FreeSurfer wiki, "MghFormat").
_HEADER_BYTES = 284


def read_mgh_header(path: Path) -> ImageHeader:
    """Read and judge the header of an MGH file.

    A file whose goodRASFlag is 0 has no geometry. FreeSurfer and nibabel fill in different axes for it, so no
    option makes it readable.

    Args:
        path: A file that exists.

    Returns:
        The header, with every problem found.

    Raises:
        ImageError: if the file is no MGH file at all.
    """
    header, has_geometry = _parse(path)
    shape = stored_shape(header["dims"])
    problems = content_problems(shape, "scalar", path)
    affine = np.asarray(header.get_affine(), dtype=np.float64) if has_geometry else None
    if affine is None:
        problems.append(
            GeometryError(
                f"{path} does not state where it lies in space (its goodRASFlag is 0), and programs differ in "
                "what they assume. Use the file from before this was lost, or write it again with its geometry."
            )
        )
    elif len(shape) >= 3:
        problems += geometry_problems(shape[:3], affine, path)
    dtype = np.dtype(header.get_data_dtype()).newbyteorder("=")
    try:
        require_room(path, math.prod(shape) * dtype.itemsize)
    except ImageError as error:
        problems.append(error)
    return ImageHeader(path, "MGH", shape, dtype, affine, "scalar", tuple(problems), {})


def read_mgh_voxels(header: ImageHeader) -> NDArray[Any]:
    """Read the voxels that belong to a header without problems.

    Returns:
        (X, Y, Z) array of the stored type, big-endian as in the file.

    Raises:
        ImageError: if the file is cut off or damaged.
    """
    return read_voxels(header.path, offset=_HEADER_BYTES, shape=header.shape, dtype=header.dtype.newbyteorder(">"))


def _parse(path: Path) -> tuple[Any, bool]:
    """The nibabel header, and whether the file states a geometry."""
    from nibabel.freesurfer.mghformat import MGHHeader

    with opened(path) as stream:
        raw = stream.read(_HEADER_BYTES)
    if not raw:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again.")
    if len(raw) < _HEADER_BYTES or int.from_bytes(raw[:4], "big") != 1:
        raise ImageError(f"{path} is not an MGH image, whatever its name says: it begins with {raw[:8]!r}.")
    try:
        # Asked of the bytes: nibabel sets the flag when it fills in FreeSurfer's default geometry.
        has_geometry = int.from_bytes(raw[28:30], "big", signed=True) > 0
        header = MGHHeader(raw, check=False)
        header.get_data_dtype()
    except Exception as error:  # a damaged header makes nibabel raise almost anything
        raise ImageError(f"the MGH header of {path} is damaged: {error}.") from error
    return header, has_geometry
