"""From DICOM slices to one lattice, or to a sentence that says why they lie on none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError
from meddift.geometry import flip_affine_ras_lps
from meddift.io.header import SHEAR_TOLERANCE

_SEPARATE = "Put the slices of one scan into a folder of their own."


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """The header of one DICOM image: what decides about geometry and grouping.

    Attributes:
        path: The file.
        uid: SeriesInstanceUID.
        description: SeriesDescription, may be empty.
        modality: "CT", "MR", ...
        size: Columns and rows.
        frames: NumberOfFrames.
        dtype: Type of the values after rescaling.
        kind: "scalar", "color" or "complex".
        position: (3,) float64, ImagePositionPatient, LPS mm; NaN where it is not stated.
        row: (3,) float64, direction in which the column index grows, LPS; NaN where it is not stated.
        column: (3,) float64, direction in which the row index grows, LPS; NaN where it is not stated.
        spacing: (2,) float64, PixelSpacing: between rows, then between columns, mm; NaN where it is not stated.
    """

    path: Path
    uid: str
    description: str
    modality: str
    size: tuple[int, int]
    frames: int
    dtype: np.dtype[Any]
    kind: str
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing: NDArray[np.float64]


def lattice_of_slices(slices: Sequence[DicomSlice], name: str) -> tuple[list[DicomSlice], NDArray[np.float64]]:
    """Order slices along their normal and build the affine from where they say they lie.

    The step between slices is (last position - first position) / (number of slices - 1).

    Args:
        slices: At least two slices of one series, in any order.
        name: What to call the series in messages.

    Returns:
        The slices in order, and the (4, 4) float64 affine from (column, row, slice) index to world RAS mm.

    Raises:
        ImageError: if slices have different sizes, or several lie at one place.
        GeometryError: if positions are missing, orientations or spacings are mixed, slices are missing, or the
            gantry was tilted.
    """
    _require_one_plane(slices, name)
    first = slices[0]
    lengths = np.array([np.linalg.norm(first.row), np.linalg.norm(first.column)])
    if np.abs(lengths - 1).max() > 1e-2 or abs(first.row @ first.column) > SHEAR_TOLERANCE:
        orientation = [*first.row.tolist(), *first.column.tolist()]
        raise GeometryError(f"{name}: ImageOrientationPatient is no rotation: {orientation}.")
    row, column = first.row / lengths[0], first.column / lengths[1]
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda item: float(item.position @ normal))
    positions = np.array([item.position for item in ordered])
    tolerance = _require_even_gaps(ordered, positions @ normal, name)

    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    away = np.linalg.norm(positions - (positions[0] + np.arange(len(ordered))[:, None] * step), axis=1)
    if away.max() > 2 * tolerance:
        k = int(np.argmax(away))
        raise GeometryError(
            f"{name} does not lie on one straight lattice: {ordered[k].path.name} (slice {k + 1}) is {away[k]:.3g} mm "
            "from its place. The table may have moved between slices; meddift cannot use such a series."
        )
    cosine = max(abs(step @ row), abs(step @ column)) / np.linalg.norm(step)
    if cosine > SHEAR_TOLERANCE:
        tilt = np.degrees(np.arcsin(np.clip(np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step), 0, 1)))
        raise GeometryError(
            f"{name} was taken with a tilted gantry: its slices are shifted against each other by an angle of "
            f"{tilt:.3g} degrees, so that the axes are not orthogonal. Convert it with dcm2niix, which corrects the "
            "tilt (use the file whose name says Tilt), and give that file."
        )
    affine = np.eye(4)
    # PixelSpacing is the distance between rows, then between columns: the second one is the step along a row.
    affine[:3, 0] = row * first.spacing[1]
    affine[:3, 1] = column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return ordered, flip_affine_ras_lps(affine)


def _require_one_plane(slices: Sequence[DicomSlice], name: str) -> None:
    """Refuse slices that do not belong together, or say too little."""
    first = slices[0]
    for item in slices:
        if not np.isfinite([*item.position, *item.row, *item.column, *item.spacing]).all():
            raise GeometryError(
                f"{name}: the slice {item.path.name} does not state where it lies (ImagePositionPatient, "
                "ImageOrientationPatient and PixelSpacing are needed). Secondary captures cannot be used; "
                "export the original scan."
            )
        if not (item.spacing > 0).all():
            raise GeometryError(f"{name}: the slice {item.path.name} has a PixelSpacing of {_times(item.spacing)} mm.")
        if item.size != first.size:
            raise ImageError(
                f"{name} mixes slices of different sizes: {first.path.name} has {_times(first.size)} pixels and "
                f"{item.path.name} has {_times(item.size)}. {_SEPARATE}"
            )
        turn = max(np.abs(item.row - first.row).max(), np.abs(item.column - first.column).max())
        if turn > SHEAR_TOLERANCE:
            raise GeometryError(
                f"{name} mixes orientations: the axes of {first.path.name} and {item.path.name} differ by {turn:.2g}. "
                f"It may contain a localizer. {_SEPARATE}"
            )
        if np.abs(item.spacing / first.spacing - 1).max() > SHEAR_TOLERANCE:
            raise GeometryError(
                f"{name} mixes pixel spacings: {first.path.name} has {_times(first.spacing)} mm and "
                f"{item.path.name} has {_times(item.spacing)} mm. {_SEPARATE}"
            )


def _require_even_gaps(ordered: Sequence[DicomSlice], heights: NDArray[np.float64], name: str) -> float:
    """Refuse slices at one place or at uneven distances; return the tolerance in mm that was applied."""
    gaps = np.diff(heights)
    same = gaps < 1e-3
    if same.any():
        k = int(np.argmax(same))
        raise ImageError(
            f"{name} has {len(ordered)} slices at only {len(ordered) - int(same.sum())} places: "
            f"{ordered[k].path.name} and {ordered[k + 1].path.name}, for instance, lie at the same one. It may hold "
            f"several time points, echoes or reconstructions. {_SEPARATE}"
        )
    usual = float(np.median(gaps))
    tolerance = max(0.01, 0.01 * usual)
    odd = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if len(odd):
        shown = "; ".join(
            f"{gaps[k]:.4g} mm between slices {k + 1} and {k + 2} ({ordered[k].path.name}, {ordered[k + 1].path.name})"
            for k in odd[:5]
        )
        more = f"; and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise GeometryError(
            f"{name} has slices at uneven distances, {usual:.4g} mm as a rule but {shown}{more}. "
            "Slices are missing or come from different scans; export the whole series again."
        )
    return tolerance


def _times(values: Iterable[Any]) -> str:
    """Numbers with a times sign between them."""
    return " x ".join(f"{value:g}" for value in values)
