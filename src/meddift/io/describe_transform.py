"""What a transform file holds, told in numbers that people can check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Transform
from meddift.io.transforms import read_transform


def describe_transform(path: Path | str) -> dict[str, Any]:
    """Describe a transform.

    Args:
        path: As for `read_transform`.

    Returns:
        Entries ready for JSON: `path`, `format` ("transform"), `bytes`, `direction`, and `parts` in the order in which
        they are applied. Each part has `kind`; an affine has `matrix_ras` (rows; fixed to moving, world RAS mm),
        `shift_mm` and `rotation_degrees`; a displacement field has `shape`, `spacing_mm`, `origin_ras_mm`,
        `orientation`, `largest_mm` and `median_mm`.

    Raises:
        MissingFileError: if there is no such file.
        TransformError: if it is no transform.
    """
    transform = read_transform(path)
    return {
        "path": str(path),
        "format": "transform",
        "bytes": Path(path).stat().st_size,
        "direction": "points of the fixed scan to points of the moving scan; images are pulled from moving to fixed",
        "parts": [_part(part) for part in _flat(transform)],
    }


def _flat(transform: Transform) -> list[Transform]:
    """Parts of parts, in the order of application."""
    if isinstance(transform, CompositeTransform):
        return [inner for part in transform.parts for inner in _flat(part)]
    return [transform]


def _part(part: Transform) -> dict[str, Any]:
    """One part."""
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
    return {"kind": type(part).__name__ if inner is None else inner.GetName()}
