"""The kind of a file from its first bytes, for messages about files with a wrong name or of a wrong kind."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

#: Enough for the marks of all formats below.
_HEAD_BYTES = 1024

_PAIR = "the header of a NIfTI pair (.hdr and .img)"

#: Beginnings of files and what they tell.
_BEGINNINGS = (
    (b"NRRD", "an NRRD image"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as an ITK transform or a MINC image"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or save its table as .csv"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the older kind; save its table as .csv"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a numpy array"),
    (b"#Insight Transform File", "an ITK transform"),
    (b"(Transform ", "an elastix transform"),
    (b"# vtk DataFile", "a VTK file; save its points as .mrk.json or .csv"),
    (b"<?xml", "an XML file; save its points as .mrk.json or .csv"),
    (b"\x00\x05\x16\x07", "a file in which macOS keeps attributes of another one"),
    (b"CDF\x01", "a NetCDF file, such as a MINC image"),
)


def what_it_is(path: Path) -> str | None:
    """A phrase for an image, picture, transform or archive: "a NIfTI image"; None for all else, text included.

    Args:
        path: A file. What is packed in it counts, where that is an image.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(_HEAD_BYTES)
    if not start.startswith(b"\x1f\x8b"):
        return _by_content(start)
    try:
        with gzip.open(path, "rb") as unpacked:
            inside = _by_content(unpacked.read(_HEAD_BYTES))
    except (OSError, EOFError, zlib.error):
        inside = None
    return inside or "a gzip archive; unpack it first"


def usual_suffix(kind: str | None) -> str | None:
    """The suffix that files of a kind have, for those that meddift reads as scans."""
    return {"a NIfTI image": ".nii", "an NRRD image": ".nrrd", "a MetaImage": ".mha", "an MGH image": ".mgh"}.get(
        kind or ""
    )


def _by_content(start: bytes) -> str | None:
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    if start[128:132] == b"DICM":
        return "a DICOM file"
    if len(start) >= 348 and start[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        magic = start[344:347]
        return {b"n+1": "a NIfTI image", b"ni1": _PAIR}.get(magic, "an image in the old Analyze format")
    if start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") and start[4:7] in (b"n+2", b"ni2"):
        return "a NIfTI image" if start[4:7] == b"n+2" else _PAIR
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") < 1 << 27:
        return "a safetensors file, such as stored features or weights"
    words = start[:200].replace(b" ", b"")
    if b"ObjectType=Image" in words or (words.startswith((b"NDims=", b"ObjectType="))):
        return "a MetaImage"
    # Version 1 and four lengths, the type, and a flag of 0 or 1 (FreeSurfer wiki, "MghFormat").
    if (
        len(start) >= 284
        and start[:4] == b"\0\0\0\1"
        and start[20:24] in (b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\3", b"\0\0\0\4")
    ):
        return "an MGH image"
    return None
