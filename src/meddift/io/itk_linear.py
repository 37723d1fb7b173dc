"""The linear transforms of ITK, from their parameters to a matrix.

Each formula is that of the class's `ComputeMatrix` in ITK 5.4 (Modules/Core/Transform/include), the order of
parameters that of its `SetParameters`. All of them map x to M (x - c) + c + t, with a centre c among the fixed
parameters unless the class carries it among the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import TransformError
from meddift.io.itk_records import Record
from meddift.io.text_header import shortened

Floats = NDArray[np.float64]

#: Largest absolute value of a number in a transform, mm; larger ones occur in damaged files only.
LARGEST = 1e9


def matrix_of(record: Record, path: Path) -> Floats | None:
    """The matrix of a linear transform.

    Args:
        record: What the file holds.
        path: For messages.

    Returns:
        (4, 4) float64, fixed LPS mm to moving LPS mm; None if the class is not a linear one.

    Raises:
        TransformError: if the numbers are not as many as the class needs, or impossible.
    """
    linear = _LINEAR.get(record.kind)
    if linear is None:
        return None
    require_numbers(record, linear.count, linear.fixed, path)
    values = record.parameters.astype(np.float64)
    fixed = record.fixed.astype(np.float64)
    for numbers in (values, fixed):
        if not np.isfinite(numbers).all() or (np.abs(numbers) > LARGEST).any():
            raise TransformError(f"{path}: the {record.kind} holds numbers that are no lengths in mm: {told(numbers)}")
    rest, shift = values[: linear.count - linear.shift], values[linear.count - linear.shift :]
    if linear.shift_at is not None:
        shift = values[linear.shift_at : linear.shift_at + 3]
        rest = np.delete(values, range(linear.shift_at, linear.shift_at + 3))
    try:
        matrix = linear.matrix(rest, fixed)
    except ValueError:
        raise TransformError(
            f"{path}: {told(rest[:3])} is no rotation of a {record.kind}, whose versor has a length of at most 1"
        ) from None
    if not np.isfinite(matrix).all() or (np.abs(matrix) > LARGEST).any():
        raise TransformError(f"{path}: the numbers of the {record.kind} make no rotation or scaling: {told(values)}")
    centre = rest[linear.centre_at : linear.centre_at + 3] if linear.centre_at is not None else fixed[:3]
    placed = np.eye(4)
    placed[:3, :3] = matrix
    if len(shift):
        placed[:3, 3] += shift
    if len(centre):
        placed[:3, 3] += centre - matrix @ centre
    return placed


def require_numbers(record: Record, count: int, fixed: tuple[int, ...], path: Path) -> None:
    """Raise TransformError unless a transform has as many numbers as its class needs."""
    if len(record.parameters) != count or len(record.fixed) not in fixed:
        needed = f"{count} parameters and {' or '.join(map(str, fixed))} fixed ones"
        raise TransformError(
            f"{path}: a {record.kind} of ITK has {needed}, and this one {len(record.parameters)} and "
            f"{len(record.fixed)}; the file is damaged or cut off. Copy it again, or write it again with the program "
            "that made it."
        )


def told(numbers: Floats) -> str:
    """Numbers as a message can hold them."""
    return shortened(" ".join(f"{value:g}" for value in numbers[:20].tolist()))


@dataclass(frozen=True)
class _Linear:
    """How a class stores its numbers.

    Attributes:
        count: How many parameters.
        fixed: How many fixed parameters there may be.
        matrix: From the parameters without the shift, and the fixed ones, to M.
        shift: How many of the last parameters are the translation.
        shift_at: Where the translation stands, if not last.
        centre_at: Where the centre stands among the parameters without the shift, if not among the fixed ones.
    """

    count: int
    fixed: tuple[int, ...]
    matrix: Callable[[Floats, Floats], Floats]
    shift: int = 3
    shift_at: int | None = None
    centre_at: int | None = None


def _rows(values: Floats, fixed: Floats) -> Floats:
    return values[:9].reshape(3, 3)


def _unit(values: Floats, fixed: Floats) -> Floats:
    return np.eye(3)


def _euler(values: Floats, fixed: Floats) -> Floats:
    """Rz Rx Ry, or Rz Ry Rx if the fourth fixed parameter says so."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(values[:3]), np.sin(values[:3])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    if len(fixed) == 4 and fixed[3]:
        return np.asarray(about_z @ about_y @ about_x)
    return np.asarray(about_z @ about_x @ about_y)


def _quaternion(values: Floats, fixed: Floats) -> Floats:
    """From (x, y, z, w); its length counts for nothing, as in vnl_quaternion."""
    x, y, z, w = values[:4]
    xx, yy, zz, ww = values[:4] ** 2
    return np.array(
        [
            [ww + xx - yy - zz, 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), ww - xx + yy - zz, 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), ww - xx - yy + zz],
        ]
    )


def _versor(values: Floats, fixed: Floats) -> Floats:
    """From the right part of a versor, (x, y, z) = axis * sin(angle / 2); ITK shortens one that is too long."""
    right = values[:3]
    length = float(np.linalg.norm(right))
    if length > 1.001:
        raise ValueError
    epsilon = 1e-10
    if length >= 1.0 - epsilon:
        right = right / (length + epsilon * length)
    scalar = np.sqrt(max(1.0 - float(right @ right), 0.0))
    return _quaternion(np.array([*right, scalar]), fixed)


def _similarity(values: Floats, fixed: Floats) -> Floats:
    return np.asarray(_versor(values, fixed) * values[3])


def _scale_versor(values: Floats, fixed: Floats) -> Floats:
    return np.asarray(_versor(values, fixed) + np.diag(values[3:6] - 1.0))


def _scale_skew_versor(values: Floats, fixed: Floats) -> Floats:
    skew = np.zeros((3, 3))
    skew[[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]] = values[6:12]
    return np.asarray(_scale_versor(values, fixed) + skew)


def _compose_scale_skew_versor(values: Floats, fixed: Floats) -> Floats:
    skew = np.eye(3)
    skew[[0, 0, 1], [1, 2, 2]] = values[6:9]
    return np.asarray(_versor(values, fixed) @ np.diag(values[3:6]) @ skew)


def _scale(values: Floats, fixed: Floats) -> Floats:
    return np.diag(values)


def _scale_logarithmic(values: Floats, fixed: Floats) -> Floats:
    return np.diag(np.exp(np.minimum(values, 100.0)))


_LINEAR = {
    "AffineTransform": _Linear(12, (3,), _rows),
    "MatrixOffsetTransformBase": _Linear(12, (3,), _rows),
    "FixedCenterOfRotationAffineTransform": _Linear(12, (3,), _rows),
    "ScalableAffineTransform": _Linear(12, (3,), _rows),
    "CenteredAffineTransform": _Linear(15, (3,), _rows, centre_at=9),
    "Euler3DTransform": _Linear(6, (3, 4), _euler),
    "CenteredEuler3DTransform": _Linear(9, (3, 4), _euler, centre_at=3),
    "VersorTransform": _Linear(3, (3,), _versor, shift=0),
    "VersorRigid3DTransform": _Linear(6, (3,), _versor),
    "QuaternionRigidTransform": _Linear(7, (3,), _quaternion),
    "Similarity3DTransform": _Linear(7, (3,), _similarity, shift_at=3),
    "ScaleVersor3DTransform": _Linear(9, (3,), _scale_versor, shift_at=3),
    "ScaleSkewVersor3DTransform": _Linear(15, (3,), _scale_skew_versor, shift_at=3),
    "ComposeScaleSkewVersor3DTransform": _Linear(12, (3,), _compose_scale_skew_versor, shift_at=3),
    "ScaleTransform": _Linear(3, (3,), _scale, shift=0),
    "ScaleLogarithmicTransform": _Linear(3, (3,), _scale_logarithmic, shift=0),
    # These two have no fixed parameters; ITK reads files that give them a centre all the same.
    "TranslationTransform": _Linear(3, (0, 3), _unit),
    "IdentityTransform": _Linear(0, (0, 3), _unit, shift=0),
}
