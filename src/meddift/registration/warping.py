"""Resampling images and label maps through a transform."""

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
    """Resample an image or label map to the grid of another scan.

    Args:
        image: A path, `Volume` or image in the world to which `transform` maps: the moving scan.
        transform: A transform from points of `onto` to points of `image`, or the path of its file.
        onto: A `Grid`, or a scan whose grid is used: the fixed scan.
        labels: Whether `image` is a label map (nearest-neighbour interpolation).
        fill: Value outside the image; None = its smallest value, or 0 for labels.

    Returns:
        Volume on the grid of `onto`, of the type of `image`.

    Raises:
        MeddiftError: if a file cannot be read, or `image` is not a label map although `labels` is set.
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
    """Resample an image through a transform.

    Args:
        volume: (X, Y, Z) image in the world to which `transform` maps.
        transform: A transform from the world of `grid` to the world of `volume`. To resample the moving scan on the
            grid of the fixed scan, this is the transform of a registration; for the opposite direction its inverse.
        grid: Grid of the result.
        fill: Value outside `volume`; None = its smallest value (air in CT).
        interpolation: "linear" (trilinear), or "nearest".

    Returns:
        Volume on `grid`, of the type of `volume`; integers are rounded and clipped.

    Raises:
        GeometryError: if the type of `volume` cannot hold `fill`.
        OptionsError: if the interpolation is unknown.
    """
    if interpolation not in ("linear", "nearest"):
        raise OptionsError(f"interpolation is linear or nearest, got {interpolation!r}")
    read = sample if interpolation == "linear" else nearest
    return _warped(volume, transform, grid, read, fill=float(volume.data.min()) if fill is None else fill)


def warp_labels(volume: Volume, transform: Transform, grid: Grid, *, fill: float = 0) -> Volume:
    """Resample a label map through a transform with nearest-neighbour interpolation.

    Args:
        volume: (X, Y, Z), integers, or floats that are whole numbers.
        transform: As for `warp_volume`.
        grid: Grid of the result.
        fill: Value outside `volume`.

    Returns:
        Volume on `grid`, of the type of `volume`.

    Raises:
        ImageError: if `volume` is not a label map but an image of intensities.
        GeometryError: if `fill` is not a whole number, or the type of `volume` cannot hold it.
    """
    require_labels(volume)
    check_fill(fill, volume.data.dtype if np.issubdtype(volume.data.dtype, np.integer) else np.int64)
    return _warped(volume, transform, grid, nearest, fill=fill)


def require_labels(volume: Volume, name: str = "this image") -> None:
    """Check that a volume is a label map.

    Args:
        volume: The volume.
        name: Its name in the message, such as its path.

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
