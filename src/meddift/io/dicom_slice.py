"""The header of one DICOM image: its geometry, the storage of its pixels, and its series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Header values that distinguish repeated acquisitions of the same place. A scan has one value of each, or values that
#: change from one range of slices to the next.
TELLING_APART = (
    ("acquisition", "acquisition"), ("temporal", "time point"), ("echo", "echo"), ("echo_time", "echo time"),
    ("b_value", "b-value"), ("kvp", "tube voltage"), ("kernel", "kernel"), ("trigger", "trigger time"),
    ("image_type", "image type"), ("frame_of_reference", "frame of reference"), ("time", "acquisition time"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PixelFormat:
    """How the pixels of one DICOM image are stored.

    Attributes:
        dtype: Type of a stored value, with its byte order.
        stored: Number of bits that are used.
        high: Number of the highest of them.
        offset: Where the pixels begin in the file; None where they are compressed.
        slope: Rescale slope.
        intercept: Rescale intercept.
    """

    dtype: np.dtype[Any]
    stored: int
    high: int
    offset: int | None
    slope: float
    intercept: float

    @property
    def scaled_dtype(self) -> np.dtype[Any]:
        """The type that holds every value after rescaling: integer where slope and intercept are whole numbers."""
        if self.dtype.kind not in "iu" or not (self.slope.is_integer() and self.intercept.is_integer()):
            return np.dtype(np.float32)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.dtype.newbyteorder("=")
        low, high = (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.dtype.kind == "i" else (
            0, (1 << self.stored) - 1,
        )  # fmt: skip
        ends = sorted((low * self.slope + self.intercept, high * self.slope + self.intercept))
        for name in ("i2", "u2", "i4"):
            limits = np.iinfo(name)
            if limits.min <= ends[0] and ends[1] <= limits.max:
                return np.dtype(name)
        return np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """The header of one DICOM image (one frame): what decides about geometry and grouping.

    Attributes:
        path: The file.
        frame: Its number in the file, from 0.
        uid: SeriesInstanceUID.
        sop: SOPInstanceUID.
        description: SeriesDescription, may be empty.
        modality: "CT", "MR", ...
        size: Columns and rows.
        kind: "scalar" or "color".
        captured: Whether it is a secondary capture: a picture of something, not a recorded slice.
        localizer: Whether it calls itself a localizer (scout, topogram).
        position: (3,) float64, ImagePositionPatient, LPS mm; NaN where it is not stated.
        row: (3,) float64, direction in which the column index grows, LPS; NaN where it is not stated.
        column: (3,) float64, direction in which the row index grows, LPS; NaN where it is not stated.
        spacing: (2,) float64, PixelSpacing: between rows, then between columns, mm; NaN where it is not stated.
        thickness: SliceThickness, mm; NaN where it is not stated.
        instance: InstanceNumber; NaN where it is not stated.
        pixels: How its pixels are stored.
        marks: Values of `TELLING_APART` that it has.
        problem: A sentence that says why it cannot be used, or "".
    """

    path: Path
    frame: int
    uid: str
    sop: str
    description: str
    modality: str
    size: tuple[int, int]
    kind: str
    captured: bool
    localizer: bool
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing: NDArray[np.float64]
    thickness: float
    instance: float
    pixels: PixelFormat
    marks: dict[str, str]
    problem: str = ""

    @property
    def placed(self) -> bool:
        """Whether it says where it lies."""
        return bool(np.isfinite(np.concatenate([self.position, self.row, self.column, self.spacing])).all())
