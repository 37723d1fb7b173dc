"""Files that may be compressed by gzip, read so that damage is noticed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError


@contextmanager
def opened(path: Path, *, decompress: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for reading; if its first bytes say gzip, whatever its name, it is decompressed.

    Args:
        path: A file that exists.
        decompress: False to read the bytes as they stand in the file.

    Raises:
        ImageError: if the file cannot be opened or read, or its compressed data is damaged or cut off.
    """
    try:
        with path.open("rb") as stream:
            compressed = decompress and stream.read(2) == b"\x1f\x8b"
        with cast("IO[bytes]", gzip.open(path, "rb")) if compressed else path.open("rb") as stream:
            yield stream
    except EOFError as error:
        raise ImageError(f"{path} is cut off: its compressed data ends too early. {_AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(f"{path} is damaged: its compressed data is not valid ({error}). {_AGAIN}") from error
    except PermissionError as error:
        raise ImageError(f"{path} cannot be read: there is no permission to do so.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_voxels(path: Path, *, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read the voxels of a file that holds them in one piece, first index fastest.

    A compressed file is read to its very end, because only there stands the checksum: a reader that stops
    after the last voxel (nibabel) does not notice damage, and one that fills up with zeros (ITK's NIfTI
    reader) hides that half of the scan is missing.

    Args:
        path: The file, compressed or not.
        offset: Bytes before the first voxel.
        shape: Lengths of all axes.
        dtype: Type and byte order in the file.

    Returns:
        Array of `shape` in the byte order of the file.

    Raises:
        ImageError: if the file is cut off or damaged.
    """
    buffer = np.empty(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, dtype=np.uint8)
    view, filled = buffer.data, 0
    with opened(path) as stream:
        stream.seek(offset)
        while filled < len(view):
            count = cast(Any, stream).readinto(view[filled : filled + (1 << 26)])
            if not count:
                raise ImageError(
                    f"{path} is cut off: its header announces {len(view)} bytes of voxels, it holds {filled}. {_AGAIN}"
                )
            filled += count
        if isinstance(stream, gzip.GzipFile):
            while stream.read(1 << 22):
                pass
    return buffer.view(dtype).reshape(shape, order="F")


_AGAIN = "Copy or download it again."
