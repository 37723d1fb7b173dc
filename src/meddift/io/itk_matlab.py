"""Transform files of ITK in MATLAB's format, level 4: `.mat`, as ANTs writes `0GenericAffine.mat`.

Format: The MathWorks, MAT-File Format, chapter 2 "Version 4 MAT-File Format". A transform is two matrices of one
column: its parameters under the name of its class, then the fixed ones under the name "fixed".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import TransformError
from meddift.io.compressed import AGAIN
from meddift.io.itk_records import MOST_RECORDS, Record, require_some
from meddift.system.memory import require_memory

_HEADER = 20
_LONGEST_NAME = 200
_PRECISIONS = {0: "f8", 1: "f4"}


def read_matlab_records(path: Path) -> list[Record]:
    """Read the transforms of a MATLAB file of level 4.

    Args:
        path: A file that exists.

    Raises:
        TransformError: if it is cut off, or something else stands in it.
    """
    require_memory(4 * path.stat().st_size, f"reading {path}")
    raw = path.read_bytes()
    if not raw:
        raise TransformError(f"{path} is empty (0 bytes). {AGAIN}")
    if raw.startswith(b"MATLAB 5.0"):
        raise TransformError(
            f"{path} is a MATLAB file of level 5; ITK and ANTs write transforms in level 4 (save -v4)"
        )
    found: list[Record] = []
    at = 0
    while at < len(raw) and len(found) <= MOST_RECORDS:
        name, parameters, at = _matrix(raw, at, path)
        second, fixed, at = _matrix(raw, at, path)
        if second != "fixed":
            raise TransformError(f"{path} is damaged: {second!r} stands where the fixed parameters should be. {AGAIN}")
        found.append(Record(name, parameters, fixed))
    require_some(found, path)
    return found


def _matrix(raw: bytes, at: int, path: Path) -> tuple[str, NDArray[np.floating], int]:
    """Name and numbers of the matrix at a place in the file, and where the next one begins."""
    if len(raw) - at < _HEADER:
        raise TransformError(f"{path} is cut off: a matrix is missing that belongs to a transform. {AGAIN}")
    order = "<" if int.from_bytes(raw[at : at + 4], "little") < 10_000 else ">"
    code, rows, columns, imaginary, length = (int(n) for n in np.frombuffer(raw, f"{order}i4", 5, at))
    # Thousands: order of bytes. Hundreds: 0, or 1 where rows come first, which is the same for one column.
    precision = _PRECISIONS.get(code % 100 // 10)
    if code not in {1000 * (order == ">") + 100 * rowwise + 10 * p for rowwise in (0, 1) for p in _PRECISIONS}:
        raise TransformError(f"{path} is not a transform in MATLAB's format (level 4), or damaged. {AGAIN}")
    if imaginary not in (0, 1) or not 2 <= length <= _LONGEST_NAME:
        raise TransformError(f"{path} is damaged: a matrix with a name of {length} letters makes no sense. {AGAIN}")
    if columns != 1 or rows < 0 or imaginary:
        raise TransformError(
            f"{path} holds a matrix of {rows} x {columns} numbers where one column of parameters should be. {AGAIN}"
        )
    at += _HEADER
    stored = np.dtype(f"{order}{precision}")
    if len(raw) - at < length + rows * stored.itemsize:
        raise TransformError(f"{path} is cut off: it announces {rows} numbers and does not hold them. {AGAIN}")
    name = raw[at : at + length].split(b"\0")[0].decode("ascii", errors="replace")
    values = np.frombuffer(raw, stored, rows, at + length)
    return name, values.astype(stored.newbyteorder("=")), at + length + rows * stored.itemsize
