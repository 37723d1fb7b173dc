"""Points files that commands are given: looked at before the work begins, and read onto their scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meddift.cli.choices import Space
from meddift.errors import FrameError, PointsError

if TYPE_CHECKING:
    from meddift.points import Points
    from meddift.volume import Volume


def check_points_files(points: Path, truth: Path | None, space: Space | None) -> None:
    """Find out about a bad points file before the scans are read."""
    from meddift.io.points import parse_points_file
    from meddift.io.points.frames import settle_frame

    settle_frame(parse_points_file(points).frame, space, points)
    if truth is not None:
        settle_frame(parse_points_file(truth).frame or space, None, truth)


def read_points_on(path: Path, space: Space | None, volume: Volume, role: str) -> Points:
    """Points that belong to a scan; a mix-up of frames is an error, not a set of points outside."""
    from meddift.io import read_points
    from meddift.io.points import looks_like_flipped

    found = read_points(path, space=space, grid=volume.grid)
    if found.missing.all():
        raise PointsError(f"{path}: none of its {len(found)} points has a position")
    if looks_like_flipped(found, volume.grid):
        raise FrameError(
            f"{path}: most points lie outside the {role} scan, but with x and y negated they lie inside: this looks "
            f"like LPS taken for RAS or the reverse. Correct the frame that the file names or, if it names none, "
            f"give the other one with --points-space"
        )
    return found


def read_truth(path: Path | None, space: Space | None, moving: Volume, wanted: Points) -> Points | None:
    """True places on the moving scan, in the order of the points; voxel indices are those of the moving scan."""
    if path is None:
        return None
    from meddift.io.points import parse_points_file
    from meddift.pipeline.accuracy import align_truth

    declared = parse_points_file(path).frame
    found = read_points_on(path, space if declared is None else None, moving, "moving")
    return align_truth(wanted, found)


def rehearse(wanted: Points, out: Path | None) -> None:
    """Find out before the work begins that the format asked for cannot hold the points that were given."""
    if out is None:
        return
    from meddift.io.points import format_points

    format_points(wanted, out)
