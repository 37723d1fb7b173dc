"""Readers that are wrong on purpose, to see that the harness notices."""

from __future__ import annotations

import ctypes
import warnings
from pathlib import Path

from meddift.errors import PointsError


def careful(path: Path) -> None:
    if path.read_bytes() != b"good":
        raise PointsError("damaged")


def of_other_people(path: Path) -> int:
    return {b"good": 1}[path.read_bytes()]


def warning(path: Path) -> None:
    if path.read_bytes() != b"good":
        warnings.warn("damaged", stacklevel=1)


def slow(path: Path) -> None:
    while path.read_bytes() != b"good":
        pass


def greedy(path: Path) -> int:
    return len(bytearray(1 if path.read_bytes() == b"good" else 300 << 20))


def dying(path: Path) -> None:
    if path.read_bytes() != b"good":
        ctypes.string_at(0)
