"""MetaImage (`.mha`, `.mhd`): the header read strictly, the values without any library.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Read here and not by ITK, because MetaIO fills in what a header
leaves out, ignores units and intensity scaling, returns whatever stood in memory for damaged data, and ends the
process on damaged headers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError, MeddiftError
from meddift.geometry import flip_affine_ras_lps
from meddift.io.header import ASSUME, REPAIR, ImageHeader, content_problems, geometry_problems, stored_shape
from meddift.io.text_header import (
    MILLIMETRES,
    MOST_FILES,
    StoredArray,
    axis_lengths,
    header_lines,
    number,
    numbered_files,
    shortened,
    whole_number,
)

#: MetaIO's sizes: MET_LONG has four bytes on every machine.
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip

#: Every field of the format; most say nothing that matters here.
_KNOWN = {
    "ObjectType", "ObjectSubType", "Comment", "NDims", "Name", "ID", "ParentID", "Color",
    "AnatomicalOrientation", "TransformMatrix", "Rotation", "Orientation", "Offset", "Origin", "Position",
    "CenterOfRotation", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData",
    "CompressedDataSize", "CompressionLevel", "DistanceUnits", "AcquisitionDate", "Modality", "DimSize",
    "HeaderSize", "SequenceID", "ElementSpacing", "ElementSize", "ElementNBits", "ElementMin", "ElementMax",
    "ElementNumberOfChannels", "ElementType", "ElementToIntensityFunctionSlope",
    "ElementToIntensityFunctionOffset", "ElementDataFile",
}  # fmt: skip

#: Lines of fields that are not those of the format; each is compared with all names, which takes time.
_MOST_OWN_FIELDS = 1000

#: The fields that state geometry: their names, the first one usual, and their meaning.
_GEOMETRY = (
    (("ElementSpacing", "ElementSize"), "spacing"),
    (("TransformMatrix", "Rotation", "Orientation"), "directions"),
    (("Offset", "Origin", "Position"), "position"),
)


def read_metaimage_header(path: Path, *, assume_geometry: bool) -> ImageHeader:
    """Read and judge the header of a MetaImage file.

    Args:
        path: A file that exists.
        assume_geometry: Accept a file that states no directions or no position, as ITK reads it.

    Returns:
        The header, with every problem found. `source` is a `StoredArray`.

    Raises:
        ImageError: if the file is no MetaImage file, or its header is damaged.
    """
    fields, names, start = _fields(path)
    count = whole_number(fields.get("NDims", ""))
    if count is None or not 1 <= count <= 10:
        raise ImageError(f"the header of {path} gives no NDims from 1 to 10: {shortened(fields.get('NDims', ''))!r}.")
    lengths = axis_lengths(fields.get("DimSize", "").split(), count, path)
    channels = whole_number(fields.get("ElementNumberOfChannels", "1"))
    if channels is None or channels < 1:
        told = shortened(fields["ElementNumberOfChannels"])
        raise ImageError(f"the header of {path} gives {told!r} as number of channels.")
    source = _source(fields, names, lengths, channels, path, start)
    shape = stored_shape(lengths)
    kind = "vector" if channels > 1 else "scalar"
    problems = content_problems(shape, kind, path)
    affine = None
    if count >= 3:
        affine, found = _geometry(fields, count, path, assume_geometry)
        problems += found or geometry_problems(shape[:3], affine, path)
    problems += source.problems()
    details = {"orientation_letters": fields["AnatomicalOrientation"]} if "AnatomicalOrientation" in fields else {}
    dtype = source.dtype.newbyteorder("=")
    return ImageHeader(
        path,
        "MetaImage",
        shape,
        dtype,
        affine,
        kind,
        tuple(problems),
        details,
        channels=channels,
        files=source.all_files,
        source=source,
    )


def read_metaimage_voxels(header: ImageHeader) -> NDArray[np.generic]:
    """Read the values that belong to a header without problems.

    Returns:
        (X, Y, Z) array of the stored type, or (C, X, Y, Z) where a voxel holds several values.

    Raises:
        ImageError: if the file is cut off or damaged.
    """
    shape = header.shape if header.channels == 1 else (header.channels, *header.shape)
    return np.asarray(header.source.read().reshape(shape, order="F"))


def _fields(path: Path) -> tuple[dict[str, str], list[str], int]:
    """Fields as they are named, the names of data files that follow a LIST, and where the data begins.

    Programs add fields of their own (SimpleITK writes all of DICOM's header so), with values over several lines. They
    are left out, unless their names look like one that counts: a damaged name must not be overlooked.
    """
    fields: dict[str, str] = {}
    lines = header_lines(path)
    own = 0
    for text, place in lines:
        name, mark, value = text.partition("=")
        if not mark:
            name, mark, value = text.partition(":")
        name = name.strip()
        if not fields and not own and not (mark and name.isidentifier()):
            raise ImageError(f"{path} is not a MetaImage, whatever its name says: it begins with {text[:12]!r}.")
        if mark and name in _KNOWN:
            if name in fields:
                raise ImageError(f"the header of {path} states {name!r} twice; which one holds is not known.")
            fields[name] = value.strip()
            if name == "ElementDataFile":
                named = _listed(lines, path) if fields[name].split()[:1] == ["LIST"] else []
                return fields, named, place
            continue
        own += 1
        alike = difflib.get_close_matches(name[:40], _KNOWN, n=1, cutoff=0.8)
        if alike or own > _MOST_OWN_FIELDS or not text.replace("\t", "").isprintable():
            raise ImageError(f"the header of {path} is damaged: {shortened(text)!r} is no field that is known.")
    raise ImageError(f"the header of {path} is cut off: it does not say where the data is (ElementDataFile).")


def _listed(lines: Iterator[tuple[str, int]], path: Path) -> list[str]:
    """Names of data files, one a line, to the end of the header."""
    names = [text for text, _ in lines if text]
    if not 1 <= len(names) <= MOST_FILES:
        raise ImageError(f"the header of {path} lists {len(names)} data files; it should be 1 to {MOST_FILES}.")
    return names


def _source(
    fields: dict[str, str], names: list[str], lengths: tuple[int, ...], channels: int, path: Path, start: int
) -> StoredArray:
    """Where and how the values are stored."""
    told = fields.get("ElementType", "")
    if told.removesuffix("_ARRAY") not in _TYPES:
        raise ImageError(f"{path} holds values of type {shortened(told)!r}, which are no numbers.")
    dtype = np.dtype(_TYPES[told.removesuffix("_ARRAY")])
    big = _yes(fields, "BinaryDataByteOrderMSB", path) or _yes(fields, "ElementByteOrderMSB", path)
    dtype = dtype.newbyteorder(">" if big else "<")
    binary = _yes(fields, "BinaryData", path, default=True)
    packed = _yes(fields, "CompressedData", path)
    encoding = "text" if not binary else "zlib" if packed else "none"
    skip = whole_number(fields.get("HeaderSize", "0"))
    if skip is None or skip < -1 or (skip < 0 and encoding != "none"):
        raise ImageError(f"the header of {path} gives {shortened(fields['HeaderSize'])!r} as HeaderSize. {REPAIR}")
    shape = (channels, *lengths) if channels > 1 else lengths
    named = fields["ElementDataFile"]
    if named.upper() == "LOCAL":
        return StoredArray(path, shape, dtype, (path,), -1 if skip < 0 else start, max(skip, 0), 0, encoding)
    files = _files(named, names, lengths, path)
    return StoredArray(path, shape, dtype, files, skip, 0, 0, encoding)


def _files(named: str, names: list[str], lengths: tuple[int, ...], path: Path) -> tuple[Path, ...]:
    """Data files that the header names."""
    words = named.split()
    files: tuple[Path, ...]
    if names:
        files = tuple(path.parent / name for name in names)
        if words[1:] not in ([], [f"{len(lengths) - 1}D"]) and len(files) > 1:
            raise ImageError(f"{path} spreads its values over files in a way that is not supported: {named[:80]!r}.")
    elif "%" in named and len(words) in (3, 4):
        bounds = [whole_number(word) for word in (*words[1:], "1")][:3]
        first, last, step = bounds
        if first is None or last is None or step is None:
            raise ImageError(f"{path} names its data files by {shortened(named)!r}, which is no pattern.")
        files = numbered_files(words[0], first, last, step, path)
    else:
        if not named:
            raise ImageError(f"the header of {path} does not name the data (ElementDataFile is empty). {REPAIR}")
        files = (path.parent / named,)
    if lengths[-1] % len(files):
        raise ImageError(f"{path} spreads {lengths[-1]} slices over {len(files)} files, which cannot be.")
    return files


def _yes(fields: dict[str, str], name: str, path: Path, *, default: bool = False) -> bool:
    """A field that is true or false; MetaIO looks at the first letter."""
    value = fields.get(name)
    if value is None:
        return default
    letter = value[:1].lower()
    if letter not in ("t", "y", "1", "f", "n", "0"):
        raise ImageError(f"the header of {path} says {name} = {shortened(value)!r}, which is neither true nor false.")
    return letter in ("t", "y", "1")


def _geometry(
    fields: dict[str, str], count: int, path: Path, assume_geometry: bool
) -> tuple[NDArray[np.float64], list[MeddiftError]]:
    """The affine to world RAS mm, and what the header leaves open or says in a way that programs ignore."""
    problems: list[MeddiftError] = []
    stated: dict[str, NDArray[np.float64]] = {
        "spacing": np.ones(count), "directions": np.eye(count).ravel(), "position": np.zeros(count),
    }  # fmt: skip
    for names, meaning in _GEOMETRY:
        name = next((name for name in names if name in fields), None)
        if name is None:
            if not assume_geometry:
                problems.append(
                    GeometryError(f"{path} does not state its {meaning} (no {names[0]} in its header). {ASSUME}")
                )
            continue
        values = np.array([number(word) for word in fields[name].split()])
        told = shortened(fields[name])
        if len(values) != len(stated[meaning]):
            wanted = len(stated[meaning])
            problems.append(
                GeometryError(f"{name} in the header of {path} should be {wanted} numbers, not {told!r}. {REPAIR}")
            )
        elif not np.isfinite(values).all():
            problems.append(GeometryError(f"{name} in the header of {path} is not finite: {told}. {REPAIR}"))
        elif meaning == "spacing" and (values < 0).any():
            problems.append(GeometryError(f"the spacing in the header of {path} is negative: {told} mm. {REPAIR}"))
        else:
            stated[meaning] = values
    problems += _refused(fields, path)
    lps = np.eye(4)
    # Each row of the matrix in the file is the direction of one index axis.
    lps[:3, :3] = stated["directions"].reshape(count, count).T[:3, :3] * stated["spacing"][:3]
    lps[:3, 3] = stated["position"][:3]
    return flip_affine_ras_lps(lps), problems


def _refused(fields: dict[str, str], path: Path) -> list[MeddiftError]:
    """Units and scaling, which programs ignore."""
    problems: list[MeddiftError] = []
    units = fields.get("DistanceUnits", "mm")
    if units.lower() not in MILLIMETRES:
        problems.append(
            GeometryError(
                f"{path} states its lengths in {shortened(units)} (DistanceUnits), which programs ignore. "
                "Write the file again in mm."
            )
        )
    slope = fields.get("ElementToIntensityFunctionSlope", "1")
    offset = fields.get("ElementToIntensityFunctionOffset", "0")
    if number(slope) != 1 or number(offset) != 0:
        problems.append(
            ImageError(
                f"{path} asks for an intensity scaling (slope {shortened(slope)}, offset {shortened(offset)}), which "
                "programs ignore. Apply it and write the file again."
            )
        )
    return problems
