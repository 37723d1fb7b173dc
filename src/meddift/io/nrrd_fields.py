"""The header of an NRRD file as fields, and where it says that the values lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from meddift.errors import ImageError
from meddift.io.text_header import (
    MOST_FILES,
    StoredArray,
    header_lines,
    numbered_files,
    shortened,
    whole_number,
)

_TYPES = {
    name: code
    for code, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_ENCODINGS = {
    "raw": "none", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
    "text": "text", "txt": "text", "ascii": "text", "hex": "hex",
}  # fmt: skip
#: Other names of fields in the format.
_ALIASES = {"centers": "centerings", "data file": "datafile", "line skip": "lineskip", "byte skip": "byteskip"}


def nrrd_fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """Fields (names in lower case), key/value pairs (as they stand; keys in lower case), and where the data begins."""
    lines = header_lines(path)
    first, start = next(lines)
    if not re.fullmatch(r"NRRD000[1-6]", first):
        raise ImageError(f"{path} is not an NRRD image, whatever its name says: it begins with {first[:8]!r}.")
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for text, place in lines:
        start = place
        if not text:
            break
        if text.startswith("#"):
            continue
        name, mark, value = text.partition(":")
        if not mark:
            raise ImageError(f"the header of {path} is damaged: {shortened(text)!r} is no field.")
        if value.startswith("="):
            keys.setdefault(name.strip().lower(), value[1:].strip())
            continue
        name = name.strip().lower()
        name = _ALIASES.get(name, name)
        if name in fields:
            raise ImageError(f"the header of {path} states {shortened(name)!r} twice; which one holds is not known.")
        fields[name] = value.strip()
        if name == "datafile" and value.split()[:1] == ["LIST"]:
            fields["files"] = "\n".join(_listed(lines, path))
            break
    return fields, keys, start


def _listed(lines: Iterator[tuple[str, int]], path: Path) -> list[str]:
    """Names of data files, one a line, to the end of the header."""
    names: list[str] = []
    for text, _ in lines:
        if text:
            names.append(text)
    if not 1 <= len(names) <= MOST_FILES:
        raise ImageError(f"the header of {path} lists {len(names)} data files; it should be 1 to {MOST_FILES}.")
    return names


def nrrd_source(fields: dict[str, str], lengths: tuple[int, ...], path: Path, start: int) -> StoredArray:
    """Where and how the values are stored."""
    code = _TYPES.get(fields.get("type", "").lower())
    if code is None:
        raise ImageError(f"{path} holds values of type {shortened(fields.get('type', ''))!r}, which are no numbers.")
    encoding = _ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise ImageError(f"{path} is encoded as {shortened(fields.get('encoding', ''))!r}, which is not known.")
    dtype = np.dtype(code)
    if dtype.itemsize > 1 and encoding != "text":
        endian = fields.get("endian", "").lower()
        if endian not in ("little", "big"):
            raise ImageError(f"the header of {path} does not state the order of bytes (endian: little or big).")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    lines, skip = (whole_number(fields.get(name, "0")) for name in ("lineskip", "byteskip"))
    if lines is None or skip is None or lines < 0 or skip < -1 or lines > MOST_FILES:
        raise ImageError(
            f"the header of {path} says to skip {fields.get('lineskip')} lines, {fields.get('byteskip')} "
            "bytes, which makes no sense."
        )
    if skip < 0 and encoding != "none":
        raise ImageError(f"the header of {path} counts bytes from the end of compressed data, which makes no sense.")
    named = fields.get("datafile")
    files = (path,) if named is None else _files(fields, named, lengths, path)
    offset = -1 if skip < 0 else start if named is None else 0
    return StoredArray(path, lengths, dtype, files, offset, max(skip, 0), 0 if skip < 0 else lines, encoding)


def _files(fields: dict[str, str], named: str, lengths: tuple[int, ...], path: Path) -> tuple[Path, ...]:
    """Data files of a detached header."""
    words = named.split()
    if words[:1] == ["LIST"]:
        files = tuple(path.parent / name for name in fields["files"].split("\n"))
        part = words[1:2]
    elif len(words) in (4, 5) and "%" in words[0]:
        first, last, step = (whole_number(word) for word in words[1:4])
        if first is None or last is None or step is None:
            raise ImageError(f"{path} names its data files by {shortened(named)!r}, which is no pattern.")
        files, part = numbered_files(words[0], first, last, step, path), words[4:5]
    else:
        return (path.parent / named,)
    if part and part[0] != str(len(lengths) - 1) and len(files) > 1:
        raise ImageError(f"{path} spreads its values over files in a way that is not supported: {shortened(named)!r}.")
    if lengths[-1] % len(files):
        raise ImageError(f"{path} spreads {lengths[-1]} slices over {len(files)} files, which cannot be.")
    return files
