"""`read_transform` and `write_transform`: transforms in the files of ITK, 3D Slicer and ANTs.

One direction everywhere: a transform maps points of the fixed scan to points of the moving scan. That is the
transform that ITK resamples with, so one and the same file carries points fixed -> moving and pulls the moving
image onto the fixed one. Files are LPS mm, memory is RAS mm.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import MissingFileError, OptionsError, TransformError
from meddift.geometry import CompositeTransform, DisplacementField, Transform
from meddift.io.itk import captured_messages, one_sentence, pixel_kind
from meddift.io.itk_transforms import ItkTransform, field_from_itk, field_to_itk, from_itk, to_itk
from meddift.system.atomic import atomic_write
from meddift.system.memory import require_memory

__all__ = ["ItkTransform", "read_transform", "write_transform"]

_TRANSFORM_SUFFIXES = (".tfm", ".txt", ".h5", ".hdf5", ".mat")
_FIELD_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_WRITABLE = (".h5", ".hdf5", ".tfm", ".nii.gz", ".nii", ".nrrd", ".mha")


def read_transform(path: Path | str) -> Transform:
    """Read a transform that maps fixed points to moving points.

    ITK transform files (`.tfm`, `.txt`, `.h5`, `.hdf5`, ANTs' `.mat`) and images of displacement vectors in LPS mm
    (`.nii.gz` with intent 1007, `.nrrd`, `.mha`). A NIfTI field with intent 1006 is read as ITK reads it: with x and
    y negated.

    Args:
        path: The file.

    Returns:
        AffineTransform for every linear transform; DisplacementField; CompositeTransform; or ItkTransform for
        others, such as B-splines. World RAS mm. Inside a field's lattice they agree with ITK; outside it ITK leaves
        points where they are, DisplacementField moves them like its border.

    Raises:
        MissingFileError: if there is no such file.
        TransformError: if it is no transform of 3D, or holds several, or is a displacement field in voxels.
        MemoryLimitError: if a displacement field does not fit into memory.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"there is no transform file {path}")
    name = path.name.lower()
    if name.endswith(_FIELD_SUFFIXES):
        return _read_field(path)
    if not name.endswith(_TRANSFORM_SUFFIXES):
        raise TransformError(
            f"{path} is not a transform by its name; transforms are read from "
            f"{', '.join(_TRANSFORM_SUFFIXES + _FIELD_SUFFIXES)}"
        )
    return _read_itk(path)


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
    import SimpleITK as sitk  # noqa: N813

    path = Path(path)
    name = path.name.lower()
    if not name.endswith(_WRITABLE):
        raise OptionsError(f"transforms are written to {', '.join(_WRITABLE)}; got the name {path.name!r}")
    if name.endswith((".h5", ".hdf5", ".tfm")):
        if name.endswith(".tfm") and _holds_field(transform):
            raise TransformError(f"{path}: a displacement field as text would be huge; write .h5 or .nii.gz")
        content, write = to_itk(transform, path), sitk.WriteTransform
    elif isinstance(transform, DisplacementField):
        content, write = field_to_itk(transform, path, dtype=np.dtype(np.float32)), sitk.WriteImage
    else:
        raise TransformError(
            f"{path}: an image file holds a displacement field, not a {type(transform).__name__}; write .h5, or .tfm"
        )
    with atomic_write(path) as temporary, captured_messages():
        write(content, str(temporary))


def _read_itk(path: Path) -> Transform:
    """The one transform of an ITK transform file."""
    import SimpleITK as sitk  # noqa: N813

    with path.open("rb") as stream:
        beginning = stream.read(4096)
    if b"(Transform " in beginning and not beginning.startswith(b"#Insight"):
        raise TransformError(
            f"{path} is a parameter file of elastix, which ITK cannot apply; let transformix write the field "
            f"(transformix -def all -tp {path.name} -out .) and read deformationField.nii or .mhd"
        )
    try:
        with captured_messages():
            transform = sitk.ReadTransform(str(path))
    except (RuntimeError, KeyError) as error:
        # KeyError: a class of ITK that SimpleITK reads but has no name for.
        reason = one_sentence(error) if isinstance(error, RuntimeError) else "its type is not known to SimpleITK."
        hint = ""
        if b"InverseDisplacementField" in beginning or _count(path, b"InverseDisplacementField"):
            hint = " It holds an inverse displacement field of 3D Slicer; harden or convert it there first."
        raise TransformError(f"cannot read the transform {path}: {reason}{hint}") from error
    # SimpleITK warns and silently takes the first of several transforms; only a composition is one transform.
    marker = b"TransformType" if path.suffix.lower() in (".h5", ".hdf5") else b"\nTransform: "
    several = _count(path, marker) if path.suffix.lower() != ".mat" else 1
    if several > 1 and not isinstance(transform, sitk.CompositeTransform):
        raise TransformError(
            f"{path} holds {several} transforms side by side and does not say how they belong together; "
            f"save them as one CompositeTransform, or one file each"
        )
    return from_itk(transform, path)


def _read_field(path: Path) -> DisplacementField:
    """A displacement field from an image of vectors."""
    import SimpleITK as sitk  # noqa: N813

    try:
        with captured_messages():
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        dtype, _ = pixel_kind(sitk.GetPixelIDValueAsString(reader.GetPixelID()))
        _check_field(size, components, dtype, path)
        require_memory(2 * 3 * dtype.itemsize * int(np.prod(size)), f"reading the displacement field {path}")
        with captured_messages():
            image = reader.Execute()
    except RuntimeError as error:
        raise TransformError(f"cannot read the displacement field {path}: {one_sentence(error)}") from error
    return field_from_itk(image, path)


def _check_field(size: tuple[int, ...], components: int, dtype: np.dtype[Any], path: Path) -> None:
    """Refuse images that are no displacement field in mm."""
    if len(size) == 3 and components == 3 and dtype.kind == "f":
        return
    if components == 1 and len(size) == 4 and size[3] == 3:
        why = (
            "is a 4-D image of shape (X, Y, Z, 3): the layout of Learn2Reg, whose displacements are in voxels of the "
            "image and not in mm. Convert it to mm in LPS and save it as a 5-D NIfTI with intent code 1007"
        )
    elif components == 1 and len(size) == 5 and size[3:] == (1, 3):
        why = "has the shape of a displacement field but not its intent code; set it to 1007 if it is LPS mm"
    elif components == 1:
        why = "is an image, not a displacement field; give a transform file such as .h5, or a *_Warp.nii.gz"
    else:
        why = f"holds {components} components of type {dtype} on {len(size)} axes, not 3 of a float type on 3 axes"
    raise TransformError(f"{path} {why}")


def _holds_field(transform: Transform) -> bool:
    """Whether a displacement field is among the parts."""
    if isinstance(transform, CompositeTransform):
        return any(_holds_field(part) for part in transform.parts)
    return isinstance(transform, DisplacementField)


def _count(path: Path, marker: bytes) -> int:
    """How often a marker stands in a file, without loading it."""
    if not path.stat().st_size:
        return 0  # an empty file cannot be mapped
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found, position = 0, content.find(marker)
        while position >= 0:
            found, position = found + 1, content.find(marker, position + len(marker))
        return found
