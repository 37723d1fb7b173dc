"""Points files of a pair: read onto the scan that they belong to."""

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
    """Points that belong to a scan; a mix-up of frames is an error, not a set of points outside.

    Args:
        path: The file.
        space: Its frame, where it does not name it.
        grid: Grid of the scan; None where it is not known.
        role: "fixed" or "moving".
        voxels: Grid in which voxel indices are counted, if it is another one.
        nifti_form: Of a label map; see `read_volume`.
        assume_geometry: Of a label map; see `read_volume`.
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
    """True places on the moving scan, in the order of the points; voxel indices are those of the moving scan."""
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
