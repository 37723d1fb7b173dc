"""What the browser is sent of a scan: whole numbers of 16 bits with one geometry, small enough for a graphics card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.volume import Volume

#: A graphics card holds about 4 bytes a voxel, and browsers give a page some 2 GB in all: beyond this many voxels the
#: browser is sent a coarser copy.
MOST_VOXELS = 256**3
#: Values that fit into 16 bits are sent as they are if they differ by at least this much; else they are spread.
LEAST_RANGE = 512.0
#: Spread values lie between 0 and this.
_TOP = 30_000.0


@dataclass(frozen=True, eq=False)
class BrowserCopy:
    """A scan as the browser is sent it.

    Attributes:
        nifti: The whole NIfTI file; int16, slope 1, sform equal to qform.
        shape: Voxels along each axis.
        spacing: Of the voxels, mm.
        scale: True value = offset + scale * value in the file.
        offset: Likewise.
        reduced: Whether its voxels are larger than those of the scan.
    """

    nifti: bytes
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    scale: float
    offset: float
    reduced: bool


def browser_copy(volume: Volume, *, most_voxels: int = MOST_VOXELS) -> BrowserCopy:
    """Make the copy of a scan that the browser is sent.

    Args:
        volume: (X, Y, Z), any type.
        most_voxels: With more voxels it is averaged to larger ones.
    """
    shown = volume
    if volume.grid.size > most_voxels:
        shown = volume.resampled_along_axes(volume.grid.coarsened(_coarser(volume, most_voxels)))
    stored, scale, offset = _as_int16(shown.data)
    return BrowserCopy(
        nifti=nifti_bytes(Volume(stored, shown.grid)),
        shape=shown.grid.shape,
        spacing=tuple(float(v) for v in shown.grid.spacing),  # type: ignore[arg-type]
        scale=scale,
        offset=offset,
        reduced=shown is not volume,
    )


def _coarser(volume: Volume, most_voxels: int) -> float:
    """The spacing, mm, at which a scan has at most so many voxels: axes that are coarser stay as they are."""
    low, high = 0.0, float(volume.grid.extent.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if volume.grid.coarsened(middle).size > most_voxels else (low, middle)
    return high


def _as_int16(values: NDArray[np.generic]) -> tuple[NDArray[np.int16], float, float]:
    """Values as int16, with scale and offset of the way back."""
    finite = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= -32_768 and high <= 32_767 and high - low >= LEAST_RANGE:
        return np.rint(finite).astype(np.int16), 1.0, 0.0
    scale = (high - low) / _TOP or 1.0
    return np.rint((finite - low) / scale).astype(np.int16), scale, low


def nifti_bytes(volume: Volume) -> bytes:
    """A NIfTI file in memory."""
    content: bytes = volume.to_nibabel().to_bytes()
    return content
