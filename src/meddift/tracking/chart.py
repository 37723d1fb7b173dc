"""Curves of size over time as SVG, readable with and without colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 92, 14, 40
#: Dash patterns that distinguish curves in addition to colour.
DASHES = ("", "7 4", "2 4", "9 3 2 3")
COLOURS = 8


@dataclass(frozen=True)
class Curve:
    """Sizes of one lesion over time.

    Attributes:
        name: Text at the end of the curve.
        points: (time, size) pairs, earliest first; time in any unit, size in mm.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DrawnCurve:
    """A curve in the coordinates of the picture.

    Attributes:
        name: Text at the end of the curve.
        path: SVG path of the curve.
        dots: x, y and description of each point.
        label: Position of the name.
        colour: Number of the colour, from 0.
        dash: Value of `stroke-dasharray`.
    """

    name: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    label: tuple[float, float]
    colour: int
    dash: str


@dataclass(frozen=True)
class Chart:
    """The elements of a chart in the coordinates of the picture.

    Attributes:
        curves: One for each lesion.
        ticks: y of each horizontal line, with its text in mm.
        days: x of each time point, with its name.
    """

    curves: tuple[DrawnCurve, ...]
    ticks: tuple[tuple[float, str], ...]
    days: tuple[tuple[float, str], ...]


def draw(curves: Sequence[Curve], times: Sequence[tuple[float, str]]) -> Chart | None:
    """Lay out a chart.

    Args:
        curves: The curves.
        times: Time of every time point, in the unit of the curves, and its name.

    Returns:
        The chart; None if there is nothing to draw.
    """
    values = [size for curve in curves for _, size in curve.points]
    if not values or len(times) < 2:
        return None
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if max(values) / s <= 6)
    top = step * (int(max(values) / step) + 1)
    first, last = times[0][0], times[-1][0]

    def x(time: float) -> float:
        return round(LEFT + (time - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)

    def y(size: float) -> float:
        return round(HEIGHT - BOTTOM - size / top * (HEIGHT - TOP - BOTTOM), 1)

    ends = _apart([y(curve.points[-1][1]) for curve in curves if curve.points])
    drawn = []
    for number, (curve, end) in enumerate(zip([c for c in curves if c.points], ends, strict=True)):
        dots = tuple((x(t), y(s), f"lesion {curve.name}: {s:.1f} mm") for t, s in curve.points)
        drawn.append(
            DrawnCurve(
                name=curve.name,
                path="M" + "L".join(f"{a} {b}" for a, b, _ in dots),
                dots=dots,
                label=(dots[-1][0] + 8, end),
                colour=number % COLOURS,
                dash=DASHES[number // COLOURS % len(DASHES)],
            )
        )
    ticks = tuple((y(value), str(value)) for value in range(0, top + 1, step))
    return Chart(tuple(drawn), ticks, tuple((x(time), name) for time, name in times))


def _apart(heights: Sequence[float], *, gap: float = 12.0) -> list[float]:
    """Vertical positions of labels, moved downwards so that none overlap."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    # Labels below the picture are moved up again.
    floor = float(HEIGHT - BOTTOM)
    for i in reversed(order):
        placed[i] = min(placed[i], floor)
        floor = placed[i] - gap
    return [round(value, 1) for value in placed]
