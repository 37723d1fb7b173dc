"""The file format of stored pyramids: safetensors with one tensor for each level, everything else as JSON metadata.

Features are memory-mapped in the type in which they are stored, float16 or float32, and not copied. Checksums cover
all bytes, so damage is detected before a file is used.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.features.moments import Moments
from meddift.features.pyramid import Level, Pyramid
from meddift.geometry import Grid

#: Version of the file layout; files of other versions count as missing.
_LAYOUT = 4
#: For checksums: bytes of a piece for one thread, bytes of a table, and 64-bit integers in a row of the table.
_PIECE, _TABLE, _ROW = 1 << 24, 1 << 18, 256


def write_pyramid(path: Path, pyramid: Pyramid) -> None:
    """Write a pyramid to a file; not atomic by itself."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {level.name: level.array for level in pyramid.levels}
    for name, known in pyramid.moments.items():
        tensors[f"{name}/mean"], tensors[f"{name}/covariance"] = known.mean, known.covariance
    header = {
        "layout": _LAYOUT,
        "digest": pyramid.digest,
        "image_grid": _grid_to_json(pyramid.image_grid),
        "network_grid": _grid_to_json(pyramid.network_grid),
        "provenance": dict(pyramid.provenance),
        "levels": [
            {"name": level.name, "weight": level.weight, "grid": _grid_to_json(level.grid)} for level in pyramid.levels
        ],
        "moments": {name: known.count for name, known in pyramid.moments.items()},
        "checksums": dict(zip(tensors, _checksums(list(tensors.values())), strict=True)),
    }
    text = json.dumps(header)
    # A single entry, since safetensors writes several in varying order: equal pyramids make equal files.
    save_file(tensors, path, metadata={"meddift": f"{zlib.crc32(text.encode()):08x}{text}"})


def read_pyramid(path: Path, key: str) -> Pyramid:
    """Read a pyramid from a file.

    The arrays are mapped copy-on-write, so that the file never changes through them.

    Args:
        path: The file.
        key: The digest that the pyramid must have.

    Raises:
        ValueError: if the file is damaged, of another layout, or of another key; other exceptions of the libraries
            that read it are possible too.
    """
    entry, tensors = _mapped_tensors(path)
    checksum, text = entry[:8], entry[8:]
    if f"{zlib.crc32(text.encode()):08x}" != checksum:
        raise ValueError("the checksum of its header is wrong")
    header = json.loads(text)
    if header["layout"] != _LAYOUT or header["digest"] != key:
        raise ValueError("it was written by another version, or for another scan")
    wanted = header["checksums"]
    for name, found in zip(wanted, _checksums([tensors[name] for name in wanted]), strict=True):
        if found != wanted[name]:
            raise ValueError(f"the checksum of {name} is wrong")
    levels = tuple(
        Level(one["name"], tensors[one["name"]], _grid_from_json(one["grid"]), one["weight"])
        for one in header["levels"]
    )
    moments = {
        name: Moments(count, tensors[f"{name}/mean"], tensors[f"{name}/covariance"])
        for name, count in header["moments"].items()
    }
    return Pyramid(
        levels,
        image_grid=_grid_from_json(header["image_grid"]),
        network_grid=_grid_from_json(header["network_grid"]),
        digest=header["digest"],
        provenance=header["provenance"],
        moments=moments,
    )


def _mapped_tensors(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """The metadata of a pyramid and the memory-mapped tensors of a safetensors file.

    The reader of the safetensors library copies every tensor. Format: eight bytes with the length of a JSON header,
    the header, the tensors (https://github.com/huggingface/safetensors#format).
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError("it is cut off")
        listed = json.loads(file.read(length))
        whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=np.uint8)
    entry = str(listed.pop("__metadata__")["meddift"])
    tensors: dict[str, NDArray[Any]] = {}
    for name, described in listed.items():
        dtype = np.dtype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[described["dtype"]])
        start, stop = (8 + length + offset for offset in described["data_offsets"])
        if not 0 <= start <= stop <= size:
            raise ValueError(f"{name} is cut off")
        tensors[name] = whole[start:stop].view(dtype).reshape(described["shape"])
    return entry, tensors


def _checksums(arrays: Sequence[NDArray[Any]]) -> list[int]:
    """A checksum for each array, computed on several threads.

    It detects flipped bits, missing pages, zeros in place of data, and exchanged parts.
    """
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    pieces = [(owner, part) for owner, data in enumerate(flat) for part in _pieces(data)]
    sums = [0] * len(flat)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for (owner, _), found in zip(pieces, pool.map(lambda piece: _checksum(piece[1]), pieces), strict=True):
            sums[owner] = zlib.crc32(found, sums[owner])
    return sums


def _pieces(data: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]


def _checksum(piece: NDArray[np.uint8]) -> bytes:
    """Row and column sums of the bytes, laid out as tables of 64-bit integers.

    Exchanging two words changes a sum or the order of the sums, of which a CRC is computed in the end. This is faster
    than a CRC of all bytes.
    """
    whole = len(piece) // _TABLE * _TABLE
    sums = []
    for start in range(0, whole, _TABLE):  # small enough to stay in the cache for both sums
        table = piece[start : start + _TABLE].view(np.uint64).reshape(-1, _ROW)
        sums += [np.add.reduce(table, axis=0), np.add.reduce(table, axis=1)]
    return b"".join([*(one.tobytes() for one in sums), piece[whole:].tobytes()])


def _grid_to_json(grid: Grid) -> dict[str, Any]:
    """A grid as JSON; floats keep every bit."""
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid_from_json(content: dict[str, Any]) -> Grid:
    """A grid from JSON."""
    shape = content["shape"]
    return Grid((shape[0], shape[1], shape[2]), content["affine"])
