"""Planes across the world axes, drawn by the server for browsers without WebGL 2."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume

Plane = Literal["axial", "coronal", "sagittal"]

#: Plane -> world axis and sign to the right and upwards in the picture, and the axis normal to the plane. The
#: patient's right is on the left, as in radiology; in sagittal planes the front is on the left.
AXES: dict[str, tuple[tuple[int, int], tuple[int, int], int]] = {
    "axial": ((0, -1), (1, 1), 2),
    "coronal": ((0, -1), (2, 1), 1),
    "sagittal": ((1, -1), (2, 1), 0),
}


@dataclass(frozen=True)
class Box:
    """A box with edges along the world axes.

    Attributes:
        low: Smallest coordinates, world RAS mm.
        high: Largest coordinates, world RAS mm.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @classmethod
    def around(cls, grid: Grid) -> Box:
        """The smallest box that contains all voxel centres of a grid."""
        corners = grid.corners
        return cls(
            tuple(float(v) for v in corners.min(axis=0)),  # type: ignore[arg-type]
            tuple(float(v) for v in corners.max(axis=0)),  # type: ignore[arg-type]
        )


def draw_plane(
    volume: Volume, plane: Plane, position: NDArray[np.float64], *, pixels: int, low: float, high: float
) -> bytes:
    """Draw a plane of a scan, over the whole box around the scan.

    Args:
        volume: The scan, (X, Y, Z).
        plane: Name of the plane, a key of `AXES`.
        position: (3,) float64, point in the plane, world RAS mm.
        pixels: Number of pixels along the longer side.
        low: Intensity drawn black.
        high: Intensity drawn white.

    Returns:
        A PNG with 8-bit grey values; pixels outside the scan are black.

    Raises:
        OptionsError: if the window is empty.
    """
    if not high > low:
        raise OptionsError(f"a window needs a greatest value above its least, got {low:g} to {high:g}")
    flat, shape = cut(Box.around(volume.grid), plane, position, pixels=pixels)
    grey = np.clip((volume.at(flat) - low) / (high - low), 0, 1)
    grey[~volume.grid.contains(flat)] = 0.0
    return png(np.rint(255 * grey).astype(np.uint8).reshape(shape))


def draw_map(
    volume: Volume, box: Box, plane: Plane, position: NDArray[np.float64], *, pixels: int, low: float, high: float
) -> bytes:
    """Draw a plane of a similarity map, over the box around its scan.

    Args:
        volume: The map, (X, Y, Z) cosine.
        box: Box around the scan.
        plane: Name of the plane, a key of `AXES`.
        position: (3,) float64, point in the plane, world RAS mm.
        pixels: Number of pixels along the longer side.
        low: Cosine below which nothing is drawn.
        high: Cosine drawn in the brightest colour.

    Returns:
        A PNG with 8 bits per channel and transparency, in the colours that NiiVue uses for maps.
    """
    flat, shape = cut(box, plane, position, pixels=pixels)
    values = volume.at(flat)
    share = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    colours = np.zeros((len(flat), 4), dtype=np.uint8)
    colours[:, 0] = 255
    colours[:, 1] = np.rint(127 + 127 * share)
    colours[:, 3] = np.where((values >= low) & volume.grid.contains(flat), 140, 0)
    return png(colours.reshape(*shape, 4))


def cut(
    box: Box, plane: Plane, position: NDArray[np.float64], *, pixels: int
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Positions of the pixels of a plane, (N, 3) world RAS mm, row by row, and the number of rows and columns."""
    (right, right_sign), (up, up_sign), _ = AXES[plane]
    width, height = box.high[right] - box.low[right], box.high[up] - box.low[up]
    step = max(width, height) / pixels
    columns, rows = max(1, round(width / step)), max(1, round(height / step))
    across = (np.arange(columns) + 0.5) * (width / columns)
    down = (np.arange(rows) + 0.5) * (height / rows)
    positions = np.tile(np.asarray(position, dtype=np.float64), (rows, columns, 1))
    positions[..., right] = (box.high[right] - across if right_sign < 0 else box.low[right] + across)[None, :]
    positions[..., up] = (box.high[up] - down if up_sign > 0 else box.low[up] + down)[:, None]
    return positions.reshape(-1, 3), (rows, columns)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image, (rows, columns) grey or (rows, columns, 4) RGBA uint8, as PNG (W3C PNG, no filter)."""
    rows, columns = pixels.shape[:2]
    kind = 0 if pixels.ndim == 2 else 6

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = np.concatenate([np.zeros((rows, 1), dtype=np.uint8), pixels.reshape(rows, -1)], axis=1)
    stream = io.BytesIO()
    stream.write(b"\x89PNG\r\n\x1a\n")
    stream.write(chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, kind, 0, 0, 0)))
    stream.write(chunk(b"IDAT", zlib.compress(lines.tobytes(), 1)))
    stream.write(chunk(b"IEND", b""))
    return stream.getvalue()
