"""Label maps where points are expected: one point for each label, at the centre of its voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meddift.errors import PointsError
from meddift.io.points.content import PointsFile, points_file

FORMAT = "label map"

#: More labels than any segmentation has; a scan has thousands of grey values.
_MOST_LABELS = 2000


def parse(path: Path) -> PointsFile:
    """The centre of the voxels of every label above 0, named by its number.

    Raises:
        PointsError: if the image is no label map: its values are not whole numbers from 0 on, or there are too many.
        ImageError: if it cannot be read.
        GeometryError: if it does not say where it lies.
    """
    from meddift.io.images import read_volume

    volume = read_volume(path, check=False)
    data = np.asarray(volume.data)
    whole = data if data.dtype.kind in "iu" else np.rint(data)
    is_labels = bool(np.isfinite(data).all() and (whole == data).all() and data.min(initial=0) >= 0)
    values = np.unique(whole) if is_labels else np.zeros(0)
    if not is_labels or len(values) > _MOST_LABELS:
        raise PointsError(
            f"{path} is an image, but no label map: its values are not a few whole numbers from 0 on. Points are read "
            f"from points files, such as .mrk.json and .csv, and from segmentations, a point for each label"
        )
    if not len(values[values > 0]):
        raise PointsError(f"{path} is a label map without any label: all of its voxels are 0")
    names = [str(int(value)) for value in values[values > 0]]
    # Sums over the voxels of each label: labels may be far apart in number, so they are counted through first.
    place = np.nonzero(whole)
    which = np.searchsorted(values[values > 0], whole[place])
    count = np.bincount(which)
    index = np.stack([np.bincount(which, weights=axis) / count for axis in place], axis=1)
    return points_file(FORMAT, "ras", volume.grid.index_to_world(index).tolist(), labels=names, path=path)
