"""Points files that commands are given: looked at before the work begins, and read onto their scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.cli.options import Space
from meddift.errors import FrameError, PointsError

if TYPE_CHECKING:
    from meddift.geometry import Grid
    from meddift.io.points import PointsFormat
    from meddift.points import Points
    from meddift.volume import Volume


def check_points_files(points: Path, truth: Path | None, space: Space | None) -> None:
    """Find out about a bad points file before the scans are read."""
    from meddift.io.points import parse_points_file
    from meddift.io.points.frames import settle_frame

    settle_frame(parse_points_file(points).frame, space, points)
    if truth is not None:
        settle_frame(parse_points_file(truth).frame or space, None, truth)


def read_points_on(
    path: Path, space: Space | None, grid: Grid | None, role: str, *, voxels: Grid | None = None
) -> Points:
    """Points that belong to a scan; a mix-up of frames is an error, not a set of points outside.

    Args:
        path: The file.
        space: Its frame, where it does not name it.
        grid: Grid of the scan; None where it is not known.
        role: "fixed" or "moving".
        voxels: Grid in which voxel indices are counted, if it is another one.
    """
    from meddift.io import read_points
    from meddift.io.points import looks_like_flipped

    found = read_points(path, space=space, grid=voxels or grid)
    if found.missing.all():
        raise PointsError(f"{path}: none of its {len(found)} points has a position")
    if grid is not None and looks_like_flipped(found, grid):
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
    found = read_points_on(path, space if declared is None else None, moving.grid, "moving")
    return align_truth(wanted, found)


@dataclass(frozen=True)
class PointsTarget:
    """A points file that a command was asked to write.

    Attributes:
        path: The file.
        format: Its format; None = the suffix decides.
        space: Its frame; None = the format decides.
    """

    path: Path
    format: PointsFormat | None = None
    space: Space | None = None

    def rehearse(self, points: Points, fixed: Grid, moving: Grid) -> None:
        """Find out before the work begins that the file cannot hold answers to these points.

        A point that lies outside the fixed scan will have no answer; where the others are found is not known yet.

        Args:
            points: The points that were given.
            fixed: Grid of the scan on which they lie.
            moving: Grid of the scan on which the answers will lie, in which voxel indices are counted.
        """
        import numpy as np

        from meddift.points import Points

        middle = moving.index_to_world((np.asarray(moving.shape, dtype=np.float64) - 1) / 2)
        answered = fixed.contains(points.positions)[:, None]
        self.text(Points(np.where(answered, middle, np.nan), points.labels, points.columns), moving)

    def text(self, points: Points, grid: Grid | None, extra: Mapping[str, Sequence[Any]] | None = None) -> str:
        """The content of the file; arguments as for `format_points`."""
        from meddift.io.points import format_points

        return format_points(points, self.path, grid=grid, space=self.space, extra=extra, format=self.format)

    def holds(self) -> str:
        """The format that will be written."""
        from meddift.io.points.writing import points_format

        return points_format(self.path, self.format)
