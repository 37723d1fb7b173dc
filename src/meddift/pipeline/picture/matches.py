"""Chosen points on fixed and moving slices in three planes, with letters, cross-hairs and a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError
from meddift.matching.matches import Matches
from meddift.pipeline.picture.style import BACKGROUND, FAINT, NOTICE, TEXT, new_figure, window_of, window_words
from meddift.points import Points
from meddift.system.text import one_line
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_CROSS = "#ffb000"
_TRUTH = "#36d1ff"
_VERDICT = {"ok": "#5ddc87", "uncertain": "#ffd23f", "outside": "#ff6b6b"}

#: Part of the picture around a point, mm: far enough to see where in the body it is.
_FIELD_MM = 150.0
#: Length of the scale bar, mm.
_BAR_MM = 50.0
#: Half the gap in the middle of a cross-hair and the length of each of its arms, mm.
_GAP_MM, _ARM_MM = 5.0, 16.0
#: Pixels of a plane along one axis.
_PIXELS = 300


@dataclass(frozen=True)
class _Plane:
    """One of the three planes in radiological convention: seen from the feet, from the front, from the left.

    Attributes:
        name: Name in the picture.
        across: World axis of the horizontal direction, and 1 if it increases to the right, -1 if to the left.
        up: World axis of the vertical direction, and 1 if it increases upwards.
        letters: Letters at the left, right, lower and upper edge.
    """

    name: str
    across: tuple[int, int]
    up: tuple[int, int]
    letters: str


#: The patient's right is at the left of the picture.
_PLANES = (
    _Plane("axial", (0, -1), (1, 1), "RLPA"),
    _Plane("coronal", (0, -1), (2, 1), "RLIS"),
    _Plane("sagittal", (1, -1), (2, 1), "APIS"),
)


def draw_matches(
    fixed: Volume, moving: Volume, matches: Matches, *, truth: Points | None = None, count: int = 4
) -> Figure:
    """Draw six slices, three of each scan, for each of some matches.

    Slices run along the world axes (RAS) through the point, whatever the orientation of the scans, and show 150 mm
    around it. Radiological convention: the patient's right is at the left.

    Args:
        fixed: The fixed scan.
        moving: The moving scan.
        matches: The matches, of which some are chosen by `choose_rows`.
        truth: True positions on the moving scan, world RAS mm, in the order of the matches; drawn in another color.
        count: Number of matches to draw.

    Returns:
        A matplotlib Figure; `save_picture` writes it.

    Raises:
        OptionsError: if `count` is below 1.
    """
    if count < 1:
        raise OptionsError(f"at least one point must be drawn, got {count}")
    rows = choose_rows(matches, count)
    panel, left, top, foot = 2.05, 0.12, 0.62, 0.42
    caption, between = 0.36, 0.26
    height = top + foot + len(rows) * (panel + caption)
    width = left * 2 + 6 * panel + 5 * 0.06 + between
    figure = new_figure(width, height, dpi=120)
    windows = [window_of(fixed), window_of(moving)]

    def x_of(column: int) -> float:
        return left + column * (panel + 0.06) + (between if column >= 3 else 0.0)

    for side, name in enumerate(("fixed", "moving")):
        middle = (x_of(3 * side) + x_of(3 * side + 2) + panel) / 2 / width
        figure.text(middle, 1 - 0.2 / height, name, color=TEXT, size=13, ha="center", va="center", weight="bold")
        for column, plane in enumerate(_PLANES):
            middle = (x_of(3 * side + column) + panel / 2) / width
            figure.text(middle, 1 - 0.45 / height, plane.name, color=FAINT, size=9, ha="center", va="center")
    for number, row in enumerate(rows):
        low = height - top - (number + 1) * (panel + caption)
        _write_caption(figure, matches, row, truth, at=(left / width, (low + panel + caption / 2) / height))
        places = (matches.fixed.positions[row], matches.moving.positions[row])
        goal = None if truth is None else truth.positions[row]
        for column in range(6):
            side = column // 3
            axes = figure.add_axes((x_of(column) / width, low / height, panel / width, panel / height))
            _draw_plane(
                axes,
                (fixed, moving)[side],
                _PLANES[column % 3],
                places[side],
                truth=goal if side == 1 else None,
                window=windows[side],
                bar=column == 0,
            )
    foot_text = "radiological display: patient's right at the left; cross-hair: point"
    foot_text += "; blue ring: true place" if truth is not None else ""
    foot_text += f"; {window_words(windows[0])}; {NOTICE}"
    figure.text(left / width, 0.2 / height, foot_text, color=FAINT, size=8, ha="left", va="center")
    return figure


def choose_rows(matches: Matches, count: int) -> list[int]:
    """Choose matches to draw: some of every verdict that occurs, spread evenly over the range of similarity.

    Points without a position on the fixed scan are left out.

    Args:
        matches: The matches.
        count: Largest number of rows.

    Returns:
        Row numbers, those with the verdict "ok" first.
    """
    usable = ~matches.fixed.missing
    groups = {
        verdict: [i for i in range(len(matches)) if usable[i] and matches.verdict[i] == verdict]
        for verdict in ("ok", "uncertain", "outside")
    }
    shares = _shares([len(group) for group in groups.values()], count)
    chosen = []
    for group, share in zip(groups.values(), shares, strict=True):
        ranked = sorted(group, key=lambda i: -np.nan_to_num(matches.similarity[i], nan=-np.inf))
        at = np.linspace(0, len(ranked) - 1, share).round().astype(int) if share > 1 else [len(ranked) // 2] * share
        chosen += [ranked[i] for i in at]
    return chosen


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Divide `count` among groups: one for each group, the rest in proportion to size (Webster's method)."""
    shares = [0] * len(sizes)
    for _ in range(min(count, sum(sizes))):
        # The group with the largest quotient is next; groups without any come first.
        weight = [size / (2 * share + 1) if share else np.inf for size, share in zip(sizes, shares, strict=True)]
        open_groups = [i for i, size in enumerate(sizes) if shares[i] < size]
        shares[max(open_groups, key=lambda i: weight[i])] += 1
    return shares


def _write_caption(
    figure: Figure, matches: Matches, row: int, truth: Points | None, *, at: tuple[float, float]
) -> None:
    """Write label, verdict and numbers of one match above its row."""
    verdict = matches.verdict[row]
    label = matches.fixed.labels[row]
    parts = []
    if np.isfinite(matches.similarity[row]):
        parts.append(f"similarity {matches.similarity[row]:.3f}")
    if np.isfinite(matches.inverse_error_mm[row]):
        parts.append(f"back within {matches.inverse_error_mm[row]:.1f} mm")
    if truth is not None:
        error = float(np.linalg.norm(matches.moving.positions[row] - truth.positions[row]))
        if np.isfinite(error):
            parts.append(f"error {error:.1f} mm")
    if matches.reason[row]:
        parts.append(matches.reason[row])
    words = [(_shortened(one_line(label), 28), TEXT, "bold"), (verdict, _VERDICT[verdict], "bold")]
    words.append((_shortened("   ".join(parts), 130), FAINT, "normal"))
    x, y = at
    canvas: Any = figure.canvas
    for text, color, weight in words:
        drawn = figure.text(x, y, text, color=color, size=9.5, ha="left", va="center", weight=weight, parse_math=False)
        box = drawn.get_window_extent(canvas.get_renderer())
        x = box.x1 / figure.bbox.width + 0.012


def _draw_plane(
    axes: Axes,
    volume: Volume,
    plane: _Plane,
    place: Floats,
    *,
    truth: Floats | None,
    window: tuple[float, float],
    bar: bool,
) -> None:
    """Draw one slice through a point."""
    axes.set_axis_off()
    half = _FIELD_MM / 2
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_aspect("equal")
    found = bool(np.isfinite(place).all())
    center = place if found else truth
    if center is None or not np.isfinite(center).all():
        axes.text(0, 0, "no answer", color=FAINT, size=10, ha="center", va="center")
        return
    axes.imshow(
        _slice(volume, plane, center),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        extent=(-half, half, -half, half),
        origin="lower",
        interpolation="bilinear",
    )
    if found:
        _draw_cross(axes)
    else:
        _write(axes, 0, -0.84 * half, "no answer; this is the true place", size=7)
    if truth is not None and np.isfinite(truth).all():
        offset = truth - center
        across, up = offset[plane.across[0]] * plane.across[1], offset[plane.up[0]] * plane.up[1]
        # A true position outside the picture is not drawn; the caption says the error.
        if max(abs(across), abs(up)) < 0.95 * half:
            axes.plot([across], [up], "o", ms=11, mfc="none", mec=_TRUTH, mew=1.1)
    edge = 0.93 * half
    for letter, (x, y) in zip(plane.letters, ((-edge, 0), (edge, 0), (0, -edge), (0, edge)), strict=True):
        _write(axes, x, y, letter, size=8)
    if bar:
        low = -0.87 * half
        for color, width in ((BACKGROUND, 3.4), (TEXT, 1.6)):
            axes.plot([-edge, -edge + _BAR_MM], [low, low], color=color, lw=width, solid_capstyle="butt")
        _write(axes, -edge + _BAR_MM / 2, low + 0.07 * half, f"{_BAR_MM:g} mm", size=6.5)


def _slice(volume: Volume, plane: _Plane, center: Floats) -> NDArray[np.float64]:
    """(pixels, pixels) float64 intensities around a point, rows from bottom to top; NaN outside the scan."""
    step = _FIELD_MM / _PIXELS
    along = (np.arange(_PIXELS) + 0.5) * step - _FIELD_MM / 2
    world = np.broadcast_to(center, (_PIXELS, _PIXELS, 3)).copy()
    world[..., plane.across[0]] += plane.across[1] * along[None, :]
    world[..., plane.up[0]] += plane.up[1] * along[:, None]
    flat = world.reshape(-1, 3)
    values = volume.at(flat)
    values[~volume.grid.contains(flat)] = np.nan
    return np.asarray(values.reshape(_PIXELS, _PIXELS))


def _write(axes: Axes, x: float, y: float, text: str, *, size: float) -> None:
    """Write text with a dark outline, readable on bright and dark tissue."""
    from matplotlib.patheffects import withStroke

    rim = withStroke(linewidth=1.8, foreground=BACKGROUND)
    axes.text(x, y, text, color=TEXT, size=size, ha="center", va="center", path_effects=[rim])


def _draw_cross(axes: Axes) -> None:
    """Draw a thin cross-hair with a free centre, so that the anatomy at the point stays visible."""
    near, far = _GAP_MM, _GAP_MM + _ARM_MM
    for xs, ys in (((near, far), (0, 0)), ((-far, -near), (0, 0)), ((0, 0), (near, far)), ((0, 0), (-far, -near))):
        axes.plot(xs, ys, color=_CROSS, lw=0.9, alpha=0.95, solid_capstyle="butt")


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
