"""Compressed pixels of DICOM files, decompressed by GDCM in a process of its own.

Damaged JPEG streams can crash the process that decodes them. GDCM is given files with the pixels and their format
only: it would otherwise apply rescaling, invert MONOCHROME1, and fail at unusual headers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError
from meddift.io.compressed import AGAIN
from meddift.io.dicom_file import quiet_pydicom
from meddift.io.itk import captured_messages, one_sentence

#: Time limit of the decoder, seconds: for all files together, and in addition for each file.
_PATIENCE = (60.0, 10.0)

_FORMAT = (
    "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "NumberOfFrames", "PixelData",
)  # fmt: skip


class Unpacked:
    """Stored values of compressed files.

    Args:
        folder: Where they lie.
        paths: The files, in the order of their numbers there.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self._folder = folder
        self._number = {path: number for number, path in enumerate(paths)}
        self._last: tuple[Path, NDArray[Any]] | None = None

    def frames(self, path: Path) -> NDArray[Any]:
        """(frames, rows, columns) stored values.

        Raises:
            ImageError: if they could not be decompressed.
        """
        if self._last is None or self._last[0] != path:
            number = self._number[path]
            values = self._folder / f"{number}.npy"
            if not values.is_file():
                reason = (self._folder / f"{number}.txt").read_text(encoding="utf-8")
                raise ImageError(f"the slice {path} cannot be decompressed: {reason} {AGAIN}")
            self._last = (path, np.load(values))
        return self._last[1]


@contextmanager
def unpacked(paths: Sequence[Path]) -> Iterator[Unpacked]:
    """Decompress files; what is yielded is there inside the block only.

    Raises:
        ImageError: if a file is damaged.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with quiet_pydicom():
            for number, path in enumerate(paths):
                _strip(path, folder / f"{number}.dcm")
        if paths:
            _run(folder, len(paths))
            last = max((int(path.stem) for path in folder.glob("*.begun")), default=0)
            if not any((folder / f"{last}{suffix}").exists() for suffix in (".npy", ".txt")):
                raise ImageError(f"the slice {paths[last]} cannot be decompressed: the decoder failed at it. {AGAIN}")
        yield Unpacked(folder, paths)


def _strip(path: Path, target: Path) -> None:
    """Copy the pixels of a file and their format to a file of their own."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset

    try:
        source = pydicom.dcmread(path, force=True)
        bare = Dataset()
        bare.file_meta = FileMetaDataset()
        bare.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
        bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
        bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID = "1.2.3"
        for name in _FORMAT:
            if name in source:
                bare[name] = source[name]
        bare.PhotometricInterpretation = "MONOCHROME2"
        bare.save_as(target, enforce_file_format=True)
    except Exception as error:  # a damaged file makes pydicom raise almost anything
        told = f"{type(error).__name__}: {str(error)[:100]}"
        raise ImageError(f"the slice {path} is damaged ({told}). {AGAIN}") from error


def _run(folder: Path, count: int) -> None:
    """The decoding process; however it ends, what it has written is there."""
    program = [sys.executable, "-m", __name__, str(folder), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    patience = _PATIENCE[0] + _PATIENCE[1] * count
    try:
        subprocess.run(program, env=environment, capture_output=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired:
        return


def _decode(folder: Path, count: int) -> None:
    """What the decoding process does."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    for number in range(count):
        (folder / f"{number}.begun").touch()
        reader.SetFileName(str(folder / f"{number}.dcm"))
        try:
            with captured_messages():
                values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            (folder / f"{number}.txt").write_text(one_sentence(error), encoding="utf-8")
            continue
        np.save(folder / f"{number}.part.npy", values if values.ndim == 3 else values[None])
        (folder / f"{number}.part.npy").rename(folder / f"{number}.npy")


if __name__ == "__main__":
    _decode(Path(sys.argv[1]), int(sys.argv[2]))
