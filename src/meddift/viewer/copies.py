"""Copies of scans for the browser: int16 NIfTI with one geometry, small enough for a graphics card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.volume import Volume

#: A graphics card holds about 4 bytes a voxel, and browsers give a page some 2 GB in all: scans with more voxels are
#: sent with larger voxels.
MOST_VOXELS = 256**3
#: Values that fit into int16 are sent unscaled if their range is at least this; otherwise they are rescaled.
LEAST_RANGE = 512.0
#: Largest rescaled value; the smallest is 0.
_TOP = 30_000.0


@dataclass(frozen=True, eq=False)
class BrowserCopy:
    """The copy of a scan that the browser receives.

    Attributes:
        nifti: The whole NIfTI file; int16, slope 1, sform equal to qform.
        shape: Number of voxels along each axis.
        spacing: Voxel size along each axis, mm.
        scale: Intensity of the scan = offset + scale * value in the file.
        offset: See `scale`.
        reduced: Whether the voxels are larger than those of the scan.
    """

    nifti: bytes
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    scale: float
    offset: float
    reduced: bool


def browser_copy(volume: Volume, *, most_voxels: int = MOST_VOXELS) -> BrowserCopy:
    """Make the copy of a scan for the browser.

    Args:
        volume: (X, Y, Z), any type.
        most_voxels: Largest number of voxels; larger scans are averaged to larger voxels.
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
    """Smallest spacing, mm, at which a scan has at most `most_voxels`; axes with larger spacing keep it."""
    low, high = 0.0, float(volume.grid.extent.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if volume.grid.coarsened(middle).size > most_voxels else (low, middle)
    return high


def _as_int16(values: NDArray[np.generic]) -> tuple[NDArray[np.int16], float, float]:
    """Values as int16, with scale and offset to recover the intensities."""
    finite = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= -32_768 and high <= 32_767 and high - low >= LEAST_RANGE:
        return np.rint(finite).astype(np.int16), 1.0, 0.0
    scale = (high - low) / _TOP or 1.0
    return np.rint((finite - low) / scale).astype(np.int16), scale, low


def nifti_bytes(volume: Volume) -> bytes:
    """The content of a NIfTI file of a volume."""
    content: bytes = volume.to_nibabel().to_bytes()
    return content
