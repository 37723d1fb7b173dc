"""Text headers of image files (NRRD, MetaImage), read in linear time and within limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, MeddiftError, MemoryLimitError
from meddift.io.compressed import AGAIN, Compression, opened, read_voxels, require_room

#: Headers of segmentations with a hundred segments have some 100 kB.
_LARGEST_HEADER = 1 << 21
_MOST_LINES = 50_000

#: Words for the unit of lengths that mean mm, or that none is stated.
MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "none", "?", "???"}

#: The most files that the slices of one scan may be spread over.
MOST_FILES = 20_000


@dataclass(frozen=True, eq=False)
class StoredArray:
    """Where the values of an image lie, for formats whose header says so in words.

    Attributes:
        header: The file whose header says so.
        shape: Lengths of all axes as stored, first index fastest, channels included.
        dtype: Type and byte order in the file.
        files: The file; or several, each holding an equal part along the last axis.
        offset: Bytes to skip in each file as it stands; -1: the values end where the file ends.
        skip: Bytes to skip after decompression.
        lines: Lines to skip in each file, before the bytes.
        encoding: "none", "gzip", "zlib", "bzip2", "text" (decimal numbers) or "hex".
    """

    header: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    files: tuple[Path, ...]
    offset: int = 0
    skip: int = 0
    lines: int = 0
    encoding: str = "none"

    def read(self) -> NDArray[Any]:
        """All values, in the byte order of the file.

        Raises:
            ImageError: if a file is missing, damaged or cut off.
            MemoryLimitError: if they do not fit into memory.
        """
        if len(self.files) == 1:
            return self._part(self.files[0], self.shape)
        parts = (*self.shape[:-1], self.shape[-1] // len(self.files))
        return np.concatenate([self._part(file, parts) for file in self.files], axis=-1)

    def problems(self) -> list[MeddiftError]:
        """Why the values cannot be read, as far as the sizes of files tell."""
        try:
            for path in self.files:
                self._require_file(path)
                if self.encoding not in ("text", "hex"):
                    size = math.prod(self.shape) * self.dtype.itemsize // len(self.files)
                    require_room(path, size, offset=max(self.offset, 0), compression=self._compression)
        except MeddiftError as error:
            return [error]
        return []

    @property
    def all_files(self) -> tuple[Path, ...]:
        """The header and the files of the values."""
        return tuple(dict.fromkeys((self.header, *self.files)))

    @property
    def _compression(self) -> Compression:
        return self.encoding  # type: ignore[return-value]

    def _require_file(self, path: Path) -> None:
        try:
            found = path.is_file()
        except (OSError, ValueError):  # a name that no file system allows
            found = False
        if not found:
            name = shortened(str(path.name))
            raise ImageError(f"{self.header} names the data file {name}, which does not exist; put it beside it.")

    def _part(self, path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
        self._require_file(path)
        if self.encoding in ("text", "hex"):
            return self._words(path, shape)
        offset = self.offset
        if self.lines:
            with opened(path, offset=offset, decompress=False) as stream:
                for _ in range(self.lines):
                    if not stream.readline(_LARGEST_HEADER):
                        break
                offset = stream.tell()
        if offset < 0:
            offset = path.stat().st_size - math.prod(shape) * self.dtype.itemsize
            if offset < 0:
                raise ImageError(f"{path} is cut off: it holds fewer bytes than its header announces. {AGAIN}")
        return read_voxels(
            path, offset=offset, shape=shape, dtype=self.dtype, skip=self.skip, compression=self._compression
        )

    def _words(self, path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
        """Values written as decimal numbers or as hexadecimal digits."""
        with opened(path, offset=max(self.offset, 0), decompress=False) as stream:
            for _ in range(self.lines):
                stream.readline(_LARGEST_HEADER)
            content = stream.read()[self.skip :]
        try:
            if self.encoding == "hex":
                values = np.frombuffer(bytes.fromhex(content.decode("ascii")), dtype=self.dtype)
            else:
                if len(content) < 2 * math.prod(shape) - 1:  # a digit and a blank each
                    raise ValueError(f"{len(content)} bytes are too few for {math.prod(shape)} numbers")
                numbers = np.array([float(word) for word in content.split()])
                with np.errstate(all="ignore"):
                    values = numbers.astype(self.dtype)
                if self.dtype.kind in "iu" and not np.array_equal(values, numbers):
                    raise ValueError("numbers do not fit the type in the header")
            return values.reshape(shape, order="F")
        except MemoryError as error:
            raise MemoryLimitError(f"the numbers in {path} do not fit into memory.") from error
        except (ValueError, OverflowError) as error:
            raise ImageError(
                f"{path} does not hold the {' x '.join(map(str, shape))} values that its header announces ({error}). "
                f"{AGAIN}"
            ) from error


def header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a text header, stripped, each with the place in the file where the next line begins.

    Raises:
        ImageError: if the file is empty, cannot be read, or goes on for more than any header does.
    """
    with opened(path, decompress=False) as stream:
        content = stream.read(_LARGEST_HEADER)
        whole = not stream.read(1)
    if not content:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again.")
    start = 0
    for _ in range(_MOST_LINES):
        end = content.find(b"\n", start)
        if start == len(content) or (end < 0 and not whole):
            break
        stop = len(content) if end < 0 else end + 1
        yield content[start:stop].decode("utf-8", errors="replace").strip(), stop
        start = stop
    if start < len(content) or not whole:
        raise ImageError(f"{path} is damaged: its header goes on for more than {start} bytes. {AGAIN}")


def axis_lengths(words: list[str], count: int, path: Path) -> tuple[int, ...]:
    """Lengths of the axes, each at least 1.

    Raises:
        ImageError: if they are something else.
    """
    lengths = [whole_number(word) for word in words]
    if len(lengths) != count or any(length is None or length < 1 for length in lengths):
        raise ImageError(f"the header of {path} gives the size of {count} axes as {shortened(' '.join(words))!r}.")
    return tuple(length for length in lengths if length is not None)


def whole_number(text: str) -> int | None:
    """A whole number of up to 18 digits, or None."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def number(text: str) -> float:
    """A number, or NaN."""
    try:
        return float(text) if len(text) <= 400 and "_" not in text else float("nan")
    except ValueError:
        return float("nan")


def shortened(text: str) -> str:
    """A value from a header, cut to what a message can hold."""
    return text if len(text) <= 80 else text[:77] + "..."


def numbered_files(pattern: str, first: int, last: int, step: int, path: Path) -> tuple[Path, ...]:
    """Files named by a pattern of C such as `slice%03d.raw`, relative to the header.

    Raises:
        ImageError: if the pattern holds anything but one plain number, or stands for too many files.
    """
    before, mark, after = pattern.partition("%")
    width, letter, rest = after.partition("d")
    if not mark or not letter or "%" in rest or not (width == "" or (width.isdigit() and int(width[:4]) < 100)):
        raise ImageError(f"{path} names its data files by {shortened(pattern)!r}, which is no pattern like s%03d.raw.")
    numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
    if not 1 <= len(numbers) <= MOST_FILES:
        raise ImageError(f"{path} names {len(numbers)} data files; it should be 1 to {MOST_FILES}.")
    form = f"{{:{'0' if width.startswith('0') else ''}{width.lstrip('0') or 1}d}}"
    return tuple(path.parent / (before + form.format(index) + rest) for index in numbers)
