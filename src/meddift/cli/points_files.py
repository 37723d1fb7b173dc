"""Input and output points files of commands, checked before the work begins."""

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
    """Check points files before the scans are read.

    Args:
        points: Points on the fixed scan.
        truth: True positions on the moving scan; None if unknown.
        space: Frame of files that do not name it.
        reading: Options for reading images, for label maps given as points.

    Raises:
        MeddiftError: if a file is missing or malformed.
    """
    from meddift.io.points import parse_points_file
    from meddift.io.points.frames import settle_frame

    settle_frame(parse_points_file(points, **reading.fixed.geometry()).frame, space, points)
    if truth is not None:
        settle_frame(parse_points_file(truth, **reading.moving.geometry()).frame or space, None, truth)


@dataclass(frozen=True)
class PointsTarget:
    """An output points file of a command.

    Attributes:
        path: Path of the file.
        format: Format; None = the suffix decides.
        space: Frame; None = the default of the format.
    """

    path: Path
    format: PointsFormat | None = None
    space: Space | None = None

    def rehearse(self, points: Points, fixed: Grid, moving: Grid) -> None:
        """Check before the work begins that the file can store the matches of these points.

        Points outside the fixed scan will have no match. Matches of the other points are not known yet.

        Args:
            points: Points on the fixed scan, world RAS mm.
            fixed: Grid of the fixed scan.
            moving: Grid of the moving scan, to which voxel indices of matches refer.

        Raises:
            MeddiftError: if the format cannot store the matches.
        """
        import numpy as np

        from meddift.points import Points

        middle = moving.index_to_world((np.asarray(moving.shape, dtype=np.float64) - 1) / 2)
        answered = fixed.contains(points.positions)[:, None]
        self.text(Points(np.where(answered, middle, np.nan), points.labels, points.columns), moving)

    def text(self, points: Points, grid: Grid | None, extra: Mapping[str, Sequence[Any]] | None = None) -> str:
        """Content of the file; arguments as for `format_points`."""
        from meddift.io.points import format_points

        return format_points(points, self.path, grid=grid, space=self.space, extra=extra, format=self.format)

    def holds(self) -> str:
        """Format of the file, from `format` or the suffix."""
        from meddift.io.points.writing import points_format

        return points_format(self.path, self.format)

    def say_what_is_lost(self, points: Points) -> None:
        """Warn about labels and columns that the format cannot store."""
        from meddift.cli.failures import warn
        from meddift.io.points import what_is_lost

        for lost in what_is_lost(points, self.path, self.format):
            warn(f"{self.path}: this format holds coordinates only; {lost} are left out")

    def beside(self) -> Path | None:
        """Path of a new table beside the file, for points that its format cannot store.

        None if the output is not a file on disk, such as a pipe.
        """
        from meddift.system.targets import Target

        place = Target.of(self.path).place
        if place.exists() and not place.is_file():
            return None
        names = (f"{place.name}{number}.csv" for number in ("", *(f".{i}" for i in range(2, 1000))))
        return next((place.with_name(name) for name in names if not place.with_name(name).exists()), None)
