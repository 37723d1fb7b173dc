"""Points files that commands are given and asked for: looked at before the work begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.cli.options import PairReading
from meddift.pipeline.points_files import Space

if TYPE_CHECKING:
    from meddift.geometry import Grid
    from meddift.io.points import PointsFormat
    from meddift.points import Points


def check_points_files(
    points: Path, truth: Path | None, space: Space | None, reading: PairReading = PairReading()
) -> None:
    """Find out about a bad points file before the scans are read."""
    from meddift.io.points import parse_points_file
    from meddift.io.points.frames import settle_frame

    settle_frame(parse_points_file(points, **reading.fixed.geometry()).frame, space, points)
    if truth is not None:
        settle_frame(parse_points_file(truth, **reading.moving.geometry()).frame or space, None, truth)


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

    def say_what_is_lost(self, points: Points) -> None:
        """Warn of what the format has no room for."""
        from meddift.cli.failures import warn
        from meddift.io.points import what_is_lost

        for lost in what_is_lost(points, self.path, self.format):
            warn(f"{self.path}: this format holds coordinates only; {lost} are left out")

    def beside(self) -> Path | None:
        """A table beside the file that does not exist yet, for points that its format cannot hold.

        None where the file is no file on disk, such as a pipe.
        """
        from meddift.system.targets import Target

        place = Target.of(self.path).place
        if place.exists() and not place.is_file():
            return None
        names = (f"{place.name}{number}.csv" for number in ("", *(f".{i}" for i in range(2, 1000))))
        return next((place.with_name(name) for name in names if not place.with_name(name).exists()), None)
