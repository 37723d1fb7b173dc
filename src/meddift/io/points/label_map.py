"""Label maps where points are expected: one point for each label, at the centre of its voxels."""

from __future__ import annotations

from pathlib import Path

from meddift.io.points.content import PointsFile, points_file
from meddift.points import Points

FORMAT = "label map"


def parse(path: Path) -> PointsFile:
    """The centre of the voxels of every label above 0, named by its number.

    Raises:
        PointsError: if the image is no label map: its values are not whole numbers from 0 on, or there are too many.
        ImageError: if it cannot be read.
        GeometryError: if it does not say where it lies.
    """
    from meddift.io.images import read_volume

    points = Points.from_labels(read_volume(path, check=False), name=str(path))
    return points_file(FORMAT, "ras", points.positions.tolist(), labels=list(points.labels), path=path)
