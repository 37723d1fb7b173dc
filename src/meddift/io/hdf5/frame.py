"""Low-level structures of an HDF5 file: superblock, object headers, B-trees; each address is checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from meddift.errors import TransformError
from meddift.io.compressed import AGAIN

SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: HDF5's undefined address, for objects that do not exist.
NOWHERE = (1 << 64) - 1

#: Types of the messages of an object header.
DATASPACE, LINK_INFO, DATATYPE, LINK, LAYOUT, FILTERS, CONTINUATION, SYMBOL_TABLE = 1, 2, 3, 6, 8, 11, 16, 17

#: Limits for damaged files: entries of an index other than one of chunks, and bytes of all object headers together.
MOST_ENTRIES = 10_000
LONGEST_NAME = 1_000
_LONGEST_HEADERS = 1 << 20


class Frame:
    """An open HDF5 file, as headers of objects at addresses.

    Args:
        stream: The file, opened in binary mode, and open as long as this object is used.
        path: For messages.

    Attributes:
        path: For messages.
        size: Length of the file, bytes.
        root: Address of the root group.

    Raises:
        TransformError: here and in all methods, if the file is damaged or uses what is not read here.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self.path = path
        self.size = os.fstat(stream.fileno()).st_size
        self._visits = self._headers = 0
        self.root = self._superblock()

    def damaged(self, why: str) -> TransformError:
        """The error to raise."""
        return TransformError(f"{self.path} is damaged: {why}. {AGAIN}")

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the file."""
        if not 0 <= address <= self.size - size:
            raise self.damaged(f"it refers to byte {address}, and ends at byte {self.size}")
        self._stream.seek(address)
        raw = self._stream.read(size)
        if len(raw) != size:
            raise self.damaged("it became shorter while it was read")
        return raw

    def checked(self, address: int, size: int, signature: bytes) -> Bytes:
        """The content of a structure between its signature and its checksum, both of which are checked."""
        raw = self.read(address, size)
        if raw[:4] != signature or checksum(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise self.damaged("a checksum is wrong")
        return Bytes(raw[4:-4], self)

    def foreign(self, what: str) -> TransformError:
        """The error for a file that may be valid but uses features that are not supported."""
        return TransformError(
            f"{self.path} uses {what} of HDF5, which transform files need not have and which is not read here. Read "
            "and write it again with SimpleITK (ReadTransform, WriteTransform)."
        )

    def messages(self, address: int) -> list[tuple[int, Bytes]]:
        """The messages of an object header."""
        second = self.read(address, 4) == b"OHDR"
        found: list[tuple[int, Bytes]] = []
        # Where the block begins, how long it is, and where its messages begin in it.
        blocks = [self._first_block_2(address) if second else self._first_block_1(address)]
        step = 8
        if second:
            step = 6 if self.read(address + 5, 1)[0] & 4 else 4
        while blocks:
            start, length, skipped = blocks.pop()
            self._headers += length + 32
            if self._headers > _LONGEST_HEADERS:
                raise self.damaged("it holds far more than a transform needs")
            block = self.read(start, length)
            if second:
                if length < skipped + 4 or checksum(block[:-4]) != int.from_bytes(block[-4:], "little"):
                    raise self.damaged("a checksum is wrong")
                block = block[:-4]
            raw = Bytes(block[skipped:], self)
            while raw.left >= step:
                kind, size, flags = (raw.u8(), raw.u16(), raw.u8()) if second else (raw.u16(), raw.u16(), raw.u8())
                raw.take(step - (4 if second else 5))
                if second and not kind and size > raw.left:
                    break  # a gap at the end of the block
                body = Bytes(raw.take(size), self)
                if flags & 2 and kind in (DATASPACE, DATATYPE, FILTERS):
                    raise self.foreign("shared messages")
                if kind == CONTINUATION:
                    place, size = body.u64(), body.u64()
                    blocks.append((place, size, 4 if second else 0))
                elif kind:
                    found.append((kind, body))
        return found

    def _first_block_1(self, address: int) -> tuple[int, int, int]:
        raw = Bytes(self.read(address, 16), self)
        if raw.u8() != 1:
            raise self.damaged("the header of an object is not there")
        raw.take(7)
        return address + 16, raw.u32(), 0

    def _first_block_2(self, address: int) -> tuple[int, int, int]:
        flags = self.read(address + 5, 1)[0]
        place = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
        width = 1 << (flags & 3)
        skipped = place + width - address
        return address, skipped + int.from_bytes(self.read(place, width), "little") + 4, skipped

    def leaves(self, address: int, kind: int, key: int) -> Iterator[Entry]:
        """The entries at the bottom of a B-tree of version 1; `kind` 0 for groups, 1 for chunks."""
        pending: list[tuple[int, int | None]] = [(address, None)] if address != NOWHERE else []
        while pending:
            place, expected = pending.pop()
            raw = Bytes(self.read(place, 24), self)
            if raw.take(4) != b"TREE" or raw.u8() != kind:
                raise self.damaged("an index is not there")
            level, used = raw.u8(), raw.u16()
            self._visits += 1 + used
            if expected not in (None, level) or self._visits > self.size // 24 + MOST_ENTRIES:
                raise self.damaged("an index leads in circles")
            raw = Bytes(self.read(place + 24, used * (key + 8)), self)
            entries = [Entry(raw.take(key), raw.u64()) for _ in range(used)]
            if level:
                pending += [(entry.child, level - 1) for entry in reversed(entries)]
            else:
                yield from entries

    def _superblock(self) -> int:
        """Where the root group is."""
        if not self.size:
            raise TransformError(f"{self.path} is empty (0 bytes). {AGAIN}")
        raw = Bytes(self.read(0, min(self.size, 96)), self)
        if raw.take(8) != SIGNATURE:
            raise TransformError(f"{self.path} is not an HDF5 file, whatever its name says. {AGAIN}")
        version = raw.u8()
        if version in (0, 1):
            raw.take(4)
            widths = (raw.u8(), raw.u8())
            raw.take(9 if version == 0 else 13)
            base, _, end, _ = raw.u64(), raw.u64(), raw.u64(), raw.u64()
            raw.u64()
            root = raw.u64()
        elif version in (2, 3):
            widths = (raw.u8(), raw.u8())
            raw.u8()
            base, _, end, root = raw.u64(), raw.u64(), raw.u64(), raw.u64()
            self.checked(0, 48, SIGNATURE[:4])
        else:
            raise self.foreign(f"version {version}")
        if widths != (8, 8) or base:
            raise self.foreign("addresses of another width or origin")
        if end > self.size:
            raise TransformError(f"{self.path} is cut off: it should have {end} bytes and has {self.size}. {AGAIN}")
        return root


@dataclass(frozen=True)
class Entry:
    """An entry of an index: its key and the address that it leads to."""

    key: bytes
    child: int


class Bytes:
    """Numbers read one after another; little-endian, as HDF5 stores its own."""

    def __init__(self, raw: bytes, file: Frame) -> None:
        self._raw, self._at, self._file = raw, 0, file

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._raw) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes; TransformError if there are fewer."""
        if not 0 <= count <= self.left:
            raise self._file.damaged("an entry is longer than its place")
        self._at += count
        return self._raw[self._at - count : self._at]

    def u8(self) -> int:
        """The next whole number of 1 byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """The next whole number of 2 bytes."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """The next whole number of 4 bytes."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """The next whole number of 8 bytes."""
        return int.from_bytes(self.take(8), "little")


def checksum(data: bytes) -> int:
    """The checksum of HDF5's headers: Bob Jenkins' lookup3 (http://burtleburtle.net/bob/c/lookup3.c, hashlittle)."""
    mask = 0xFFFFFFFF

    def turned(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    blocks = [data[i : i + 12].ljust(12, b"\0") for i in range(0, len(data), 12)]
    for number, block in enumerate(blocks):
        a, b, c = ((x + int.from_bytes(block[i : i + 4], "little")) & mask for x, i in ((a, 0), (b, 4), (c, 8)))
        if number == len(blocks) - 1:
            break
        a = ((a - c) ^ turned(c, 4)) & mask
        c = (c + b) & mask
        b = ((b - a) ^ turned(a, 6)) & mask
        a = (a + c) & mask
        c = ((c - b) ^ turned(b, 8)) & mask
        b = (b + a) & mask
        a = ((a - c) ^ turned(c, 16)) & mask
        c = (c + b) & mask
        b = ((b - a) ^ turned(a, 19)) & mask
        a = (a + c) & mask
        c = ((c - b) ^ turned(b, 4)) & mask
        b = (b + a) & mask
    for x, k in (("c", 14), ("a", 11), ("b", 25), ("c", 16), ("a", 4), ("b", 14), ("c", 24)):
        if x == "c":
            c = ((c ^ b) - turned(b, k)) & mask
        elif x == "a":
            a = ((a ^ c) - turned(c, k)) & mask
        else:
            b = ((b ^ a) - turned(a, k)) & mask
    return c
