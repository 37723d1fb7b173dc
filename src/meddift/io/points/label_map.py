"""Label maps where points are expected: one point for each label, at the centre of its voxels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meddift.io.points.content import PointsFile, points_file
from meddift.points import Points

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm

FORMAT = "label map"


def parse(path: Path, *, nifti_form: NiftiForm | None = None, assume_geometry: bool = False) -> PointsFile:
    """The centre of the voxels of every label above 0, named by its number.

    Args:
        path: The image.
        nifti_form: See `read_volume`.
        assume_geometry: See `read_volume`.

    Raises:
        PointsError: if the image is no label map: its values are not whole numbers from 0 on, or there are too many.
        ImageError: if it cannot be read.
        GeometryError: if it does not say where it lies.
    """
    from meddift.io.images import read_volume

    image = read_volume(path, nifti_form=nifti_form, assume_geometry=assume_geometry, check=False)
    points = Points.from_labels(image, name=str(path))
    return points_file(FORMAT, "ras", points.positions.tolist(), labels=list(points.labels), path=path)
