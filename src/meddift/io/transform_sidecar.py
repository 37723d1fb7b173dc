"""`.transform.json`: a sidecar file with what a transform file does not state; and Learn2Reg displacements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import OptionsError, TransformError
from meddift.geometry import Grid, Transform
from meddift.io.text_header import shortened
from meddift.system.atomic import write_json
from meddift.volume import Volume

#: Sidecars have a few kB.
_LARGEST = 1 << 22


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
    """Content of a sidecar: direction, use in 3D Slicer, and both scans of a transform, ready for JSON.

    Args:
        fixed: The fixed scan.
        moving: The moving scan.
        inverse: Whether the file holds the inverse.
        more: Further entries, such as how it was made.
    """
    given, other = ("moving", "fixed") if inverse else ("fixed", "moving")
    return {
        "direction": {"points": f"{given} to {other}", "images": f"{other} onto {given}"},
        "file_space": "LPS",
        "unit": "mm",
        "applies": "T(x) = x + d(x) for a displacement field; the file is used as it stands by SimpleITK, ITK, ANTs, "
        "elastix and 3D Slicer",
        "in_3d_slicer": {
            # Slicer moves what hangs under a node by the inverse of the transform that ITK resamples with.
            "node": f"{other}-to-{given}",
            "put_under_it": f"the {other} image, and points of the {other} scan: they go onto the {given} one",
            "never_put_under_it": f"points of the {given} scan: they would be moved the wrong way; carry them with "
            "'meddift warp --points', or under the node after Invert",
        },
        "fixed": _described(fixed),
        "moving": _described(moving),
        **(more or {}),
    }


def write_sidecar(content: Mapping[str, Any], path: Path | str) -> None:
    """Write what `transform_sidecar` gave, atomically."""
    write_json(dict(content), path)


def file_entry(written: Path, *, name: str) -> dict[str, Any]:
    """Name, size and sha256 of a transform file for its sidecar, by which a damaged or replaced file is noticed.

    Args:
        written: The file as it stands on disk, perhaps under a temporary name.
        name: Its final name.
    """
    with written.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": name, "bytes": written.stat().st_size, "sha256": digest}


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The sidecar of a transform file; None if there is none, or if it is of another program.

    Args:
        path: The transform file.

    Raises:
        TransformError: if there is one that cannot be read.
    """
    beside = sidecar_path(path)
    try:
        with beside.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TransformError(f"{beside} cannot be read: {error.strerror or error}") from error
    try:
        if len(raw) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise TransformError(
            f"{beside} is damaged ({reason}). It belongs to {path.name}: copy both again, or delete it"
        ) from error
    return content if isinstance(content, dict) and "direction" in content else None


def require_same_file(path: Path) -> None:
    """Compare a transform file with what its sidecar says about it, if there is one.

    Raises:
        TransformError: if the file is another, or if the sidecar cannot be read.
    """
    content = read_sidecar(path)
    told = content.get("file") if content is not None else None
    if not isinstance(told, dict) or not isinstance(told.get("sha256"), str):
        return
    # T.h5 and T.tfm would have one sidecar between them: it belongs to the one that it names.
    if Path(str(told.get("name"))).suffix.lower() != path.suffix.lower():
        return
    found = file_entry(path, name=path.name)
    if found["sha256"] != told["sha256"].lower():
        beside = sidecar_path(path).name
        raise TransformError(
            f"{path} is not the file that {beside} describes: its sha256 is {found['sha256'][:12]}..., and should be "
            f"{shortened(told['sha256'])[:12]}... ({found['bytes']} bytes, and should be {told.get('bytes')}). It was "
            f"damaged or replaced: copy both again, or delete {beside} if you replaced the transform yourself"
        )


def write_learn2reg(transform: Transform, fixed: Grid, moving: Grid, path: Path | str) -> None:
    """Write a displacement field in the layout of Learn2Reg: (X, Y, Z, 3) on the fixed grid, in voxels.

    At fixed voxel i the moving voxel is `i + d(i)`, in the order of axes in which the arrays are stored
    (Learn2Reg's own evaluation; no flip).

    Args:
        transform: Fixed to moving.
        fixed: Grid of the fixed scan as it is stored.
        moving: Grid of the moving scan as it is stored.
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
