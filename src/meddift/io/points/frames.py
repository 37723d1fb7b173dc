"""From the frame of a points file to world RAS mm and back. A frame is never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import FrameError, OptionsError
from meddift.geometry import Grid, flip_ras_lps
from meddift.io.points.content import Frame

#: Meaning of each frame, for messages.
FRAMES: dict[str, str] = {
    "lps": "mm, x grows to the left, y to the back (ITK, elastix, ANTs, 3D Slicer since 2020)",
    "ras": "mm, x grows to the right, y to the front (nibabel, FreeSurfer, 3D Slicer before 2020)",
    "voxel": "voxel indices counted from 0 (nibabel, Learn2Reg)",
    "voxel1": "voxel indices counted from 1 (DIR-Lab, MATLAB)",
}


def parse_space(space: str | None) -> Frame | None:
    """The frame that a caller names, whatever its case.

    Raises:
        OptionsError: if it is none of the four.
    """
    match None if space is None else str(space).lower():
        case None:
            return None
        case "ras" | "lps" | "voxel" | "voxel1" as frame:
            return frame
    raise OptionsError(f"the space of points is one of {', '.join(FRAMES)}; got {space!r}")


def settle_frame(declared: Frame | None, space: Frame | None, path: Path) -> Frame:
    """The frame of a file from what the file says and what the caller says.

    Raises:
        FrameError: if neither says it, or they contradict each other.
    """
    if declared is None and space is None:
        choices = "; ".join(f"{name} = {meaning}" for name, meaning in FRAMES.items())
        raise FrameError(
            f"{path} does not say which frame its coordinates are in, and a wrong guess would show the wrong place. "
            f"Name it with --points-space {{lps,ras,voxel,voxel1}} (in Python: space=...): {choices}"
        )
    if declared is not None and space is not None and declared != space:
        raise FrameError(
            f"{path} says that its coordinates are {declared}, but {space} was asked for. What a file says is never "
            f"overridden: leave --points-space away, or correct the file"
        )
    return declared or space  # type: ignore[return-value]


def to_world(coordinates: NDArray[np.float64], frame: Frame, grid: Grid | None, path: Path) -> NDArray[np.float64]:
    """Coordinates of a file as world RAS mm.

    Args:
        coordinates: (N, 3) float64 in `frame`.
        frame: Their frame.
        grid: The grid of the image that voxel indices belong to.
        path: The file, for the message.

    Returns:
        (N, 3) float64, world RAS mm.

    Raises:
        FrameError: if the frame is voxels and there is no grid.
    """
    if frame == "ras":
        return coordinates
    if frame == "lps":
        return flip_ras_lps(coordinates)
    return _needed(grid, frame, path).index_to_world(coordinates - (1.0 if frame == "voxel1" else 0.0))


def from_world(positions: NDArray[np.float64], frame: Frame, grid: Grid | None, path: Path) -> NDArray[np.float64]:
    """World RAS mm as coordinates for a file; the inverse of `to_world`, with the same errors."""
    if frame == "ras":
        return positions
    if frame == "lps":
        return flip_ras_lps(positions)
    return _needed(grid, frame, path).world_to_index(positions) + (1.0 if frame == "voxel1" else 0.0)


def _needed(grid: Grid | None, frame: Frame, path: Path) -> Grid:
    """The grid, or an error that says why there must be one."""
    if grid is None:
        raise FrameError(
            f"{path} holds voxel indices ({frame}), which mean nothing without the image they were counted in: "
            "give that image too (--image; where points are warped --onto: the fixed scan, with --inverse the moving "
            "one; in Python: grid=read_volume(image).grid)"
        )
    return grid
