"""Reading of files that may be compressed; damage is detected, and sizes that a file cannot hold are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, MemoryLimitError

Compression = Literal["none", "gzip", "zlib", "bzip2"]

#: The most bytes that one compressed byte can stand for: 1032 by the format of deflate (RFC 1951); bzip2 packs a run
#: of 900 kB into some 40 bytes.
_LARGEST_RATIO = {"none": 1, "gzip": 1032, "zlib": 1032, "bzip2": 50_000}

#: Largest number of bytes after the voxels. More is not padding, and a few kB of compressed zeros could take minutes.
_LARGEST_REST = 1 << 24

#: What to do about a damaged file.
AGAIN = "Copy or download it again."


@contextmanager
def opened(
    path: Path, *, offset: int = 0, compression: Compression | None = None, decompress: bool = True
) -> Iterator[IO[bytes]]:
    """Open a file for reading; if its first bytes say gzip, whatever its name, it is decompressed.

    Args:
        path: A file that exists.
        offset: Bytes to skip in the file as it stands, before anything is decompressed.
        compression: How the rest is compressed; None to look at the first bytes.
        decompress: False to read the bytes as they stand in the file.

    Raises:
        ImageError: if the file cannot be opened or read, or its compressed data is damaged or cut off.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            if compression is None:
                compression = "gzip" if decompress and stream.read(2) == b"\x1f\x8b" else "none"
                stream.seek(offset)
            if compression == "gzip":
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            elif compression == "bzip2":
                with bz2.BZ2File(stream) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            elif compression == "zlib":
                yield cast("IO[bytes]", io.BufferedReader(_ZlibReader(stream), 1 << 16))
            else:
                yield stream
    except EOFError as error:
        raise ImageError(f"{path} is cut off: its compressed data ends too early. {AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(f"{path} is damaged: its compressed data is not valid ({error}). {AGAIN}") from error
    except PermissionError as error:
        raise ImageError(f"{path} cannot be read: there is no permission to do so.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_voxels(
    path: Path,
    *,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    skip: int = 0,
    compression: Compression | None = None,
) -> NDArray[Any]:
    """Read the voxels of a file that holds them in one piece, first index fastest.

    A compressed file is read to its very end, because only there stands the checksum: a reader that stops
    after the last voxel (nibabel) does not notice damage, and one that fills up with zeros (ITK's NIfTI
    reader) hides that half of the scan is missing.

    Args:
        path: The file, compressed or not.
        offset: Bytes before the voxels, counted in the file as it stands if `compression` is given (formats whose
            header is never compressed), else after decompression.
        shape: Lengths of all axes.
        dtype: Type and byte order in the file.
        skip: Bytes to skip after decompression.
        compression: How the voxels are compressed; None to look at the first bytes of the file.

    Returns:
        Array of `shape` in the byte order of the file.

    Raises:
        ImageError: if the file is cut off or damaged, or announces more than it can hold.
        MemoryLimitError: if the voxels do not fit into memory.
    """
    size = dtype.itemsize
    for length in shape:  # Python's integers do not overflow, whatever a damaged header says
        size *= int(length)
    start = 0
    if compression is None:
        skip += offset
    else:
        start = offset
    with opened(path, offset=start, compression=compression) as stream:
        _require_room(stream, path, start, skip + size)
        try:
            buffer = np.empty(size, dtype=np.uint8)
        except MemoryError as error:
            raise MemoryLimitError(f"the {size / 1e9:.1f} GB of voxels in {path} do not fit into memory.") from error
        _skip(stream, skip)
        view, filled = buffer.data, 0
        while filled < len(view):
            count = cast(Any, stream).readinto(view[filled : filled + (1 << 22)])
            if not count:
                raise ImageError(
                    f"{path} is cut off: its header announces {size} bytes of voxels, it holds {filled}. {AGAIN}"
                )
            filled += count
        if _compression_of(stream) != "none":
            _require_end(stream, path, size)
    return buffer.view(dtype).reshape(shape, order="F")


def require_room(path: Path, size: int, *, offset: int = 0, compression: Compression | None = None) -> None:
    """Refuse a file whose header announces more bytes than it can hold; nothing of it is read.

    Args:
        path: The file.
        size: Bytes that are announced, after decompression.
        offset: Bytes before them in the file as it stands.
        compression: As for `opened`.

    Raises:
        ImageError: if the file is too small for `size` bytes.
    """
    with opened(path, offset=offset, compression=compression) as stream:
        _require_room(stream, path, offset, size)


def _require_room(stream: IO[bytes], path: Path, start: int, size: int) -> None:
    whole = path.stat().st_size
    if size > (whole - start) * _LARGEST_RATIO[_compression_of(stream)]:
        raise ImageError(
            f"{path} is cut off: its header announces {size} bytes of voxels, more than a file of {whole} bytes can "
            f"hold. {AGAIN}"
        )


class _ZlibReader(io.RawIOBase):
    """A zlib stream inside a file, decompressed piece by piece."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._engine = zlib.decompressobj(wbits=47)  # zlib or gzip: its first bytes tell

    def readable(self) -> bool:
        """Whether it can be read from; it always can."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill a buffer; 0 at the end of the compressed stream."""
        view = memoryview(target).cast("B")
        while not self._engine.eof:
            packed = self._engine.unconsumed_tail or self._stream.read(1 << 16)
            if not packed:
                raise EOFError
            piece = self._engine.decompress(packed, len(view))
            if piece:
                view[: len(piece)] = piece
                return len(piece)
        return 0


def _compression_of(stream: Any) -> Compression:
    """How an opened stream is compressed."""
    if isinstance(stream, gzip.GzipFile):
        return "gzip"
    if isinstance(stream, bz2.BZ2File):
        return "bzip2"
    return "zlib" if isinstance(getattr(stream, "raw", None), _ZlibReader) else "none"


def _skip(stream: IO[bytes], count: int) -> None:
    """Read and discard bytes piece by piece, so that no memory is allocated for a length that a header only claims."""
    if _compression_of(stream) == "none":
        stream.seek(count, io.SEEK_CUR)
        return
    while count > 0 and (piece := stream.read(min(count, 1 << 20))):
        count -= len(piece)


def _require_end(stream: IO[bytes], path: Path, size: int) -> None:
    """Read what follows the voxels, for the checksum that stands at the end."""
    rest = 0
    while piece := stream.read(1 << 16):
        rest += len(piece)
        if rest > _LARGEST_REST:
            raise ImageError(
                f"{path} holds much more than the {size} bytes of voxels that its header announces: its header is "
                "wrong or the file is damaged. Write it again with the tool that made it."
            )
