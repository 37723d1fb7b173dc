"""Colours, intensity windows and file output that all pictures share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meddift.errors import OptionsError
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKGROUND, TEXT, FAINT = "#0d1013", "#e8e6e0", "#8d929a"
#: Window for images in Hounsfield units that shows lung, vessels and bone.
HU_WINDOW = (-1000.0, 400.0)
#: Written under every picture.
NOTICE = "not for clinical use"


def _check_name(path: Path) -> None:
    """Raise OptionsError unless a file name ends with .png."""
    if path.suffix.lower() != ".png":
        raise OptionsError(f"pictures are written as .png, got {path.name!r}")


def save_picture(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, atomically; equal figures give equal bytes.

    Raises:
        OptionsError: if the name does not end with .png.
        OutputError: if the file cannot be written.
    """
    from meddift.system.atomic import atomic_write

    path = Path(path)
    _check_name(path)
    with atomic_write(path) as temporary:
        # Neither time nor version is written, so that equal figures make equal files.
        figure.savefig(temporary, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())


def new_figure(width: float, height: float, *, dpi: int) -> Figure:
    """An empty figure of a size in inches, without a window of the user interface."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    return figure


def window_of(volume: Volume) -> tuple[float, float]:
    """Intensities shown as black and as white: `HU_WINDOW` for Hounsfield units, else the 1st and 99th percentile."""
    data = volume.data.reshape(-1)
    sample = data[:: max(1, data.size // 200_000)]
    # Values at or below -900 (air) and above 0 (water) indicate Hounsfield units.
    if float(sample.min()) <= -900 and float(sample.max()) > 0:
        return HU_WINDOW
    low, high = (float(value) for value in np.percentile(sample, [1, 99]))
    return (low, high) if high > low else (low, low + 1)


def window_words(window: tuple[float, float]) -> str:
    """A window in words, for captions."""
    if window == HU_WINDOW:
        return f"window {window[0]:g} to {window[1]:g} HU"
    return f"window {window[0]:.4g} to {window[1]:.4g}"
