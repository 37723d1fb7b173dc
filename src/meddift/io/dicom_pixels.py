"""Values of DICOM slices: stored numbers, rescaled, on the lattice they are read onto."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError
from meddift.geometry import shifted
from meddift.io.compressed import AGAIN, opened
from meddift.io.dicom_file import DicomSlice, quiet_pydicom
from meddift.io.dicom_lattice import SliceLayout
from meddift.io.itk import captured_messages, one_sentence


def read_values(layout: SliceLayout, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of all slices after rescaling, which is what they mean (HU in CT).

    MONOCHROME1 says how a viewer shows an image, not what its values mean; it changes nothing here.

    Args:
        layout: The slices and their lattice.
        dtype: Type of the result: integer if all slices rescale to whole numbers.

    Returns:
        (X, Y, Z) array on `layout.grid`. Without tilt these are the values of the slices; with it, they are
        interpolated within the slices, and the smallest value lies outside of them.

    Raises:
        ImageError: if a slice is damaged.
    """
    columns, rows = layout.slices[0].size
    data = np.empty((columns, rows, len(layout.slices)), dtype=dtype)
    unpacked: dict[Path, NDArray[Any]] = {}
    for k, item in enumerate(layout.slices):
        stored = _native(item) if item.pixels.offset is not None else _unpacked(item, unpacked)
        data[:, :, k] = _rescaled(stored, item, dtype).T
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
    # Unused bits may hold anything, such as overlays: shift them out, and the sign in.
    values = values.astype(values.dtype.newbyteorder("="))
    return (values << (bits - 1 - pixels.high)) >> (bits - pixels.stored)


def _unpacked(item: DicomSlice, unpacked: dict[Path, NDArray[Any]]) -> NDArray[Any]:
    """(rows, columns) stored values of a compressed frame; a file of several frames is unpacked once."""
    if item.path not in unpacked:
        unpacked.clear()
        unpacked[item.path] = _decompressed(item)
    frames = unpacked[item.path]
    columns, rows = item.size
    if frames.shape[1:] != (rows, columns) or item.frame >= len(frames):
        raise ImageError(f"the slice {item.path} is damaged: its compressed pixels have another size. {AGAIN}")
    return np.asarray(frames[item.frame])


def _decompressed(item: DicomSlice) -> NDArray[Any]:
    """(frames, rows, columns) stored values, decompressed by GDCM.

    GDCM gets a file that holds the pixels and their format and nothing else: no rescaling that it would apply, no
    MONOCHROME1 that it would invert, no name or header that it could stumble over.
    """
    import pydicom
    import SimpleITK as sitk  # noqa: N813
    from pydicom.dataset import Dataset, FileMetaDataset

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "pixels.dcm")
        try:
            with quiet_pydicom():
                source = pydicom.dcmread(item.path, force=True)
                bare = Dataset()
                bare.file_meta = FileMetaDataset()
                bare.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
                bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
                bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID = "1.2.3"
                for name in (
                    "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
                    "PixelRepresentation", "NumberOfFrames", "PixelData",
                ):  # fmt: skip
                    if name in source:
                        bare[name] = source[name]
                bare.PhotometricInterpretation = "MONOCHROME2"
                bare.save_as(plain, enforce_file_format=True)
        except Exception as error:  # a damaged file makes pydicom raise almost anything
            told = f"{type(error).__name__}: {str(error)[:100]}"
            raise ImageError(f"the slice {item.path} is damaged ({told}). {AGAIN}") from error
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(plain))
        try:
            with captured_messages():
                values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise ImageError(f"the slice {item.path} cannot be decompressed: {one_sentence(error)}") from error
    return np.asarray(values if values.ndim == 3 else values[None])


def _rescaled(stored: NDArray[Any], item: DicomSlice, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Stored values times slope plus intercept."""
    slope, intercept = item.pixels.slope, item.pixels.intercept
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if dtype.kind in "iu":
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _straightened(data: NDArray[Any], layout: SliceLayout) -> NDArray[Any]:
    """Slices of a tilted gantry on the orthogonal lattice: each is moved within its plane to where it lies."""
    columns, rows, count = layout.grid.shape
    result = np.empty((columns, rows, count), dtype=data.dtype)
    fill = float(np.nanmin(data))
    for k in range(count):
        start = np.asarray(layout.first) - k * layout.shift
        moved = shifted(data[:, :, k], start, shape=(columns, rows), fill=fill)
        result[:, :, k] = np.rint(moved) if data.dtype.kind in "iu" else moved
    return result
