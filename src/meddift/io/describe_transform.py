"""Description of a transform file in numbers that a user can check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meddift.errors import MissingFileError, TransformError
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Transform
from meddift.io.transform_sidecar import read_sidecar
from meddift.io.transforms import is_field_name, read_transform

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm


def describe_transform(
    path: Path | str, *, nifti_form: NiftiForm | None = None, assume_geometry: bool = False
) -> dict[str, Any]:
    """Describe a transform.

    Args:
        path: As for `read_transform`, and so are the options.
        nifti_form: "sform" or "qform".
        assume_geometry: Accept displacement fields that do not state where they lie in space.

    Returns:
        Entries ready for JSON: `path`, `format` ("transform"), `bytes`, `direction`, `frame` (of the file), `sidecar`
        (what the `.transform.json` beside it says: direction, 3D Slicer, both scans, sha256; None without one), and
        `parts` in the order in which points go through them. Each part has `kind`; an affine has `matrix_ras` (rows;
        fixed to moving, world RAS mm), `shift_mm` and `rotation_degrees`; a displacement field has `shape`,
        `spacing_mm`, `origin_ras_mm`, `orientation`, `largest_mm` and `median_mm`; a B-spline has `order`, the
        `shape` of its control points, their `spacing_mm`, and `largest_mm`, of its coefficients.

    Raises:
        MissingFileError: if there is no such file.
        TransformError: if it is no transform, damaged, or not the file of its sidecar.
    """
    path = Path(path)
    transform = read_transform(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
    sidecar = read_sidecar(path)
    return {
        "path": str(path),
        "format": "transform",
        "bytes": path.stat().st_size,
        "direction": _direction(sidecar),
        "frame": "LPS, mm",
        "sidecar": sidecar,
        "parts": [_part(part) for part in _flat(transform)],
    }


def holds_displacements(path: Path) -> bool:
    """Whether an image file is a displacement field by its header, and not a scan; False for what cannot be read."""
    from meddift.io.displacement_images import read_field_header

    if not is_field_name(path):
        return False
    try:
        # Whether it is a displacement field does not depend on its geometry.
        read_field_header(path, nifti_form=None, assume_geometry=True)
    except (TransformError, MissingFileError):
        return False
    return True


def _direction(sidecar: dict[str, Any] | None) -> str:
    """Direction of the transform: from the sidecar, which knows inverses, else as every program reads the file."""
    told = sidecar.get("direction") if sidecar is not None else None
    if isinstance(told, dict) and set(told) >= {"points", "images"}:
        return f"points: {told['points']}; images: {told['images']}"
    return "points of the fixed scan to points of the moving scan; images are pulled from moving to fixed"


def _flat(transform: Transform) -> list[Transform]:
    """All parts, with nested compositions resolved, in the order of application."""
    if isinstance(transform, CompositeTransform):
        return [inner for part in transform.parts for inner in _flat(part)]
    return [transform]


def _part(part: Transform) -> dict[str, Any]:
    """Entries that describe one part."""
    if isinstance(part, AffineTransform):
        # The rotation of the polar decomposition: Higham 1986, doi:10.1137/0907079.
        left, _, right = np.linalg.svd(part.matrix[:3, :3])
        cosine = (np.trace(left @ right) - 1) / 2
        return {
            "kind": "affine",
            "matrix_ras": np.round(part.matrix, 9).tolist(),
            "shift_mm": np.round(part.matrix[:3, 3], 6).tolist(),
            "rotation_degrees": round(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), 4),
        }
    if isinstance(part, DisplacementField):
        grid = part.grid
        lengths = np.linalg.norm(part.displacement.reshape(3, -1), axis=0)
        return {
            "kind": "displacement field",
            "shape": list(grid.shape),
            "spacing_mm": np.round(grid.spacing, 6).tolist(),
            "origin_ras_mm": np.round(grid.origin, 4).tolist(),
            "orientation": grid.orientation,
            "largest_mm": round(float(lengths.max()), 4),
            "median_mm": round(float(np.median(lengths)), 4),
        }
    inner: Any = getattr(part, "transform", None)
    if inner is None or inner.GetName() != "BSplineTransform":
        return {"kind": type(part).__name__ if inner is None else inner.GetName()}
    fixed = inner.GetFixedParameters()
    return {
        "kind": "B-spline",
        "order": inner.GetOrder(),
        "shape": [int(n) for n in fixed[:3]],
        "spacing_mm": np.round(fixed[6:9], 6).tolist(),
        "largest_mm": round(float(np.abs(inner.GetParameters()).max()), 4),
    }
