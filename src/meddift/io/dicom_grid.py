"""The grid of DICOM slices, or an error that says why they do not lie on one.

The grid is built from where each slice says it lies (ImagePositionPatient, DICOM PS3.3 C.7.6.2), not from slice
thickness, instance numbers or file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError
from meddift.geometry import Grid, flip_affine_ras_lps
from meddift.geometry.voxel_space import SHEAR_TOLERANCE
from meddift.io.dicom_slice import DicomSlice

_SEPARATE = "Put the slices of one scan into a folder of their own."

#: Largest distance of a slice from its place on the grid, in voxels. Beyond it, points on that slice would be
#: misplaced noticeably.
_ROUNDING_VOXELS = 0.1

#: Distances from the grid up to this are not reported, mm; the rounding of DICOM's decimal strings causes them.
_UNSAID_MM = 1e-3

#: Largest tilt of a gantry; beyond it an orientation must be wrong.
_LARGEST_TILT_DEGREES = 45.0


@dataclass(frozen=True, eq=False)
class SliceLayout:
    """Slices in order, and the grid that they are read onto.

    Attributes:
        slices: In order along their normal.
        grid: The grid: that of the slices, or, where the gantry was tilted, an orthogonal one around them.
        tilt_degrees: Angle between the normal of the slices and the line from one slice to the next; 0 without tilt.
        shift: (2,) float64, in-plane shift from each slice to the next, in columns and rows; zeros without tilt.
        first: (2,) int, column and row of the first slice at which voxel (0, 0, 0) of `grid` lies.
        notes: Sentences about rounding and resampling.
    """

    slices: tuple[DicomSlice, ...]
    grid: Grid
    tilt_degrees: float
    shift: NDArray[np.float64]
    first: tuple[int, int]
    notes: tuple[str, ...]


def grid_of_slices(slices: Sequence[DicomSlice], name: str) -> SliceLayout:
    """Order slices along their normal and lay a grid through the places that they state.

    First position and step are those of the straight line that fits all positions with least squares.

    Args:
        slices: At least two slices of one series, in any order.
        name: What to call the series in messages.

    Raises:
        ImageError: if slices have different sizes, or several lie at one place.
        GeometryError: if positions are missing, orientations or spacings are mixed, slices are missing, or positions
            are rounded by more than a tenth of a voxel.
    """
    row, column = _require_one_plane(slices, name)
    spacing = slices[0].spacing[::-1]  # PixelSpacing is the distance between rows, then between columns
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda item: float(item.position @ normal))
    # In mm along rows, columns and normal.
    placed = np.array([item.position for item in ordered]) @ np.stack([row, column, normal], axis=1)
    index = np.arange(len(ordered)) - (len(ordered) - 1) / 2
    step = index @ placed / (index @ index)
    middle = placed.mean(axis=0)
    voxel = np.array([*spacing, max(float(np.median(np.diff(placed[:, 2]))), 1e-6)])
    away = np.abs(placed - (middle + index[:, None] * step))
    if (away > _ROUNDING_VOXELS * voxel).any() or (np.diff(placed[:, 2]) < 1e-3).any():
        _explain(ordered, placed, away, voxel, name)
    drift = np.abs(placed - (middle + index[:, None] * [0.0, 0.0, step[2]]))
    tilted = bool((drift[:, :2] > _ROUNDING_VOXELS * spacing).any())
    tilt = float(np.degrees(np.arctan2(np.hypot(step[0], step[1]), step[2]))) if tilted else 0.0
    if tilt > _LARGEST_TILT_DEGREES:
        raise GeometryError(
            f"{name}: its slices are shifted against each other by {tilt:.3g} degrees, more than any gantry "
            "is tilted; ImageOrientationPatient or ImagePositionPatient is wrong. Export the scan again."
        )
    off = float(np.linalg.norm(away if tilted else drift, axis=1).max())
    notes = []
    if off > _UNSAID_MM:
        notes.append(
            f"the positions of its slices are rounded: they lie up to {off:.2g} mm from the even grid that is used"
        )
    shift = step[:2] / spacing if tilted else np.zeros(2)
    ends = np.stack([np.zeros(2), shift * (len(ordered) - 1)])
    low, high = np.floor(ends.min(axis=0) + 1e-6).astype(int), np.ceil(ends.max(axis=0) - 1e-6).astype(int)
    if tilted:
        notes.append(
            f"the gantry was tilted by {tilt:.3g} degrees: its slices were resampled (linearly, within their planes) "
            "onto a grid with orthogonal axes; what lies outside of them holds the smallest value"
        )
    else:
        step = np.array([0.0, 0.0, step[2]])
    corner = middle + index[0] * step  # of the first slice
    corner[:2] += low * spacing
    axes = np.stack([row, column, normal], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = axes * [*spacing, step[2]]
    affine[:3, 3] = axes @ corner
    columns, rows = ordered[0].size
    shape = (columns + int(high[0] - low[0]), rows + int(high[1] - low[1]), len(ordered))
    grid = Grid(shape, flip_affine_ras_lps(affine))
    return SliceLayout(tuple(ordered), grid, tilt, shift, (int(low[0]), int(low[1])), tuple(notes))


def heights(slices: Sequence[DicomSlice]) -> NDArray[np.float64]:
    """(N,) float64, mm of each slice along the normal of the first one."""
    normal = np.cross(slices[0].row, slices[0].column)
    return np.asarray(np.array([item.position for item in slices]) @ normal)


def _require_one_plane(slices: Sequence[DicomSlice], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check that slices have one orientation, size and spacing; returns the unit vectors along rows and columns."""
    first = slices[0]
    for item in slices:
        if not item.placed:
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
    lengths = np.array([np.linalg.norm(first.row), np.linalg.norm(first.column)])
    if np.abs(lengths - 1).max() > 1e-2 or abs(first.row @ first.column) > SHEAR_TOLERANCE:
        orientation = [*first.row.tolist(), *first.column.tolist()]
        raise GeometryError(f"{name}: ImageOrientationPatient is no rotation: {orientation}.")
    row = first.row / lengths[0]
    column = first.column - (first.column @ row) * row
    return row, column / np.linalg.norm(column)


def _explain(
    ordered: Sequence[DicomSlice],
    placed: NDArray[np.float64],
    away: NDArray[np.float64],
    voxel: NDArray[np.float64],
    name: str,
) -> None:
    """Raise the error that says why slices do not lie on an evenly spaced grid; never returns."""
    unit = _rounded_to(ordered, placed)
    if unit is not None:
        raise GeometryError(
            f"{name}: the positions of its slices are rounded to {unit:g} mm, so that they lie up to "
            f"{float(away.max()):.2g} mm from an even grid, more than a tenth of a voxel. Export it with exact "
            "positions."
        )
    gaps = np.diff(placed[:, 2])
    same = gaps < 1e-3
    if same.any():
        k = int(np.argmax(same))
        raise ImageError(
            f"{name} has {len(ordered)} slices at only {len(ordered) - int(same.sum())} places: "
            f"{_named(ordered[k])} and {_named(ordered[k + 1])}, for instance, lie at the same one. It may hold "
            f"several time points, echoes or reconstructions. {_SEPARATE}"
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(0.01, _ROUNDING_VOXELS * usual / 2))
    if (away[:, 2] > _ROUNDING_VOXELS * voxel[2]).any() and len(odd):
        shown = "; ".join(
            f"{gaps[k]:.4g} mm between slices {k + 1} and {k + 2} ({_named(ordered[k])}, {_named(ordered[k + 1])})"
            for k in odd[:5]
        )
        more = f"; and {len(odd) - 5} more" if len(odd) > 5 else ""
        times = gaps[odd] / usual
        missing = (np.abs(times - np.rint(times)) < 0.2).all() and (times > 1.5).all()
        reason = (
            "Slices are missing; export the whole series again."
            if missing
            else f"Its slices were not taken at even distances or come from different scans. {_SEPARATE}"
        )
        raise GeometryError(
            f"{name} has slices at uneven distances, {usual:.4g} mm as a rule but {shown}{more}. {reason}"
        )
    k = int(np.argmax((away / voxel).max(axis=1)))
    raise GeometryError(
        f"{name} does not lie on one straight grid: {_named(ordered[k])} (slice {k + 1}) is "
        f"{np.linalg.norm(away[k]):.3g} mm from its place. The table may have moved between slices; meddift cannot "
        "use such a series."
    )


def _rounded_to(ordered: Sequence[DicomSlice], placed: NDArray[np.float64]) -> float | None:
    """The unit to which positions are rounded, if that alone explains why they are not even.

    Rounded even positions have gaps of two neighbouring multiples of the unit. A missing slice, or one that is there
    twice, can look the same where the unit is as large as the gaps; then the instance numbers must be consecutive.
    """
    stated = np.array([item.position for item in ordered])
    gaps, index = np.diff(placed[:, 2]), np.arange(len(ordered))
    instances = np.array([item.instance for item in ordered])
    consecutive = bool((np.diff(instances) == 1).all() or (np.diff(instances) == -1).all())
    _, counts = np.unique(np.round(placed[:, 2], 4), return_counts=True)
    if counts[0] > 1 and (counts == counts[0]).all():  # each place as often as the others: several scans
        return None
    for unit in (1.0, 0.5, 0.1, 0.05, 0.01):
        if np.abs(stated / unit - np.rint(stated / unit)).max() > 1e-4:
            continue
        line = np.polynomial.Polynomial.fit(index, placed[:, 2], 1)
        flat = placed[:, :2] - placed[:, :2].mean(axis=0)
        even = np.abs(placed[:, 2] - line(index)).max() <= unit and np.abs(flat).max() <= unit
        several = int((np.abs(gaps - np.median(gaps)) > unit / 2).sum()) > 1
        clear = float(np.median(gaps)) >= 2 * unit * 0.999 or (consecutive and several)
        return unit if even and clear and np.ptp(gaps) <= 1.001 * unit else None
    return None


def _named(item: DicomSlice) -> str:
    """A slice as messages call it."""
    return item.path.name if not item.frame else f"{item.path.name} frame {item.frame + 1}"


def _times(values: Iterable[float]) -> str:
    """Numbers with a times sign between them."""
    return " x ".join(f"{value:g}" for value in values)
