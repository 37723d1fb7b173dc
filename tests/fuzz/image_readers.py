"""What is fuzzed of images: header and voxels, as a command reads them."""

from __future__ import annotations

from pathlib import Path

import SimpleITK  # noqa: F401 - loaded before memory is limited: it decompresses pixels

from meddift.io.dicom import read_dicom_header, read_dicom_voxels
from meddift.io.images import read_header, read_volume


def scan(path: Path) -> None:
    """A scan in one file: its header, and its voxels if the header has no problems."""
    read_header(path, assume_geometry=True)
    read_volume(path, assume_geometry=True)


def dicom_file(path: Path) -> None:
    """One DICOM file with all slices of a scan."""
    header = read_dicom_header(path, series=None)
    if header.problems:
        raise header.problems[0]
    read_dicom_voxels(header)
