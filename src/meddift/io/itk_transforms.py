"""ITK's transforms and ours, in memory: the frames, the order of compositions, and what has no class of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import TransformError
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
from meddift.io.header import SHEAR_TOLERANCE
from meddift.io.itk import affine_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ItkTransform:
    """A transform of SimpleITK that has no class of its own here, such as a B-spline; nothing is resampled.

    Attributes:
        transform: SimpleITK.Transform of dimension 3, LPS mm, fixed points to moving points.
    """

    transform: Any

    def apply(self, positions: ArrayLike) -> Floats:
        """Map (N, 3) world RAS mm on the fixed scan to the moving scan; NaN rows stay NaN.

        Point by point through `TransformPoint`: a few microseconds each.
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


def from_itk(transform: Any, path: Path) -> Transform:
    """A SimpleITK transform (LPS) as one of ours (RAS); both map the same points to the same points.

    Args:
        transform: SimpleITK.Transform.
        path: The file it comes from, for messages.

    Raises:
        TransformError: if it is not 3D, singular, or holds values that are not finite.
    """
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    if transform.GetDimension() != 3:
        raise TransformError(f"{path} holds a {transform.GetDimension()}D transform; 3D is needed")
    if isinstance(transform, sitk.CompositeTransform):
        count = transform.GetNumberOfTransforms()
        try:
            # ITK applies the transform that was added last first; our compositions stand in the order of application.
            members = [transform.GetNthTransform(i) for i in reversed(range(count))]
        except KeyError:
            # SimpleITK has no Python class for a few linear transforms, but it applies them inside a composition.
            return ItkTransform(transform)
        parts = tuple(from_itk(member, path) for member in members)
        return parts[0] if count == 1 else CompositeTransform(parts)
    if isinstance(transform, sitk.DisplacementFieldTransform):
        return field_from_itk(transform.GetDisplacementField(), path)
    if transform.IsLinear():
        return _affine_from_itk(transform, path)
    return ItkTransform(transform)


def to_itk(transform: Transform, path: Path) -> Any:
    """One of our transforms (RAS) as a SimpleITK transform (LPS).

    Args:
        transform: Affine, displacement field, composition of these, or what `from_itk` gave.
        path: The file it is for, for messages.

    Raises:
        TransformError: if it is of another class, or a field that ITK cannot hold.
    """
    import SimpleITK as sitk  # noqa: N813

    match transform:
        case AffineTransform():
            matrix = flip_affine_ras_lps(transform.matrix) @ RAS_LPS_FLIP
            return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist(), [0.0, 0.0, 0.0])
        case DisplacementField():
            # SimpleITK takes the image over and leaves an empty one behind: it gets one of its own.
            return sitk.DisplacementFieldTransform(field_to_itk(transform, path, dtype=np.dtype(np.float64)))
        case CompositeTransform():
            composite = sitk.CompositeTransform(3)
            for part in reversed(_flattened(transform)):
                composite.AddTransform(to_itk(part, path))
            return composite
        case ItkTransform():
            return transform.transform
    raise TransformError(f"a {type(transform).__name__} cannot be written to {path}; sample it as a DisplacementField")


def field_from_itk(image: Any, path: Path) -> DisplacementField:
    """A SimpleITK image of 3-vectors (LPS mm) as a displacement field.

    Args:
        image: SimpleITK.Image, 3D, three components.
        path: The file it comes from, for messages.

    Raises:
        TransformError: if it holds values that are not finite.
    """
    import SimpleITK as sitk  # noqa: N813

    stored = sitk.GetArrayViewFromImage(image)
    wrong = stored.size - int(np.isfinite(stored).sum())
    if wrong:
        raise TransformError(f"{path}: {wrong} values of the displacement field are not finite; write it anew")
    displacement = stored.transpose(3, 2, 1, 0).copy(order="C")
    displacement *= _signs(displacement.dtype)
    width, height, depth = image.GetSize()
    return DisplacementField(displacement, Grid((width, height, depth), affine_of(image)))


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

    if not np.isfinite(field.displacement).all():
        raise TransformError(f"the displacement field for {path} holds values that are not finite")
    if field.grid.shear > SHEAR_TOLERANCE:
        raise TransformError(
            f"the axes of the displacement field for {path} are not at right angles (largest cosine "
            f"{field.grid.shear:.2g}), which ITK refuses; put it on a grid with right angles"
        )
    values = np.asarray(field.displacement, dtype=dtype) * _signs(dtype)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(3, 2, 1, 0)), isVector=True)
    affine = flip_affine_ras_lps(field.grid.affine)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(field.grid.spacing.tolist())
    direction = affine[:3, :3] / field.grid.spacing
    # ITK 5.4 inverts directions with entries below some 1e-290 wrongly, and says so on the error stream only.
    direction[np.abs(direction) < 1e-15] = 0.0
    image.SetDirection(direction.ravel().tolist())
    return image


def _affine_from_itk(transform: Any, path: Path) -> AffineTransform:
    """Any linear transform of ITK, whatever its parameters mean, from where it takes four points."""
    far = 1000.0
    origin = np.array(transform.TransformPoint([0.0, 0.0, 0.0]))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis in range(3):
        corner = [0.0, 0.0, 0.0]
        corner[axis] = far
        matrix[:3, axis] = (np.array(transform.TransformPoint(corner)) - origin) / far
    try:
        return AffineTransform(flip_affine_ras_lps(matrix) @ RAS_LPS_FLIP)
    except TransformError as error:
        raise TransformError(f"{path}: {error}") from error


def _flattened(transform: CompositeTransform) -> list[Transform]:
    """Parts of parts, in the order of application."""
    parts: list[Transform] = []
    for part in transform.parts:
        parts.extend(_flattened(part) if isinstance(part, CompositeTransform) else [part])
    return parts


def _signs(dtype: np.dtype[Any]) -> NDArray[Any]:
    """(3, 1, 1, 1) factors that turn the components of vectors from RAS to LPS or back."""
    return np.diag(RAS_LPS_FLIP)[:3].astype(dtype).reshape(3, 1, 1, 1)
