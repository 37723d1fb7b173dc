"""Values of DICOM slices: stored numbers, rescaled, on the grid they are read onto."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError
from meddift.geometry import shifted
from meddift.io.compressed import AGAIN, opened
from meddift.io.dicom_grid import SliceLayout
from meddift.io.dicom_slice import DicomSlice
from meddift.io.dicom_unpack import unpacked

_TOGETHER = 32


def read_values(layout: SliceLayout, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read the values of all slices and rescale them to their unit (HU in CT).

    MONOCHROME1 says how a viewer shows an image, not what its values mean; it changes nothing here.

    Args:
        layout: The slices and their grid.
        dtype: Type of the result: integer if all slices rescale to whole numbers.

    Returns:
        (X, Y, Z) array on `layout.grid`. Without tilt these are the values of the slices; with it, they are
        interpolated within the slices, and the smallest value lies outside of them.

    Raises:
        ImageError: if a slice is damaged.
    """
    columns, rows = layout.slices[0].size
    data = np.empty((columns, rows, len(layout.slices)), dtype=dtype)
    packed = list(dict.fromkeys(item.path for item in layout.slices if item.pixels.offset is None))
    with unpacked(packed) as frames:
        # Slices lie far apart in memory: several at once are written several times faster than one by one.
        for first in range(0, len(layout.slices), _TOGETHER):
            some = layout.slices[first : first + _TOGETHER]
            block = np.empty((len(some), rows, columns), dtype=dtype)
            for k, item in enumerate(some):
                stored = (
                    _native(item) if item.pixels.offset is not None else _of_frames(item, frames.frames(item.path))
                )
                block[k] = _rescaled(stored, item, dtype)
            data[:, :, first : first + _TOGETHER] = block.transpose(2, 1, 0)
    if layout.tilt_degrees:
        data = _straightened(data, layout)
    if data.dtype == np.int32:  # room for any intercept; HU fit into half of it
        limits = np.iinfo(np.int16)
        if limits.min <= data.min() and data.max() <= limits.max:
            return data.astype(np.int16)
    return data


def _native(item: DicomSlice) -> NDArray[Any]:
    """(rows, columns) stored values of a frame that is not compressed."""
    pixels = item.pixels
    columns, rows = item.size
    count = rows * columns
    offset = (pixels.offset or 0) + item.frame * count * pixels.dtype.itemsize
    with opened(item.path, offset=offset, decompress=False) as stream:
        raw = stream.read(count * pixels.dtype.itemsize)
    if len(raw) < count * pixels.dtype.itemsize:
        raise ImageError(f"the slice {item.path} is cut off. {AGAIN}")
    values = np.frombuffer(raw, dtype=pixels.dtype).reshape(rows, columns)
    bits = 8 * pixels.dtype.itemsize
    if pixels.dtype.kind == "f" or pixels.stored == bits:
        return values
    # Unused bits may hold anything, such as overlays: shifting up and down removes them and extends the sign.
    values = values.astype(values.dtype.newbyteorder("="))
    return (values << (bits - 1 - pixels.high)) >> (bits - pixels.stored)


def _of_frames(item: DicomSlice, frames: NDArray[Any]) -> NDArray[Any]:
    """(rows, columns) stored values of a frame that was compressed."""
    columns, rows = item.size
    if frames.shape[1:] != (rows, columns) or item.frame >= len(frames):
        raise ImageError(f"the slice {item.path} is damaged: its compressed pixels have another size. {AGAIN}")
    return np.asarray(frames[item.frame])


def _rescaled(stored: NDArray[Any], item: DicomSlice, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Stored values times slope plus intercept."""
    slope, intercept = item.pixels.slope, item.pixels.intercept
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if dtype.kind in "iu":
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _straightened(data: NDArray[Any], layout: SliceLayout) -> NDArray[Any]:
    """Slices of a tilted gantry on the orthogonal grid: each is moved within its plane to where it lies."""
    columns, rows, count = layout.grid.shape
    result = np.empty((columns, rows, count), dtype=data.dtype)
    fill = float(np.nanmin(data))
    for k in range(count):
        start = np.asarray(layout.first) - k * layout.shift
        moved = shifted(data[:, :, k], start, shape=(columns, rows), fill=fill)
        result[:, :, k] = np.rint(moved) if data.dtype.kind in "iu" else moved
    return result
