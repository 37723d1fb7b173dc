"""Orientation of index axes: right or left, anterior or posterior, superior or inferior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError

_LETTERS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def closest_axes(direction: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Assign each index axis to a world axis: the assignment with the largest sum of absolute cosines.

    Args:
        direction: (3, 3) float64, unit vectors of the index axes as columns, RAS.

    Returns:
        For each index axis its world axis (each is used once), and the sign, 1 or -1, of its direction.
    """
    best = max(_ORDERS, key=lambda order: sum(abs(direction[order[i], i]) for i in range(3)))
    signs = tuple(1 if direction[best[i], i] >= 0 else -1 for i in range(3))
    return best, (signs[0], signs[1], signs[2])


def turned_axes(
    direction: NDArray[np.float64], orientation: str
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Permutation and flips that bring index axes closest to an orientation.

    Args:
        direction: (3, 3) float64, unit vectors of the index axes as columns, RAS.
        orientation: Three letters, one of each pair L/R, P/A, I/S.

    Returns:
        For each new axis the index axis from which it comes, and whether that is flipped.

    Raises:
        GeometryError: if `orientation` is not such three letters.
    """
    wanted = [_LETTERS.get(letter, (-1, 0)) for letter in orientation.upper()]
    if len(wanted) != 3 or {axis for axis, _ in wanted} != {0, 1, 2}:
        raise GeometryError(
            f'an orientation is three letters, one each of L/R, P/A and I/S, such as "RAS"; got {orientation!r}'
        )
    current, signs = closest_axes(direction)
    a, b, c = (current.index(axis) for axis, _ in wanted)
    flips = [signs[old] != sign for old, (_, sign) in zip((a, b, c), wanted, strict=True)]
    return (a, b, c), (flips[0], flips[1], flips[2])
