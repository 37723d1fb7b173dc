"""Figures of the report as SVG text; equal results give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from meddift.system.text import one_line
from meddift_lab.running.tables import CaseRow, Tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colors of meddift's own methods (Okabe and Ito 2008), and of the others in the order of tables (Tol's muted set).
_OWN = {"meddift": "#d55e00", "meddift-register": "#0072b2", "meddift-paper": "#cc79a7", "mind": "#e69f00"}
_OTHERS = (
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#661100",
    "#882255",
    "#332288",
    "#6e6e6e",
    "#aa4499",
    "#000000",
)
_DASHES = ("-", "--", ":", "-.")
#: Lower limit of errors on logarithmic axes, mm; smaller errors are drawn at this value.
_LEAST_MM = 0.05


def colors(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Color and line style of every method."""
    others = [name for name in methods if name not in _OWN]
    return {
        name: (_OWN[name], "-")
        if name in _OWN
        else (
            _OTHERS[others.index(name) % len(_OTHERS)],
            _DASHES[1 + others.index(name) // len(_OTHERS)]
            if others.index(name) >= len(_OTHERS)
            else ("--" if others.index(name) % 2 else "-"),
        )
        for name in methods
    }


def _style_of(tables: Tables) -> dict[str, tuple[str, str]]:
    """Colors and line styles of the methods, the same in all figures of a report."""
    return colors(list(dict.fromkeys(row.method for row in tables.method_rows)))


def per_case_dots(tables: Tables, kind: str) -> str:
    """Mean TRE of every case, one line per method; the bar is the confidence interval of the mean over cases."""
    rows = [row for row in tables.method_rows if row.kind == kind and row.mean_mm is not None]

    def draw(axes: Axes) -> None:
        style = _style_of(tables)
        for place, row in enumerate(reversed(rows)):
            color = style[row.method][0]
            values = [r.errors.mean for r in tables.rows(kind, row.method) if r.errors.mean is not None]
            shown = np.maximum(values, _LEAST_MM)
            spread = (np.arange(len(shown)) / max(len(shown) - 1, 1) - 0.5) * 0.36
            axes.plot(shown, place + spread, "o", ms=3.6, mfc="none", mec=color, mew=0.9)
            interval = row.mean_mm
            if interval is None:
                continue
            mean = max(interval.mean, _LEAST_MM)
            axes.plot([mean], [place], "|", ms=15, mew=2.2, color=color)
            if interval.low is not None and interval.high is not None:
                axes.plot(
                    [max(interval.low, _LEAST_MM), interval.high], [place, place], lw=2.2, color=color, alpha=0.45
                )
        axes.set_yticks(range(len(rows)), _shown(row.title for row in reversed(rows)))
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel("mean TRE of a case, mm (logarithmic)")
        _logarithmic(axes, "x")
        axes.grid(axis="x", lw=0.4, color="#cccccc")

    return _svg(draw, height=1.0 + 0.3 * len(rows))


def cumulative_errors(tables: Tables, kind: str) -> str:
    """Fraction of points with an error below a distance, as a function of it; every case has equal weight."""
    names = [row.method for row in tables.method_rows if row.kind == kind and row.mean_mm is not None]
    titles = {row.method: one_line(row.title) for row in tables.method_rows}

    def draw(axes: Axes) -> None:
        limits = np.geomspace(0.1, 60, 240)
        style = _style_of(tables)
        for name in sorted(names, key=lambda name: name in _OWN):
            rows = tables.rows(kind, name)
            shares = np.mean([[(row.distances <= limit).mean() for limit in limits] for row in rows], axis=0)
            color, dash = style[name]
            axes.plot(limits, 100 * shares, dash, color=color, lw=2.4 if name in _OWN else 1.3, label=titles[name])
        axes.set_xlabel("within, mm (logarithmic)")
        axes.set_ylabel("points, %")
        axes.set_ylim(0, 101)
        axes.set_xlim(limits[0], limits[-1])
        _logarithmic(axes, "x")
        axes.grid(lw=0.4, color="#cccccc")
        _legend_below(axes, names, titles)

    return _svg(draw, height=3.1 + 0.11 * len(names))


def error_against_displacement(tables: Tables, kind: str) -> str:
    """Median error as a function of the true displacement of points."""
    names = [row.method for row in tables.method_rows if row.kind == kind and row.mean_mm is not None]
    names = [name for name in names if name != "identity"]
    titles = {row.method: one_line(row.title) for row in tables.method_rows}

    def draw(axes: Axes) -> None:
        every = [row for row in tables.case_rows if row.kind == kind]
        moved = np.concatenate([row.moved for row in every])
        edges = np.unique(np.quantile(moved, np.linspace(0, 1, 7)))
        style = _style_of(tables)
        for name in sorted(names, key=lambda name: name in _OWN):
            x, y = _binned_median(tables.rows(kind, name), edges)
            color, dash = style[name]
            width = 2.4 if name in _OWN else 1.3
            axes.plot(x, np.maximum(y, _LEAST_MM), dash, marker="o", ms=3, color=color, lw=width, label=titles[name])
        axes.set_xlabel("how far points move, mm (six groups of equal size)")
        axes.set_ylabel("median error, mm (logarithmic)")
        _logarithmic(axes, "y")
        axes.grid(lw=0.4, color="#cccccc")
        _legend_below(axes, names, titles)

    return _svg(draw, height=3.1 + 0.11 * len(names))


def heat_map(values: Mapping[tuple[str, str], float], rows: Sequence[str], columns: Sequence[str], label: str) -> str:
    """A heat map with the number written in each cell; cells without a value are empty."""

    def draw(axes: Axes) -> None:
        data = np.array([[values.get((row, column), np.nan) for column in columns] for row in rows])
        finite = data[np.isfinite(data)]
        low, high = np.log(max(finite.min(), _LEAST_MM)), np.log(max(finite.max(), 2 * _LEAST_MM))
        axes.imshow(np.log(np.maximum(data, _LEAST_MM)), cmap="cividis_r", vmin=low, vmax=max(high, low + 1e-6))
        for i, line in enumerate(data):
            for j, value in enumerate(line):
                if np.isfinite(value):
                    dark = np.log(max(value, _LEAST_MM)) > (low + high) / 2
                    axes.text(
                        j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black", size=8
                    )
        axes.set_xticks(range(len(columns)), _shown(columns))
        axes.set_yticks(range(len(rows)), _shown(rows))
        axes.set_xlabel(label)

    return _svg(draw, height=1.0 + 0.42 * len(rows))


def bars(values: Sequence[tuple[str, float, float | None, float | None]], label: str, *, marked: str | None) -> str:
    """Means with confidence intervals, one line each; `marked` names the base that the others vary."""

    def draw(axes: Axes) -> None:
        for place, (name, mean, low, high) in enumerate(reversed(values)):
            color = "#d55e00" if name == marked else "#0072b2"
            axes.plot([mean], [place], "o", ms=5, color=color)
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], lw=2, color=color, alpha=0.5)
        axes.set_yticks(range(len(values)), _shown(name for name, *_ in reversed(values)))
        axes.set_ylim(-0.6, len(values) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.grid(axis="x", lw=0.4, color="#cccccc")

    return _svg(draw, height=0.9 + 0.27 * len(values))


def _shown(names: Iterable[str]) -> list[str]:
    """Names of cases and methods, which may come from files, made safe for drawing."""
    return [one_line(name) for name in names]


def _binned_median(rows: Sequence[CaseRow], edges: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[float]]:
    """Centre and median error of each bin of displacements, mm."""
    moved = np.concatenate([row.moved for row in rows])
    errors = np.concatenate([row.distances for row in rows])
    group = np.clip(np.searchsorted(edges, moved, side="right") - 1, 0, max(len(edges) - 2, 0))
    x, y = [], []
    for number in range(max(len(edges) - 1, 1)):
        inside = (group == number) & ~np.isnan(errors)
        if inside.any():
            x.append(float(np.median(moved[inside])))
            y.append(float(np.median(errors[inside])))
    return np.array(x), y


def _logarithmic(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at the ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend_below(axes: Axes, names: Sequence[str], titles: Mapping[str, str]) -> None:
    """Draw a legend below the axes, with methods in the order of the tables."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    ordered = [titles[name] for name in names if titles[name] in found]
    axes.legend(
        [found[title] for title in ordered],
        ordered,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.16),
        fontsize=8,
        ncol=2,
        frameon=False,
    )


def _svg(draw: Callable[[Axes], None], *, height: float, width: float = 5.4) -> str:
    """Draw one figure and return its <svg> element."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "meddift", "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False,
                "text.parse_math": False}  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(
            stream, format="svg", bbox_inches="tight", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = stream.getvalue()
    return text[text.index("<svg") :]
