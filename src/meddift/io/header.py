"""The header of an image file and its problems, before any voxel is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError, MeddiftError
from meddift.geometry import Grid
from meddift.geometry.voxel_space import SHEAR_TOLERANCE

#: Advice for headers with impossible values.
REPAIR = "Write the file again with the tool that made it, or repair the header."

#: Advice for headers that do not state the position and direction of the scan.
ASSUME = (
    "Use the file from before this was lost, or say --assume-geometry to take what ITK fills in: axes to the "
    "left, to posterior and to superior, the first voxel at the origin, spacing 1 mm."
)

#: What one voxel holds, where it is not one real number.
_KINDS = {
    "color": "a color image (RGB); convert it to one grey value a voxel",
    "vector": "a vector image, such as a displacement field; give the scan itself",
    "complex": "a complex image; write its magnitude to a file of its own and give that",
}


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image says.

    Attributes:
        path: The file, or the folder of a DICOM series.
        file_format: "NIfTI", "MGH", "NRRD", "MetaImage" or "DICOM".
        shape: Lengths of all axes as stored, without trailing axes of length 1 beyond the third.
        dtype: Type of the values in the file, in native byte order.
        affine: (4, 4) float64, voxel index to world RAS mm, as far as it can be told; else None.
        kind: "scalar", "color", "vector" or "complex".
        problems: Errors that reading would raise, most basic first.
        details: Further facts for people: codes, descriptions, units.
        notes: Sentences about what reading changes or leaves out, said once to whoever reads the scan.
        channels: Values a voxel holds, where `kind` is not "scalar".
        files: All files that it is read from, where these are others than `path` alone.
        source: What the reader of the voxels needs to know; its type is the reader's own.
    """

    path: Path
    file_format: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64] | None
    kind: str = "scalar"
    problems: tuple[MeddiftError, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    channels: int = 1
    files: tuple[Path, ...] = ()
    source: Any = None

    @property
    def grid(self) -> Grid:
        """The grid of the image, if the header has no problems."""
        if self.affine is None or len(self.shape) != 3:
            raise GeometryError(f"{self.path} has no usable geometry")
        return Grid((self.shape[0], self.shape[1], self.shape[2]), self.affine)


def stored_shape(lengths: Any) -> tuple[int, ...]:
    """Axis lengths without trailing axes of length 1 beyond the third: a series of one frame is a 3D scan."""
    shape = [int(n) for n in lengths]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def content_problems(shape: tuple[int, ...], kind: str, path: Path | str) -> list[MeddiftError]:
    """Say why an image is not one 3D scalar scan.

    Args:
        shape: Lengths of all axes, from `stored_shape`.
        kind: "scalar", "color", "vector" or "complex".
        path: For the message.

    Returns:
        `ImageError`s, none if it is one.
    """
    if kind in _KINDS:
        return [ImageError(f"{path} is {_KINDS[kind]}.")]
    size = " x ".join(map(str, shape))
    if any(n < 1 for n in shape) or not shape:
        return [ImageError(f"{path} holds no voxels (size {size or 'unknown'}); write or download it again.")]
    if len(shape) > 3:
        return [
            ImageError(
                f"{path} is a {len(shape)}D image of size {size}, not one 3D scan; "
                "extract one frame to a file of its own and give that."
            )
        ]
    if len(shape) < 3 or min(shape) < 2:
        return [ImageError(f"{path} is a 2D image of size {size}; meddift needs a 3D scan of at least two slices.")]
    return []


def geometry_problems(shape: tuple[int, ...], affine: NDArray[np.float64], path: Path | str) -> list[MeddiftError]:
    """Say why an affine cannot be the geometry of a scan.

    Args:
        shape: Lengths of the three axes.
        affine: (4, 4) float, voxel index to world mm; may hold anything.
        path: For the message.

    Returns:
        `GeometryError`s, none if it can.
    """
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all():
        return [GeometryError(f"the geometry in the header of {path} is not finite: affine\n{affine}\n{REPAIR}")]
    if (spacing <= 0).any():
        return [GeometryError(f"the spacing in the header of {path} is not positive: {spacing.tolist()} mm. {REPAIR}")]
    try:
        grid = Grid((shape[0], shape[1], shape[2]), affine)
    except GeometryError as error:
        return [GeometryError(f"the geometry in the header of {path} is impossible: {error} {REPAIR}")]
    if grid.shear > SHEAR_TOLERANCE:
        shift = np.linalg.norm(grid.without_shear().corners - grid.corners, axis=1).max()
        return [
            GeometryError(
                f"the axes of {path} are not orthogonal (largest cosine between two of them {grid.shear:.2g}); "
                "ITK, 3D Slicer, ANTs and elastix cannot use such an image. Resample it to a grid with orthogonal "
                f"axes first. Merely replacing its axes by the closest orthogonal ones would move corners by up to "
                f"{shift:.3g} mm."
            )
        ]
    return []
