"""Small pictures of lesions: a slice of the scan with the outline of the mask."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.tracking.candidates import Candidate
from meddift.tracking.measures import slice_axis
from meddift.volume import Volume

Floats = NDArray[np.float64]

#: Pixels along each side of a picture.
PIXELS = 112
#: Smallest width of a picture, mm, and its width as a multiple of the longest diameter.
LEAST_MM, AROUND = 48.0, 2.6
#: For the world axis perpendicular to a plane: its name, and the world axes that run to the right and downwards in the
#: picture with their signs. Radiological convention, patient's right at the left.
_PLANES = {
    0: ("sagittal", (1, -1), (2, -1)),
    1: ("coronal", (0, -1), (2, -1)),
    2: ("axial", (0, -1), (1, -1)),
}


@dataclass(frozen=True)
class Crop:
    """A picture of one lesion at one time point.

    Attributes:
        png: The picture as a `data:` URL.
        outline: SVG path of the mask's outline in pixels; "" without a mask.
        cross: Pixel coordinates of a marker at the position, without a mask; None with one.
        plane: "axial", "coronal" or "sagittal".
        width_mm: Width of the picture, mm.
        window: The intensity window in words.
    """

    png: str
    outline: str
    cross: tuple[float, float] | None
    plane: str
    width_mm: float
    window: str


def best_plane(grid: Grid) -> int:
    """World axis (0, 1, 2) closest to the direction perpendicular to the slices of a scan."""
    return int(np.argmax(np.abs(grid.direction[:, slice_axis(grid)])))


def crop(
    scan: Volume, place: Floats, *, axis: int, width_mm: float, parts: list[Candidate], mask: Grid | None
) -> Crop:
    """Draw a slice of a scan through a point.

    Args:
        scan: The scan.
        place: (3,) float64, the point, world RAS mm.
        axis: World axis perpendicular to the slice.
        width_mm: Width and height of the picture, mm.
        parts: Parts of the lesion; empty if only its position is known.
        mask: Grid of the parts' voxels; None without a mask.
    """
    name, right, down = _PLANES[axis]
    steps = (np.arange(PIXELS) - (PIXELS - 1) / 2) * (width_mm / PIXELS)
    positions = np.tile(place, (PIXELS, PIXELS, 1))
    positions[..., right[0]] += right[1] * steps[None, :]
    positions[..., down[0]] += down[1] * steps[:, None]
    flat = positions.reshape(-1, 3)
    values = scan.at(flat).reshape(PIXELS, PIXELS)
    shown = scan.grid.contains(flat).reshape(PIXELS, PIXELS)
    low, high, words = _window(scan, values[shown])
    grey = np.clip((values - low) / (high - low), 0, 1)
    grey[~shown] = 0.0
    outline = _outline(parts, mask, flat) if parts and mask is not None else ""
    middle = (PIXELS - 1) / 2
    return Crop(_png(grey), outline, None if outline else (middle, middle), name, width_mm, words)


def _window(scan: Volume, values: Floats) -> tuple[float, float, str]:
    """Lower and upper intensity and name of the window: for CT lung or soft tissue, else the range of the picture."""
    if not values.size:
        return 0.0, 1.0, ""
    if scan.data.min() > -900:  # no air: not in Hounsfield units
        low, high = np.percentile(values, [1, 99])
        return float(low), float(max(high, low + 1)), "1st to 99th percentile"
    if np.median(values) < -400:
        return -1350.0, 150.0, "lung, -1350 to 150 HU"
    return -160.0, 240.0, "soft tissue, -160 to 240 HU"


def _png(grey: Floats) -> str:
    from matplotlib import image

    stream = io.BytesIO()
    image.imsave(stream, np.rint(255 * grey).astype(np.uint8), cmap="gray", vmin=0, vmax=255, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _outline(parts: list[Candidate], mask: Grid, flat: Floats) -> str:
    """Outline of the mask in the picture, as an SVG path."""
    from contourpy import contour_generator

    inside = np.zeros(mask.shape, dtype=bool)
    for part in parts:
        inside[tuple(part.voxels.T)] = True
    index = np.rint(mask.world_to_index(flat)).astype(np.int64)
    there = ((index >= 0) & (index < mask.shape)).all(axis=1)
    flags = np.zeros(len(flat))
    flags[there] = inside[tuple(index[there].T)]
    if not flags.any():
        return ""
    padded = np.pad(flags.reshape(PIXELS, PIXELS), 1)
    lines = contour_generator(z=padded).lines(0.5)
    return " ".join(
        "M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in np.asarray(line)) + "Z" for line in lines
    )


def place_of_cut(parts: list[Candidate], place: Floats) -> Floats:
    """(3,) world RAS mm: the middle of the longest diameter of the largest part, or `place` without a mask."""
    measured = [part for part in parts if part.measures is not None]
    if not measured:
        return place
    largest = max(measured, key=lambda part: part.radius_mm)
    assert largest.measures is not None
    ends = largest.measures.long_ends.mean(axis=0)
    if len(parts) == 1:
        return np.asarray(ends)
    # With several parts, the centre of the whole.
    return place
