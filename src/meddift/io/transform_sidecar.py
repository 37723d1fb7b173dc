"""`transform.json`: what a transform file does not say about itself, beside it; and displacements in voxels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import OptionsError
from meddift.geometry import Grid, Transform
from meddift.system.atomic import write_json
from meddift.volume import Volume


def sidecar_path(path: Path) -> Path:
    """`followup.h5` -> `followup.transform.json`."""
    name = path.name
    for suffix in (".nii.gz", path.suffix):
        if suffix and name.lower().endswith(suffix.lower()):
            name = name[: -len(suffix)]
            break
    return path.with_name(f"{name}.transform.json")


def transform_sidecar(
    fixed: Volume, moving: Volume, *, inverse: bool = False, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What to know before using a transform file, ready for JSON.

    Args:
        fixed: The fixed scan.
        moving: The moving scan.
        inverse: Whether the file holds the inverse.
        more: Further entries, such as how it was made.
    """
    points, images = ("moving to fixed", "fixed onto moving") if inverse else ("fixed to moving", "moving onto fixed")
    return {
        "direction": {"points": points, "images": images},
        "file_space": "LPS",
        "unit": "mm",
        "applies": "T(x) = x + d(x) for a displacement field; the file is used as it stands by SimpleITK, ITK, ANTs, "
        "elastix and 3D Slicer",
        "fixed": _described(fixed),
        "moving": _described(moving),
        **(more or {}),
    }


def write_sidecar(content: Mapping[str, Any], path: Path | str) -> None:
    """Write what `transform_sidecar` gave, atomically."""
    write_json(dict(content), path)


def write_learn2reg(transform: Transform, fixed: Grid, moving: Grid, path: Path | str) -> None:
    """Write displacements as Learn2Reg wants them: (X, Y, Z, 3) on the fixed voxels, in voxels.

    At fixed voxel i the moving voxel is `i + d(i)`, in the order of axes in which the arrays are stored
    (Learn2Reg's own evaluation; no flip).

    Args:
        transform: Fixed to moving.
        fixed: Lattice of the fixed scan as it is stored.
        moving: Lattice of the moving scan as it is stored.
        path: Ends with .nii.gz or .nii.

    Raises:
        OptionsError: if the suffix is another.
        OutputError: if the file cannot be written.
    """
    from meddift.system.atomic import atomic_write

    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise OptionsError(f"displacements of Learn2Reg are written to .nii.gz or .nii, got the name {path.name!r}")
    values = np.empty((*fixed.shape, 3), dtype=np.float32)
    for i, centres in enumerate(fixed.planes()):
        world = centres.reshape(-1, 3)
        index = moving.world_to_index(transform.apply(world)) - fixed.world_to_index(world)
        values[i] = index.reshape(*fixed.shape[1:], 3)
    import nibabel

    image = nibabel.Nifti1Image(values, fixed.affine)
    image.set_sform(fixed.affine, 1)
    image.set_qform(fixed.affine, 1)
    with atomic_write(path) as temporary:
        nibabel.save(image, temporary)


def _described(volume: Volume) -> dict[str, Any]:
    grid = volume.grid
    return {
        "sha256": volume.digest(),
        "shape": list(grid.shape),
        "affine_ras_mm": grid.affine.tolist(),
        "spacing_mm": grid.spacing.tolist(),
        "orientation": grid.orientation,
    }
