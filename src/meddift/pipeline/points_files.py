"""Reading points files that belong to a scan of a pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from meddift.errors import FrameError, PointsError

if TYPE_CHECKING:
    from meddift.geometry import Grid
    from meddift.io.nifti_geometry import NiftiForm
    from meddift.points import Points
    from meddift.volume import Volume

Space = Literal["lps", "ras", "voxel", "voxel1"]


def read_points_on(
    path: Path,
    space: Space | None,
    grid: Grid | None,
    role: str,
    *,
    voxels: Grid | None = None,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
) -> Points:
    """Read points that belong to a scan, and refuse them if their frame was evidently mistaken.

    Args:
        path: The file.
        space: Its frame, if the file does not name one.
        grid: Grid of the scan; None where unknown.
        role: "fixed" or "moving", for messages.
        voxels: Grid of voxel indices, if not `grid`.
        nifti_form: For label maps; see `read_volume`.
        assume_geometry: For label maps; see `read_volume`.

    Returns:
        The points, world RAS mm.

    Raises:
        PointsError: if the file cannot be read or no point has a position.
        FrameError: if the frame is missing, or most points lie inside the scan only with x and y negated.
    """
    from meddift.io import read_points
    from meddift.io.points import looks_like_flipped

    found = read_points(path, space=space, grid=voxels or grid, nifti_form=nifti_form, assume_geometry=assume_geometry)
    if found.missing.all():
        raise PointsError(f"{path}: none of its {len(found)} points has a position")
    if grid is not None and looks_like_flipped(found, grid):
        raise FrameError(
            f"{path}: most points lie outside the {role} scan, but with x and y negated they lie inside: this looks "
            f"like LPS taken for RAS or the reverse. Correct the frame that the file names or, if it names none, "
            f"give the other one with --points-space"
        )
    return found


def read_truth(
    path: Path | None,
    space: Space | None,
    moving: Volume,
    wanted: Points,
    *,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
) -> Points | None:
    """Read true positions on the moving scan.

    Args:
        path: The file; None = there is none.
        space: Its frame, if the file does not name one.
        moving: The moving scan; voxel indices are its own.
        wanted: Points on the fixed scan.
        nifti_form: For label maps; see `read_volume`.
        assume_geometry: For label maps; see `read_volume`.

    Returns:
        The true positions in the order of `wanted`, world RAS mm; None without a file.

    Raises:
        PointsError: if the file cannot be read, or its points cannot be assigned to `wanted`.
        FrameError: as for `read_points_on`.
    """
    if path is None:
        return None
    from meddift.io.points import parse_points_file
    from meddift.pipeline.accuracy import align_truth

    declared = parse_points_file(path, nifti_form=nifti_form, assume_geometry=assume_geometry).frame
    found = read_points_on(
        path,
        space if declared is None else None,
        moving.grid,
        "moving",
        nifti_form=nifti_form,
        assume_geometry=assume_geometry,
    )
    return align_truth(wanted, found)
