"""Which scan each end of a transform belongs to, so that a warp in the wrong direction is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meddift.errors import GeometryError, OptionsError, PointsError

if TYPE_CHECKING:
    from meddift.geometry import Grid, Transform
    from meddift.points import Points


@dataclass(frozen=True)
class End:
    """One end of a transform.

    Attributes:
        name: "fixed" or "moving".
        grid: Grid of the scan at this end; None if it is not known.
        whole: Whether that is the grid of the scan itself, not of a displacement field over it.
    """

    name: str
    grid: Grid | None
    whole: bool = True


@dataclass(frozen=True)
class Sides:
    """Where points come from and where they go to, in the direction that was asked for.

    Attributes:
        start: The scan of the points that are given, and of the voxels that images come onto.
        end: The scan that points go to, and whose images are carried.
        inverse: Whether the transform is turned around.
    """

    start: End
    end: End
    inverse: bool

    @classmethod
    def of(cls, paths: Sequence[Path], transforms: Sequence[Transform], *, inverse: bool) -> Sides:
        """What the sidecars of transforms that are applied one after the other say, or else their fields."""
        from meddift.geometry import DisplacementField

        start, end = _ends(paths[0])[0], _ends(paths[-1])[1]
        if start.grid is None and isinstance(transforms[0], DisplacementField):
            start = End(start.name, transforms[0].grid, whole=False)
        return cls(end, start, inverse=True) if inverse else cls(start, end, inverse=False)

    def check_images(self, carried: Grid | None, carried_path: Path | None, onto: Grid, onto_path: Path) -> None:
        """Refuse images that lie on each other's scans.

        Args:
            carried: Grid of the image or label map to carry; None where there is none.
            carried_path: Its file.
            onto: Grid of the image whose voxels are wanted.
            onto_path: Its file.

        Raises:
            OptionsError: if an image has the grid of the scan at the other end.
        """
        for path, grid, right, wrong in (
            (carried_path, carried, self.end, self.start),
            (onto_path, onto, self.start, self.end),
        ):
            if grid is None or not _is(grid, wrong) or right.grid is None or _is(grid, right):
                continue
            raise OptionsError(
                f"{path} lies on the {wrong.name} scan, but in this direction an image of the {self.end.name} scan "
                f"comes onto the {self.start.name} one. {self._advice()}"
            )

    def leave_out_far_points(self, points: Points, path: Path) -> tuple[Points, int]:
        """Points outside the scan that they should lie in have no answer: the transform is not known there.

        Returns:
            The points, those outside without position, and how many these are.

        Raises:
            PointsError: if all of them lie outside.
        """
        from meddift.points import Points

        grid = self.start.grid
        if grid is None:
            return points, 0
        outside = ~points.missing & ~grid.contains(points.positions)
        if outside.any() and (outside | points.missing).all():
            there = self.end.grid is not None and self.end.grid.contains(points.positions[outside]).mean() > 0.5
            advice = f"They lie in the {self.end.name} one. {self._advice()}" if there else "Which scan are they of?"
            raise PointsError(f"{path}: none of its points lies in the {self.start.name} scan. {advice}")
        positions = np.where(outside[:, None], np.nan, points.positions)
        return Points(positions, points.labels, points.columns), int(outside.sum())

    def _advice(self) -> str:
        return "Leave --inverse out?" if self.inverse else "Did you mean --inverse?"


def _is(grid: Grid, end: End) -> bool:
    """Whether a grid is that of the scan at an end."""
    return end.grid is not None and end.whole and grid.same_as(end.grid)


def _ends(path: Path) -> tuple[End, End]:
    """The scans from which and to which a transform file takes points, as its sidecar says."""
    from meddift.io.transform_sidecar import read_sidecar

    content = read_sidecar(path) or {}
    direction = content.get("direction")
    told = direction.get("points") if isinstance(direction, dict) else None
    start, end = ("moving", "fixed") if told == "moving to fixed" else ("fixed", "moving")
    return End(start, _grid(content.get(start))), End(end, _grid(content.get(end)))


def _grid(described: Any) -> Grid | None:
    """The grid that a sidecar describes; None where it describes none."""
    from meddift.geometry import Grid

    try:
        x, y, z = (int(n) for n in described["shape"])
        return Grid((x, y, z), np.array(described["affine_ras_mm"], dtype=float))
    except (KeyError, TypeError, ValueError, GeometryError):
        return None
