"""Conversion between transforms of ITK (LPS) and of meddift (RAS): frames, order of compositions, B-splines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import GeometryError, TransformError
from meddift.geometry import (
    AffineTransform,
    CompositeTransform,
    DisplacementField,
    Grid,
    Transform,
    flip_affine_ras_lps,
    flip_ras_lps,
)
from meddift.geometry.frames import RAS_LPS_FLIP
from meddift.geometry.inverse import NumericalInverse
from meddift.geometry.voxel_space import SHEAR_TOLERANCE
from meddift.io.compressed import AGAIN
from meddift.io.itk import captured_messages, one_sentence
from meddift.io.itk_linear import LARGEST, matrix_of, require_numbers, told
from meddift.io.itk_records import Record
from meddift.io.text_header import shortened

Floats = NDArray[np.float64]

#: Displacement fields; the first two smooth what an optimiser adds, and are the same as the third to points.
_FIELDS = (
    "GaussianSmoothingOnUpdateDisplacementFieldTransform",
    "BSplineSmoothingOnUpdateDisplacementFieldTransform",
    "DisplacementFieldTransform",
)


@dataclass(frozen=True, eq=False)
class ItkTransform:
    """A transform of SimpleITK that has no class of its own here, such as a B-spline; nothing is resampled.

    Attributes:
        transform: SimpleITK.Transform of dimension 3, LPS mm, fixed points to moving points.
    """

    transform: Any

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (N, 3) world RAS mm on the fixed scan to the moving scan; NaN rows stay NaN.

        Points are mapped one after the other by SimpleITK's `TransformPoint`.
        """
        world = np.asarray(positions, dtype=np.float64)
        flat = flip_ras_lps(world).reshape(-1, 3)
        moved = np.full_like(flat, np.nan)
        for row in np.flatnonzero(np.isfinite(flat).all(axis=1)):
            moved[row] = self.transform.TransformPoint(flat[row].tolist())
        return flip_ras_lps(moved).reshape(world.shape)

    def inverted(self) -> NumericalInverse:
        """The inverse, found point by point when it is applied."""
        return NumericalInverse.of(self)


def from_records(records: list[Record], path: Path) -> Transform:
    """The transform that a file of ITK holds (LPS) as one of ours (RAS); both map the same points to the same points.

    Args:
        records: What the file holds.
        path: For messages.

    Raises:
        TransformError: if it is not one transform of 3D, if numbers are missing, not finite or impossible, or if
            its class is not known.
    """
    first, *members = records
    if not first.is_composite:
        if members:
            raise TransformError(
                f"{path} holds {len(records)} transforms side by side and does not say how they belong together; "
                "save them as one CompositeTransform, or one file each"
            )
        return _transform(first, path)
    _require_three_dimensions(first, path)
    # ITK lays compositions inside compositions flat, in the same order, and applies the last member first.
    parts = [_transform(member, path) for member in reversed(members) if not member.is_composite]
    if not parts:
        raise TransformError(f"{path} holds a composition without members; the file may be cut off. {AGAIN}")
    return parts[0] if len(parts) == 1 else CompositeTransform(tuple(parts))


def to_records(transform: Transform, path: Path) -> list[Record]:
    """One of our transforms (RAS) as what a file of ITK holds (LPS).

    Args:
        transform: Affine, displacement field, composition of these, or ItkTransform.
        path: The file it is for, for messages.

    Raises:
        TransformError: if it is of another class, or a field that ITK cannot hold.
    """
    match transform:
        case AffineTransform():
            matrix = flip_affine_ras_lps(transform.matrix) @ RAS_LPS_FLIP
            return [Record("AffineTransform_double_3_3", np.append(matrix[:3, :3], matrix[:3, 3]), np.zeros(3))]
        case DisplacementField():
            require_writable_field(transform, path)
            size, origin, spacing, direction = itk_grid(transform.grid)
            vectors = lps_values(transform, np.dtype(np.float64)).transpose(3, 2, 1, 0)
            fixed = np.concatenate([size, origin, spacing, direction.ravel()])
            return [Record("DisplacementFieldTransform_double_3_3", vectors.ravel(), fixed)]
        case CompositeTransform():
            parts = [record for part in reversed(_flattened(transform)) for record in to_records(part, path)]
            return [Record("CompositeTransform_double_3_3"), *(part for part in parts if not part.is_composite)]
        case ItkTransform():
            return _itk_records(transform.transform)
    raise TransformError(f"a {type(transform).__name__} cannot be written to {path}; sample it as a DisplacementField")


def holds_field(transform: Transform) -> bool:
    """Whether a displacement field is among the parts."""
    if isinstance(transform, CompositeTransform):
        return any(holds_field(part) for part in transform.parts)
    return isinstance(transform, DisplacementField)


def _itk_records(held: Any) -> list[Record]:
    """A SimpleITK transform as records."""
    name, ending = held.GetName(), ""
    if name == "CompositeTransform":
        members = [held.GetNthTransform(number) for number in range(held.GetNumberOfTransforms())]
        return [Record("CompositeTransform_double_3_3"), *(part for one in members for part in _itk_records(one))]
    if name == "BSplineTransform" and held.GetOrder() != 3:
        ending = f"_{held.GetOrder()}"
    return [Record(f"{name}_double_3_3{ending}", np.array(held.GetParameters()), np.array(held.GetFixedParameters()))]


def field_of(displacement: NDArray[np.floating], grid: Grid, path: Path) -> DisplacementField:
    """A displacement field from what a file holds.

    Args:
        displacement: (3, X, Y, Z) float, LPS mm; turned to RAS in place where it can be.
        grid: Its grid.
        path: For messages.

    Raises:
        TransformError: if values are not finite or no lengths in mm.
    """
    with np.errstate(invalid="ignore"):
        low, high = float(displacement.min()), float(displacement.max())  # NaN if there is one
    if not -LARGEST <= low <= high <= LARGEST:
        wrong = displacement.size - int(np.isfinite(displacement).sum())
        what = (
            f"{wrong} values of the displacement field are not finite" if wrong else f"displacements up to {high:g} mm"
        )
        raise TransformError(f"{path}: {what}; write it anew")
    if not displacement.flags.writeable:
        displacement = displacement.copy()
    displacement *= _signs(displacement.dtype)
    return DisplacementField(displacement, grid)


def field_to_itk(field: DisplacementField, path: Path, *, dtype: np.dtype[Any]) -> Any:
    """A displacement field as a SimpleITK image of 3-vectors, LPS mm.

    Args:
        field: The field.
        path: The file it is for, for messages.
        dtype: Type of the components.

    Raises:
        TransformError: if values are not finite, or the axes of the grid are not at right angles.
    """
    import SimpleITK as sitk  # noqa: N813

    require_writable_field(field, path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(lps_values(field, dtype).transpose(3, 2, 1, 0)), isVector=True)
    _, origin, spacing, direction = itk_grid(field.grid)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def itk_grid(grid: Grid) -> tuple[Floats, Floats, Floats, Floats]:
    """Size, origin, spacing and (3, 3) direction of a grid as ITK wants them, LPS mm."""
    affine = flip_affine_ras_lps(grid.affine)
    direction = affine[:3, :3] / grid.spacing
    # ITK 5.4 inverts directions with entries below some 1e-290 wrongly, and says so on the error stream only.
    direction[np.abs(direction) < 1e-15] = 0.0
    return np.array(grid.shape, dtype=np.float64), affine[:3, 3], grid.spacing, direction


def lps_values(field: DisplacementField, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(3, X, Y, Z) displacements, LPS mm."""
    return np.asarray(np.asarray(field.displacement, dtype=dtype) * _signs(dtype))


def require_writable_field(field: DisplacementField, path: Path) -> None:
    """Raise TransformError if values are not finite, or the axes of the grid are not at right angles."""
    if not np.isfinite(field.displacement).all():
        raise TransformError(f"the displacement field for {path} holds values that are not finite")
    if field.grid.shear > SHEAR_TOLERANCE:
        raise TransformError(
            f"the axes of the displacement field for {path} are not at right angles (largest cosine "
            f"{field.grid.shear:.2g}), which ITK refuses; put it on a grid with right angles"
        )


def _transform(record: Record, path: Path) -> Transform:
    """One transform that is no composition."""
    _require_three_dimensions(record, path)
    matrix = matrix_of(record, path)
    if matrix is not None:
        try:
            return AffineTransform(flip_affine_ras_lps(matrix) @ RAS_LPS_FLIP)
        except TransformError as error:
            raise TransformError(f"{path}: {error}") from error
    if record.kind in _FIELDS:
        return _field(record, path)
    if record.kind == "BSplineTransform":
        return _spline(record, path)
    hint = ""
    if "Velocity" in record.kind or "Diffeomorphic" in record.kind:
        hint = " It holds velocities, and ITK itself needs to integrate them before it maps a point."
    if record.kind.startswith("Inverse"):
        hint = " It is the inverse of a field or spline, as only 3D Slicer writes it; harden it there first."
    raise TransformError(
        f"{path} holds a transform of the class {shortened(record.name)!r}, which is not known here.{hint} Read are "
        "all linear transforms of ITK, displacement fields, B-splines, and compositions of these; convert it to a "
        "displacement field with the program that made it."
    )


def _require_three_dimensions(record: Record, path: Path) -> None:
    """Refuse what is not from 3D to 3D, in double or single precision."""
    dimensions = re.fullmatch(r"[A-Za-z0-9]+_(?:double|float)_(\d+)_(\d+)(?:_[0-3])?", record.name)
    if dimensions is None:
        raise TransformError(f"{path} is damaged: {shortened(record.name)!r} is no class of ITK. {AGAIN}")
    if dimensions.groups() != ("3", "3"):
        raise TransformError(
            f"{path} holds a {record.kind} from {dimensions[1]}D to {dimensions[2]}D; 3D to 3D is needed"
        )


def _grid_of(record: Record, path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine (LPS) from the 18 fixed parameters: size, origin, spacing, direction."""
    fixed = record.fixed.astype(np.float64)
    size = [int(n) if 0 < n < 1e6 and n == int(n) else 0 for n in np.nan_to_num(fixed[:3]).tolist()]
    if len(fixed) == 18 and all(size) and np.isfinite(fixed).all() and (np.abs(fixed) < LARGEST).all():
        affine = np.eye(4)
        affine[:3, :3] = fixed[9:].reshape(3, 3) * fixed[6:9]
        affine[:3, 3] = fixed[3:6]
        if (fixed[6:9] > 0).all():
            return (size[0], size[1], size[2]), affine
    raise TransformError(f"{path}: the grid of the {record.kind} is impossible: {told(fixed)}. {AGAIN}")


def _field(record: Record, path: Path) -> DisplacementField:
    """A displacement field; its vectors stand one after another, x fastest."""
    require_numbers(record, len(record.parameters), (18,), path)
    shape, affine = _grid_of(record, path)
    require_numbers(record, 3 * math.prod(shape), (18,), path)
    try:
        grid = Grid(shape, flip_affine_ras_lps(affine))
    except GeometryError as error:
        raise TransformError(f"{path}: the grid of the displacement field is impossible: {error}") from error
    vectors = record.parameters.reshape(*reversed(shape), 3)
    return field_of(vectors.transpose(3, 2, 1, 0).copy(order="C"), grid, path)


def _spline(record: Record, path: Path) -> ItkTransform:
    """A B-spline, applied by ITK; the order stands at the end of the name where it is not 3."""
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    require_numbers(record, len(record.parameters), (18,), path)
    shape, affine = _grid_of(record, path)
    require_numbers(record, 3 * math.prod(shape), (18,), path)
    ending = record.name.removeprefix("BSplineTransform_").split("_")[3:]
    order = int(ending[0]) if ending else 3
    if min(shape) <= order:
        raise TransformError(f"{path}: a B-spline of order {order} needs more than {shape} control points")
    values = record.parameters.astype(np.float64)
    if not np.isfinite(values).all() or np.abs(values).max() > LARGEST:
        raise TransformError(f"{path}: coefficients of the B-spline are no displacements in mm; write it anew")
    try:
        Grid(shape, flip_affine_ras_lps(affine))
        with captured_messages():
            spline = sitk.BSplineTransform(3, order)
            spline.SetFixedParameters(record.fixed.astype(np.float64).tolist())
            spline.SetParameters(values.tolist())
    except (GeometryError, RuntimeError) as error:
        reason = one_sentence(error) if isinstance(error, RuntimeError) else str(error)
        raise TransformError(f"{path}: the B-spline is impossible: {reason}") from error
    return ItkTransform(spline)


def _flattened(transform: CompositeTransform) -> list[Transform]:
    """Parts of parts, in the order of application."""
    parts: list[Transform] = []
    for part in transform.parts:
        parts.extend(_flattened(part) if isinstance(part, CompositeTransform) else [part])
    return parts


def _signs(dtype: np.dtype[Any]) -> NDArray[Any]:
    """(3, 1, 1, 1) factors that turn the components of vectors from RAS to LPS or back."""
    return np.diag(RAS_LPS_FLIP)[:3].astype(dtype).reshape(3, 1, 1, 1)
