"""Longest diameter of a shape in a plane, and the longest diameter perpendicular to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Diameters:
    """Two perpendicular diameters of a shape in a plane.

    Attributes:
        long: Length of the longest diameter, mm.
        short: Length of the longest chord of the convex hull perpendicular to it, mm.
        long_ends: (2, 2) float64, ends of the longest diameter in the plane, mm.
        short_ends: (2, 2) float64, ends of the chord in the plane, mm.
    """

    long: float
    short: float
    long_ends: Floats
    short_ends: Floats


def diameters_of(hull: Floats) -> Diameters:
    """Longest diameter of a convex polygon, and the longest chord perpendicular to it.

    Args:
        hull: (N, 2) float, corners in order around the polygon, mm, N >= 3.
    """
    first, second = _farthest(hull)
    along = hull[second] - hull[first]
    length = float(np.hypot(*along))
    along = along / length
    across = np.array([-along[1], along[0]])
    # The length of the chord is linear between corners, so its maximum is at a corner.
    place, height = (hull - hull[first]) @ along, (hull - hull[first]) @ across
    low, high = _bounds_at(place, height, place)
    best = int(np.argmax(high - low))
    ends = hull[first] + np.outer([place[best]] * 2, along) + np.outer([low[best], high[best]], across)
    return Diameters(length, float(high[best] - low[best]), hull[[first, second]], ends)


def convex_hull(points: Floats) -> Floats:
    """(M, 2) corners of the convex hull of (N, 2) points, counter-clockwise; A. M. Andrew's monotone chain (1979)."""
    ordered = np.unique(points, axis=0)

    def chain(rows: Floats) -> list[Floats]:
        kept: list[Floats] = []
        for point in rows:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], point) <= 0:
                kept.pop()
            kept.append(point)
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def _turn(first: Floats, second: Floats, third: Floats) -> float:
    """Positive where the path first, second, third turns left."""
    return float((second[0] - first[0]) * (third[1] - first[1]) - (second[1] - first[1]) * (third[0] - first[0]))


def _farthest(hull: Floats) -> tuple[int, int]:
    """The two corners farthest apart, by rotating calipers (M. I. Shamos 1978): opposite corners, edge by edge."""
    count = len(hull)
    best, pair, opposite = -1.0, (0, 1), 1
    for i in range(count):
        following = (i + 1) % count
        edge = hull[following] - hull[i]

        def height(j: int, edge: Floats = edge, i: int = i) -> float:
            away = hull[j % count] - hull[i]
            return float(edge[0] * away[1] - edge[1] * away[0])

        while height(opposite + 1) > height(opposite):
            opposite += 1
        # With parallel edges the next corner is opposite too.
        for j in (opposite % count, (opposite + 1) % count):
            for corner in (i, following):
                distance = float(np.hypot(*(hull[j] - hull[corner])))
                if distance > best:
                    best, pair = distance, (corner, j)
    return pair


def _bounds_at(place: Floats, height: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Smallest and largest height of a convex polygon at given coordinates along an axis."""
    low, high = np.full(len(wanted), np.inf), np.full(len(wanted), -np.inf)
    for a, b in zip(range(len(place)), [*range(1, len(place)), 0], strict=True):
        left, right = min(place[a], place[b]), max(place[a], place[b])
        rows = (wanted >= left) & (wanted <= right)
        if right > left:
            values = height[a] + (wanted[rows] - place[a]) / (place[b] - place[a]) * (height[b] - height[a])
            low[rows], high[rows] = np.minimum(low[rows], values), np.maximum(high[rows], values)
        else:
            low[rows] = np.minimum(low[rows], min(height[a], height[b]))
            high[rows] = np.maximum(high[rows], max(height[a], height[b]))
    return low, high
