"""Files that are given where points are expected and are something else: what they are, for the message."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

#: Enough for the marks of all formats below.
_HEAD_BYTES = 1024

#: First bytes -> what begins with them.
_BEGINNINGS = (
    (b"NRRD", "an NRRD image"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as an ITK transform or a MINC image"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook; save its table as .csv"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the older kind; save its table as .csv"),
    (b"\x93NUMPY", "a numpy array"),
    (b"#Insight Transform File", "an ITK transform"),
    (b"(Transform ", "an elastix transform"),
    (b"# vtk DataFile", "a VTK file; save its points as .mrk.json or .csv"),
    (b"<?xml", "an XML file; save its points as .mrk.json or .csv"),
    (b"ObjectType", "a MetaImage header"),
    (b"NDims", "a MetaImage header"),
    (b"\x1f\x8b", "a gzip archive"),
)

_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".dcm", ".ima")


def is_image(path: Path) -> bool:
    """Whether a file or folder is an image by its name, so that its labels can be read."""
    if path.is_dir():
        return any(child.is_file() for child in path.iterdir())
    return path.name.lower().endswith(_IMAGE_SUFFIXES)


def what_it_is(path: Path) -> str | None:
    """A file that holds no points, in words; None where it may be points.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        unpacked = _unpacked(path)
        if unpacked[344:348] in (b"n+1\x00", b"ni1\x00") or unpacked[4:12] in (b"n+2\x00\r\n\x1a\n",):
            return "a NIfTI image"
        return "a gzip archive; unpack it first"
    if head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] in (b"n+2\x00", b"ni2\x00"):
        return "a NIfTI image"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    return next((words for beginning, words in _BEGINNINGS if head.startswith(beginning)), None)


def _unpacked(path: Path) -> bytes:
    """The first bytes of what was packed."""
    try:
        with gzip.open(path) as stream:
            return stream.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""
