"""`read_transform` and `write_transform`: transforms in the files of ITK, 3D Slicer and ANTs.

One direction everywhere: a transform maps points of the fixed scan to points of the moving scan. That is the
transform that ITK resamples with, so one and the same file carries points fixed -> moving and pulls the moving
image onto the fixed one. Files are LPS mm, memory is RAS mm.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meddift.errors import MissingFileError, OptionsError, TransformError
from meddift.geometry import DisplacementField, Transform
from meddift.io.itk import captured_messages
from meddift.io.itk_records import Record
from meddift.io.itk_transforms import (
    ItkTransform,
    field_to_itk,
    from_records,
    holds_field,
    require_writable_field,
    to_records,
)
from meddift.io.sniff import what_it_is
from meddift.io.transform_sidecar import require_same_file
from meddift.system.atomic import atomic_write, write_text

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm

__all__ = ["ItkTransform", "read_transform", "write_transform"]

TRANSFORM_SUFFIXES = (".tfm", ".txt", ".h5", ".hdf5", ".mat")
FIELD_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_WRITABLE = (".h5", ".hdf5", ".tfm", ".nii.gz", ".nii", ".nrrd", ".mha")


def read_transform(
    path: Path | str, *, nifti_form: NiftiForm | None = None, assume_geometry: bool = False
) -> Transform:
    """Read a transform that maps fixed points to moving points.

    ITK transform files (`.tfm`, `.txt`, `.h5`, `.hdf5`, ANTs' `.mat`) and images of displacement vectors in LPS mm
    (`.nii.gz` with intent 1007, `.nrrd`, `.mha`). A NIfTI field with intent 1006 is read as ITK reads it: with x and
    y negated. If a `.transform.json` of meddift stands beside the file and holds its sha256, the two must agree.

    Args:
        path: The file.
        nifti_form: "sform" or "qform": which one to believe where a displacement field in NIfTI states two geometries.
        assume_geometry: Accept displacement fields that do not state where they lie in space.

    Returns:
        AffineTransform for every linear transform; DisplacementField; CompositeTransform; or ItkTransform for
        B-splines. World RAS mm. Inside a field's grid they agree with ITK; outside it ITK leaves points where they
        are, DisplacementField moves them like its border.

    Raises:
        MissingFileError: if there is no such file.
        TransformError: if it is no transform of 3D, holds several, is damaged or cut off, is a displacement field in
            voxels, or is not the file of its sidecar.
        MemoryLimitError: if a displacement field does not fit into memory.
    """
    path = Path(path)
    require_file(path)
    require_same_file(path)
    if is_field_name(path):
        from meddift.io.displacement_images import read_field

        return read_field(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
    return from_records(read_records(path), path)


def write_transform(transform: Transform, path: Path | str) -> None:
    """Write a transform for ITK, 3D Slicer and ANTs.

    `.h5` holds exactly one ITK transform (a composition is one CompositeTransform) of float64. `.nii.gz` (5-D, intent
    1007), `.nrrd` and `.mha` hold a displacement field of float32, `.tfm` a transform without a field, as text.

    Args:
        transform: AffineTransform, DisplacementField, CompositeTransform of these, or ItkTransform.
        path: The file; its folder must exist. It is replaced at the end, or not at all.

    Raises:
        TransformError: if this kind of transform does not go into this kind of file.
        OptionsError: if the suffix is none of those above.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(_WRITABLE):
        raise OptionsError(f"transforms are written to {', '.join(_WRITABLE)}; got the name {path.name!r}")
    if name.endswith((".h5", ".hdf5")):
        from meddift.io.itk_hdf5 import write_hdf5_records

        records = to_records(transform, path)
        with atomic_write(path) as temporary:
            write_hdf5_records(records, temporary)
    elif name.endswith(".tfm"):
        from meddift.io.itk_text import text_of

        if holds_field(transform):
            raise TransformError(f"{path}: a displacement field as text would be huge; write .h5 or .nii.gz")
        write_text(text_of(to_records(transform, path)), path)
    elif isinstance(transform, DisplacementField):
        _write_field(transform, path)
    else:
        raise TransformError(
            f"{path}: an image file holds a displacement field, not a {type(transform).__name__}; write .h5, or .tfm"
        )


def _write_field(field: DisplacementField, path: Path) -> None:
    """A displacement field as an image of vectors."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        from meddift.io.displacement_images import write_nifti_field

        require_writable_field(field, path)
        with atomic_write(path) as temporary:
            write_nifti_field(field, temporary, compressed=name.endswith(".gz"))
        return
    import SimpleITK as sitk  # noqa: N813

    image = field_to_itk(field, path, dtype=np.dtype(np.float32))
    with atomic_write(path) as temporary, captured_messages():
        sitk.WriteImage(image, str(temporary))


def require_file(path: Path) -> None:
    """Raise MissingFileError or TransformError unless there is a file that can be read as a transform by its name."""
    try:
        if not path.exists():
            raise MissingFileError(f"there is no transform file {path}")
        if not path.is_file():
            raise TransformError(f"{path} is not a file; give the transform itself")
        with path.open("rb"):
            pass
    except PermissionError as error:
        raise TransformError(f"{path} cannot be read: there is no permission to do so") from error
    except MissingFileError:
        raise
    except OSError as error:
        raise TransformError(f"{path} cannot be read: {error.strerror or error}") from error
    if not path.name.lower().endswith(TRANSFORM_SUFFIXES + FIELD_SUFFIXES):
        found = what_it_is(path)
        content = f", but {found} by its content: rename it" if found else ""
        raise TransformError(
            f"{path} is not a transform by its name{content}; transforms are read from "
            f"{', '.join(TRANSFORM_SUFFIXES + FIELD_SUFFIXES)}"
        )


def is_field_name(path: Path) -> bool:
    """Whether a transform file is an image of displacements, by its name."""
    return path.name.lower().endswith(FIELD_SUFFIXES)


def read_records(path: Path) -> list[Record]:
    """What a transform file of ITK holds: text, MATLAB level 4, or HDF5."""
    with path.open("rb") as stream:
        beginning = stream.read(4096)
    suffix = path.suffix.lower()
    if beginning.startswith(b"\x89HDF") or suffix in (".h5", ".hdf5"):
        from meddift.io.itk_hdf5 import read_hdf5_records

        return read_hdf5_records(path)
    _refuse_other_programs(beginning, path)
    if suffix == ".mat" and not beginning.startswith(b"#Insight"):
        from meddift.io.itk_matlab import read_matlab_records

        return read_matlab_records(path)
    from meddift.io.itk_text import read_text_records

    return read_text_records(path)


def _refuse_other_programs(beginning: bytes, path: Path) -> None:
    """Transforms of other programs that bear the same suffixes: say what they are."""
    if beginning.startswith(b"#Insight"):
        return
    if b"(Transform " in beginning:
        raise TransformError(
            f"{path} is a parameter file of elastix, which ITK cannot apply; let transformix write the field "
            f"(transformix -def all -tp {path.name} -out .) and read deformationField.nii or .mhd"
        )
    rows = beginning.decode("ascii", errors="replace").split("\n")
    matrix = [re.fullmatch(r"\s*(?:[-+.\deE]+[\s,]+){3}[-+.\deE]+\s*", row[:500]) for row in rows[:4]]
    if len(matrix) == 4 and all(matrix):
        raise TransformError(
            f"{path} is a bare 4 x 4 matrix, as FSL FLIRT, greedy and c3d write it, which does not say in which frame "
            "and direction it is. Convert it: c3d_affine_tool (-ref FIXED -src MOVING -fsl2ras for FLIRT) "
            f"{path.name} -oitk affine.tfm"
        )
    if b"LTA file" in beginning or b"volume_info" in beginning or beginning.startswith(b"type      ="):
        raise TransformError(
            f"{path} is a transform of FreeSurfer; convert it: lta_convert --inlta ... --outitk a.tfm"
        )
