"""Write the part of HDF5 that transform files use: groups, texts and rows of float64.

Superblock and object headers of version 2, links in the headers, data in one piece: what HDF5 reads since 1.8 (2008).
Equal content makes equal files, without the name and version of the operating system that ITK puts in; and a full
disk is an error of the operating system (HDF5 1.12 in ITK 5.4 ends the process some time after it).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from meddift.io.hdf5.frame import (
    DATASPACE,
    DATATYPE,
    LAYOUT,
    LINK,
    LINK_INFO,
    NOWHERE,
    SIGNATURE,
    checksum,
)

Tree: TypeAlias = "Mapping[str, Tree | str | NDArray[np.float64]]"

_FILL_VALUE, _GROUP_INFO = 5, 10
_SUPERBLOCK = 48
_SMALLEST_HEAP = 4096

#: IEEE 754 double, little-endian: sign bit 63, exponent of 11 bits at 52 with bias 1023, mantissa of 52 bits.
_FLOAT64 = struct.pack("<B3sIHHBBBBI", 0x11, b"\x20\x3f\0", 8, 0, 64, 52, 11, 0, 52, 1023)
#: Text of any length, ended by a zero, ASCII; its elements lie in a global heap.
_TEXT = struct.pack("<B3sIB3sIHH", 0x19, b"\x01\0\0", 16, 0x10, b"\0\0\0", 1, 0, 8)


def write_hdf5(tree: Tree, path: Path) -> None:
    """Write groups and data sets.

    Args:
        tree: Names to groups (mappings again), texts of ASCII, or rows of float64.
        path: The file; not atomic by itself.

    Raises:
        OSError: if the operating system refuses.
    """
    with path.open("wb") as stream:
        stream.write(b"\0" * _SUPERBLOCK)
        texts = _write_texts(tree, stream)
        root = _write_group(tree, stream, texts)
        end = stream.tell()
        block = SIGNATURE + struct.pack("<BBBBQQQQ", 2, 8, 8, 0, 0, NOWHERE, end, root)
        stream.seek(0)
        stream.write(block + struct.pack("<I", checksum(block)))


def _write_texts(tree: Tree, stream: IO[bytes]) -> dict[str, bytes]:
    """All texts in one global heap; text -> the reference to it."""
    found = sorted(set(_texts(tree)))
    address = stream.tell()
    body, references = b"", {}
    for number, text in enumerate(found, start=1):
        raw = text.encode("ascii")
        references[text] = struct.pack("<IQI", len(raw), address, number)
        body += struct.pack("<HHIQ", number, 1, 0, len(raw)) + raw.ljust(-(-len(raw) // 8) * 8, b"\0")
    size = max(_SMALLEST_HEAP, 16 + len(body) + 16)
    free = size - 16 - len(body)
    stream.write(b"GCOL" + struct.pack("<B3xQ", 1, size) + body)
    stream.write(struct.pack("<HHIQ", 0, 0, 0, free) + b"\0" * (free - 16))
    return references


def _texts(tree: Tree) -> list[str]:
    found = []
    for value in tree.values():
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping):
            found += _texts(value)
    return found


def _write_group(tree: Tree, stream: IO[bytes], texts: Mapping[str, bytes]) -> int:
    """Members first, then the group that names them; where it stands."""
    messages = [(LINK_INFO, struct.pack("<BBQQ", 0, 0, NOWHERE, NOWHERE)), (_GROUP_INFO, b"\0\0")]
    for name, value in tree.items():
        if isinstance(value, Mapping):
            place = _write_group(value, stream, texts)
        elif isinstance(value, str):
            place = _write_data(texts[value], 1, _TEXT, stream)
        else:
            place = _write_data(np.ascontiguousarray(value, dtype="<f8").data, len(value), _FLOAT64, stream)
        raw = name.encode("ascii")
        messages.append((LINK, struct.pack("<BBB", 1, 0, len(raw)) + raw + struct.pack("<Q", place)))
    return _write_object(messages, stream)


def _write_data(raw: bytes | memoryview, count: int, kind: bytes, stream: IO[bytes]) -> int:
    """A data set of one axis."""
    address, size = (stream.tell(), memoryview(raw).nbytes) if count else (NOWHERE, 0)
    if count:
        stream.write(raw)
        stream.write(b"\0" * (-size % 8))
    messages = [
        (DATASPACE, struct.pack("<BBBBQ", 2, 1, 0, 1, count)),
        (DATATYPE, kind),
        (_FILL_VALUE, b"\x03\x0a"),  # none stated; written where it is asked for
        (LAYOUT, struct.pack("<BBQQ", 3, 1, address, size)),
    ]
    return _write_object(messages, stream)


def _write_object(messages: list[tuple[int, bytes]], stream: IO[bytes]) -> int:
    """The header of a group or data set."""
    address = stream.tell()
    body = b"".join(struct.pack("<BHB", kind, len(raw), 0) + raw for kind, raw in messages)
    block = b"OHDR" + struct.pack("<BBI", 2, 2, len(body)) + body
    stream.write(block + struct.pack("<I", checksum(block)))
    return address
