"""Data sets of an HDF5 file: texts and floating-point numbers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.io.hdf5.frame import DATASPACE, DATATYPE, FILTERS, LAYOUT, LONGEST_NAME, Bytes, Frame
from meddift.system.memory import require_memory

_DEFLATE, _SHUFFLE = 1, 2
_DEFLATE_RATIO = 1032  # the most that deflate can pack (RFC 1951)


def text(frame: Frame, address: int) -> str:
    """A data set that holds one text."""
    kind, shape, raw = _stored(frame, address)
    if kind.family not in ("string", "text") or int(np.prod(shape, dtype=object)) != 1:
        raise frame.damaged("a text is something else")
    if kind.family == "text":
        reference = Bytes(raw, frame)
        length, collection, index = reference.u32(), reference.u64(), reference.u32()
        raw = _global(frame, collection, index)[:length]
    return raw.split(b"\0")[0].decode("ascii", errors="replace")


def numbers(frame: Frame, address: int) -> NDArray[np.floating[Any]]:
    """A data set of floating-point numbers, flat."""
    kind, shape, raw = _stored(frame, address)
    if kind.family != "float" or len(shape) > 2:
        raise frame.damaged("numbers are something else")
    stored = np.frombuffer(raw, dtype=kind.dtype)
    return stored.astype(kind.dtype.newbyteorder("="), copy=False)


def _stored(frame: Frame, address: int) -> tuple[_Kind, tuple[int, ...], bytes]:
    """Type, shape and bytes of a data set."""
    messages = dict(frame.messages(address))
    if not {DATASPACE, DATATYPE, LAYOUT} <= set(messages):
        raise frame.damaged("a data set is something else")
    kind = _kind(frame, messages[DATATYPE])
    shape = _shape(frame, messages[DATASPACE])
    size = kind.size * int(np.prod(shape, dtype=object))
    if size > frame.size * _DEFLATE_RATIO:
        raise frame.damaged(f"it announces {size} bytes of data, more than it can hold")
    require_memory(3 * size, f"reading {frame.path}")
    raw = messages[LAYOUT]
    version, layout = raw.u8(), raw.u8()
    if version not in (3, 4) or (version == 4 and layout == 2):
        raise frame.foreign(f"a layout of version {version}")
    if layout == 0:
        stored = raw.take(raw.u16())
    elif layout == 1:
        place, length = raw.u64(), raw.u64()
        if length < size:
            raise frame.damaged(f"a data set of {size} bytes has {length}")
        stored = frame.read(place, size) if size else b""
    elif layout == 2:
        rank = raw.u8() - 1
        tree = raw.u64()
        chunk = tuple(raw.u32() for _ in range(max(rank, 0)))
        if raw.u32() != kind.size:
            raise frame.damaged("a data set contradicts itself about the size of its elements")
        stored = _chunks(frame, tree, shape, chunk, kind.size, _filters(frame, messages.get(FILTERS)))
    else:
        raise frame.foreign("a layout of another kind")
    if len(stored) < size:
        raise frame.damaged(f"a data set of {size} bytes has {len(stored)}")
    return kind, shape, stored[:size]


def _kind(frame: Frame, raw: Bytes) -> _Kind:
    first = raw.u8()
    bits = int.from_bytes(raw.take(3), "little")
    size, family = raw.u32(), first & 15
    if family == 1:
        layout = (raw.u16(), raw.u16(), *(raw.u8() for _ in range(4)), raw.u32())
        known = {4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}
        if layout == known.get(size) and not bits & 64:
            return _Kind("float", size, np.dtype(f"{'>' if bits & 1 else '<'}f{size}"))
    elif family == 3 and 0 < size <= LONGEST_NAME:
        return _Kind("string", size, np.dtype(f"S{size}"))
    elif family == 9 and bits & 15 == 1 and size == 16:
        return _Kind("text", size, np.dtype("V16"))
    return _Kind("other", max(size, 1), np.dtype("V1"))


def _shape(frame: Frame, raw: Bytes) -> tuple[int, ...]:
    version, rank = raw.u8(), raw.u8()
    if version not in (1, 2) or rank > 32:
        raise frame.damaged("the shape of a data set is not there")
    flags = raw.take(6 if version == 1 else 2)
    if version == 2 and flags[1] == 2:
        return (0,)
    return tuple(raw.u64() for _ in range(rank))


def _filters(frame: Frame, raw: Bytes | None) -> tuple[int, ...]:
    """Numbers of the filters that were applied to each chunk, in the order of writing."""
    if raw is None:
        return ()
    version, count = raw.u8(), raw.u8()
    if version == 1:
        raw.take(6)
    found = []
    for _ in range(count):
        identifier = raw.u16()
        name = raw.u16() if version == 1 or identifier >= 256 else 0
        raw.u16()
        values = raw.u16()
        raw.take(-(-name // 8) * 8 if version == 1 else name)
        raw.take(4 * (values + (values % 2 if version == 1 else 0)))
        found.append(identifier)
    if not set(found) <= {_DEFLATE, _SHUFFLE}:
        raise frame.foreign("a compression other than deflate")
    return tuple(found)


def _chunks(
    frame: Frame, tree: int, shape: tuple[int, ...], chunk: tuple[int, ...], size: int, filters: tuple[int, ...]
) -> bytes:
    """A data set of one axis that is stored in pieces."""
    if len(shape) != 1 or len(chunk) != 1 or not chunk[0]:
        raise frame.foreign("chunks along several axes")
    entries = {}
    for entry in frame.leaves(tree, 1, 24):
        key = Bytes(entry.key, frame)
        stored, mask, start = key.u32(), key.u32(), key.u64()
        if mask or start % chunk[0] or start in entries:
            raise frame.damaged("a chunk has no place of its own")
        entries[start] = (entry.child, stored)
    count, full = -(-shape[0] // chunk[0]), chunk[0] * size
    if len(entries) != count or sorted(entries) != [i * chunk[0] for i in range(count)]:
        raise frame.damaged(f"{len(entries)} chunks are there, and {count} should be")
    pieces = []
    for _, (place, stored) in sorted(entries.items()):
        if full > stored * (_DEFLATE_RATIO if _DEFLATE in filters else 1):
            raise frame.damaged("a chunk announces more than it can hold")
        piece = frame.read(place, stored)
        for step in reversed(filters):
            piece = _inflated(frame, piece, full) if step == _DEFLATE else _unshuffled(piece, size)
        if len(piece) != full:
            raise frame.damaged("a chunk is of another size than it should be")
        pieces.append(piece)
    return b"".join(pieces)


def _inflated(frame: Frame, packed: bytes, size: int) -> bytes:
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(packed, size + 1)  # the end of the stream, with its checksum, comes after
    except zlib.error as error:
        raise frame.damaged(f"compressed data is not valid ({error})") from error
    if not engine.eof:
        raise frame.damaged("compressed data is cut off or too long")
    return found


def _global(frame: Frame, address: int, index: int) -> bytes:
    """An object of a global heap: where texts of any length stand."""
    raw = Bytes(frame.read(address, 16), frame)
    if raw.take(4) != b"GCOL":
        raise frame.damaged("a text is not there")
    raw.take(4)
    place, end = address + 16, address + raw.u64()
    while place + 16 <= end:
        raw = Bytes(frame.read(place, 16), frame)
        number, _, _, size = raw.u16(), raw.u16(), raw.u32(), raw.u64()
        if number == index:
            return frame.read(place + 16, min(size, LONGEST_NAME))
        if not number:
            break
        place += 16 + -(-size // 8) * 8
    raise frame.damaged("a text is not there")


@dataclass(frozen=True)
class _Kind:
    """Type of the elements of a data set: "float", "string" (of fixed length), "text" (of any length), "other"."""

    family: str
    size: int
    dtype: np.dtype[Any]


def _unshuffled(piece: bytes, size: int) -> bytes:
    """Undo the filter that stores the first bytes of all numbers, then the second ones, and so on."""
    whole = len(piece) // size * size
    return np.frombuffer(piece[:whole], np.uint8).reshape(size, -1).T.tobytes() + piece[whole:]
