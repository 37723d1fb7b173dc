"""Curves of size over time as SVG, readable in colour and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 92, 14, 40
#: Dashes by which curves differ besides colour.
DASHES = ("", "7 4", "2 4", "9 3 2 3")
COLOURS = 8


@dataclass(frozen=True)
class Curve:
    """Sizes of one lesion.

    Attributes:
        name: What stands at its end.
        points: Time (any unit) and size in mm, earliest first.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DrawnCurve:
    """A curve in the coordinates of the picture.

    Attributes:
        name: As above.
        path: SVG path.
        dots: Places of its points, with what they are in words.
        label: Where its name stands.
        colour: Number of its colour, from 0.
        dash: `stroke-dasharray`.
    """

    name: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    label: tuple[float, float]
    colour: int
    dash: str


@dataclass(frozen=True)
class Chart:
    """Everything that the page draws.

    Attributes:
        curves: One a lesion.
        ticks: Heights of horizontal lines and their numbers, mm.
        days: Places of time points and their names.
    """

    curves: tuple[DrawnCurve, ...]
    ticks: tuple[tuple[float, str], ...]
    days: tuple[tuple[float, str], ...]


def draw(curves: Sequence[Curve], times: Sequence[tuple[float, str]]) -> Chart | None:
    """Lay out curves; None where there is nothing to draw.

    Args:
        curves: Of any number of lesions.
        times: Time of every time point, in the unit of the curves, and its name.
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
    """Heights of labels, moved so that none stands on another; from the top downwards."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    # Back into the picture from below.
    floor = float(HEIGHT - BOTTOM)
    for i in reversed(order):
        placed[i] = min(placed[i], floor)
        floor = placed[i] - gap
    return [round(value, 1) for value in placed]
