"""Files in and out: images, points and transforms. LPS and voxel indices exist only here and in `library_images`.

Modules are imported on first use: importing this package loads neither SimpleITK nor nibabel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.io.convert import as_volume
    from meddift.io.describe import describe_image
    from meddift.io.dicom import list_dicom_series
    from meddift.io.images import read_volume, write_volume
    from meddift.io.points import read_points, write_points
    from meddift.io.transforms import read_transform, write_transform

#: Public name -> module that defines it. Loaded on first use (PEP 562).
_HOME = {
    "as_volume": "meddift.io.convert",
    "describe_image": "meddift.io.describe",
    "list_dicom_series": "meddift.io.dicom",
    "read_points": "meddift.io.points",
    "read_transform": "meddift.io.transforms",
    "read_volume": "meddift.io.images",
    "write_points": "meddift.io.points",
    "write_transform": "meddift.io.transforms",
    "write_volume": "meddift.io.images",
}

__all__ = [
    "as_volume",
    "describe_image",
    "list_dicom_series",
    "read_points",
    "read_transform",
    "read_volume",
    "write_points",
    "write_transform",
    "write_volume",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
