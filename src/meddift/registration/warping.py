"""Carrying images and label maps through a transform."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, OptionsError
from meddift.geometry import Grid, Transform, as_type, check_fill, nearest, sample
from meddift.points import holds_labels
from meddift.volume import Volume


def warp(
    image: Any,
    transform: Transform | Path | str,
    onto: Any,
    *,
    labels: bool = False,
    fill: float | None = None,
) -> Volume:
    """An image, or a label map, as it looks from the other scan, in one line.

    Args:
        image: A path, Volume or image in the world that `transform` leads to: the moving scan.
        transform: Takes points of `onto` to points of `image`, or the file of such a transform.
        onto: A Grid, or the scan on whose voxels values are wanted: the fixed scan.
        labels: Whether it is a label map, whose labels stay what they are.
        fill: What stands where the image shows nothing; None = its least value, or 0 for labels.

    Raises:
        MeddiftError: if a file cannot be read, or `image` is no label map.
    """
    from meddift.io import as_volume, read_transform

    source = as_volume(image, check=False)
    grid = onto if isinstance(onto, Grid) else as_volume(onto, check=False).grid
    through = read_transform(transform) if isinstance(transform, str | Path) else transform
    if labels:
        return warp_labels(source, through, grid, fill=0 if fill is None else fill)
    return warp_volume(source, through, grid, fill=fill)


def warp_volume(
    volume: Volume,
    transform: Transform,
    grid: Grid,
    *,
    fill: float | None = None,
    interpolation: Literal["linear", "nearest"] = "linear",
) -> Volume:
    """An image as it looks from the other scan: at every voxel of `grid` what lies where the transform takes it.

    Args:
        volume: (X, Y, Z) image in the world that `transform` leads to.
        transform: Takes points of the world of `grid` to points of the world of `volume`. To bring the moving scan
            onto the fixed one, that is the transform of a registration itself; for the other way its inverse.
        grid: Where values are wanted.
        fill: What stands where `volume` shows nothing; None = its least value (air, in CT).
        interpolation: Between voxels: trilinear, or the value of the nearest voxel.

    Returns:
        Volume on `grid`, of the type of `volume`: rounded and clipped for integers.

    Raises:
        GeometryError: if the type of `volume` cannot hold `fill`.
        OptionsError: if there is no such interpolation.
    """
    if interpolation not in ("linear", "nearest"):
        raise OptionsError(f"interpolation is linear or nearest, got {interpolation!r}")
    read = sample if interpolation == "linear" else nearest
    return _warped(volume, transform, grid, read, fill=float(volume.data.min()) if fill is None else fill)


def warp_labels(volume: Volume, transform: Transform, grid: Grid, *, fill: float = 0) -> Volume:
    """A label map as it looks from the other scan; every label stays what it is (nearest neighbour).

    Args:
        volume: (X, Y, Z) of integers, or of floats that are whole numbers.
        transform: As for `warp_volume`.
        grid: Where labels are wanted.
        fill: What stands where `volume` shows nothing.

    Raises:
        ImageError: if `volume` is no label map but an image of intensities.
        GeometryError: if `fill` is no whole number, or the type of `volume` cannot hold it.
    """
    require_labels(volume)
    check_fill(fill, volume.data.dtype if np.issubdtype(volume.data.dtype, np.integer) else np.int64)
    return _warped(volume, transform, grid, nearest, fill=fill)


def require_labels(volume: Volume, name: str = "this image") -> None:
    """Refuse an image of intensities where a label map is wanted.

    Args:
        volume: The image.
        name: What to call it in the message, such as its file.

    Raises:
        ImageError: if its values are not those of a label map.
    """
    if not holds_labels(volume.data):
        count = len(np.unique(volume.data))
        raise ImageError(
            f"{name} is no label map: its {count} different values are no whole numbers, or as mixed as grey values. "
            "Carry it as an image"
        )


def _warped(volume: Volume, transform: Transform, grid: Grid, read: Callable[..., Any], *, fill: float) -> Volume:
    check_fill(fill, volume.data.dtype)
    result: NDArray[Any] = np.empty(grid.shape, dtype=volume.data.dtype)
    for i, centres in enumerate(grid.planes()):
        index = volume.grid.world_to_index(transform.apply(centres.reshape(-1, 3)))
        result[i] = as_type(read(volume.data, index, fill=fill), result.dtype).reshape(grid.shape[1:])
    return Volume(result, grid)
