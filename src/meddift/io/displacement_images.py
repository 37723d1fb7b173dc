"""Displacement fields in images of vectors: `.nii`, `.nii.gz`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`.

Headers are checked like those of scans, and values are read to the last byte, checksum included: ITK fills a cut-off
NIfTI file with zeros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError, TransformError
from meddift.geometry import DisplacementField, Grid
from meddift.io.compressed import AGAIN, opened
from meddift.io.header import ImageHeader
from meddift.io.images import read_header
from meddift.io.itk_transforms import field_of, lps_values
from meddift.io.nifti_geometry import NiftiForm
from meddift.system.memory import require_memory

#: NIFTI_INTENT_DISPVECT, NIFTI_INTENT_VECTOR: ITK negates x and y of the first and takes the second as it stands.
_DISPLACEMENT, _VECTOR = 1006, 1007


def read_field_header(path: Path, *, nifti_form: NiftiForm | None, assume_geometry: bool) -> ImageHeader:
    """Read the header of an image that shall be a displacement field, LPS mm.

    Args:
        path: A file that exists.
        nifti_form: Which geometry to believe where a NIfTI file states two.
        assume_geometry: Accept a file that does not state where it lies.

    Returns:
        The header: three axes of space, three values a voxel, of a floating-point type, on a grid that can be.

    Raises:
        TransformError: if it is something else.
    """
    try:
        header = read_header(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
    except ImageError as error:
        raise TransformError(f"cannot read the displacement field: {error}") from error
    _require_vectors(header, path)
    for problem in header.problems:
        # That it is an image of vectors is a problem for scans only.
        if isinstance(problem, GeometryError):
            raise TransformError(f"cannot use the displacement field: {problem}") from problem
    if header.affine is None:
        raise TransformError(f"cannot use the displacement field: {path} does not say where it lies. {AGAIN}")
    if header.file_format == "NIfTI":
        _require_known_program(path)
    return header


def field_grid(header: ImageHeader) -> Grid:
    """The grid of a displacement field."""
    width, height, depth = header.shape[:3]
    return Grid((width, height, depth), np.asarray(header.affine))


def read_field(path: Path, *, nifti_form: NiftiForm | None, assume_geometry: bool) -> DisplacementField:
    """Read a displacement field; arguments and errors as for `read_field_header`.

    Raises:
        MemoryLimitError: if it does not fit into memory.
    """
    header = read_field_header(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
    grid = field_grid(header)
    require_memory(2 * 3 * header.dtype.itemsize * grid.size, f"reading the displacement field {path}")
    try:
        stored = _voxels(header)
    except ImageError as error:
        raise TransformError(f"cannot read the displacement field: {error}") from error
    displacement: NDArray[np.floating] = np.array(stored, dtype=header.dtype, order="C")
    if header.details.get("intent_code") == _DISPLACEMENT:
        displacement[:2] *= -1
    return field_of(displacement, grid, path)


def write_nifti_field(field: DisplacementField, path: Path, *, compressed: bool) -> None:
    """Write a displacement field as NIfTI: five axes, intent 1007, LPS mm, float32.

    Not through ITK, whose NIfTI writer does not report a full disk.

    Args:
        field: The field; its axes are at right angles.
        path: The file; not atomic by itself.
        compressed: Whether to compress by gzip.

    Raises:
        OSError: if the operating system refuses.
    """
    from meddift.io.nifti import write_nifti_image
    from meddift.library_images import nifti_image

    values = np.moveaxis(lps_values(field, np.dtype(np.float32)), 0, -1)[:, :, :, None]
    image = nifti_image(values, field.grid)
    image.header.set_intent(_VECTOR)
    write_nifti_image(image, path, compressed=compressed)


def _voxels(header: ImageHeader) -> NDArray[np.generic]:
    """(3, X, Y, Z) vectors as they stand."""
    if header.file_format == "NIfTI":
        from meddift.io.nifti import read_nifti_voxels

        return np.moveaxis(read_nifti_voxels(header)[:, :, :, 0], -1, 0)
    if header.file_format == "NRRD":
        from meddift.io.nrrd import read_nrrd_voxels

        return read_nrrd_voxels(header)
    from meddift.io.metaimage import read_metaimage_voxels

    return read_metaimage_voxels(header)


def _require_vectors(header: ImageHeader, path: Path) -> None:
    """Refuse images that are no displacement field in mm."""
    nifti = header.file_format == "NIfTI"
    shape = header.shape
    components = (shape[4] if len(shape) == 5 else 1) if nifti else header.channels
    axes = shape[:3] if nifti and len(shape) == 5 else shape
    intent = header.details.get("intent_code")
    if header.kind == "vector" and len(axes) == 3 and components == 3 and header.dtype.kind == "f":
        if not nifti or intent in (_DISPLACEMENT, _VECTOR):
            return
        why = f"has the shape of a displacement field but the intent code {intent}; set it to 1007 if it is LPS mm"
    elif header.kind == "scalar" and len(shape) == 4 and shape[3] == 3:
        why = (
            "is a 4-D image of shape (X, Y, Z, 3): the layout of Learn2Reg, whose displacements are in voxels of the "
            "image and not in mm. Convert it to mm in LPS and save it as a 5-D NIfTI with intent code 1007"
        )
    elif header.kind == "scalar":
        why = "is an image, not a displacement field; give a transform file such as .h5, or a *_Warp.nii.gz"
    else:
        why = f"holds {components} values of type {header.dtype} on {len(axes)} axes, not 3 of a float type on 3 axes"
    raise TransformError(f"{path} {why}")


def _require_known_program(path: Path) -> None:
    """Refuse fields of NiftyReg, which have ITK's intent code and mean something else (RAS, or positions)."""
    with opened(path) as stream:
        raw = stream.read(540)
    name = raw[508:524] if int.from_bytes(raw[:4], "little") == 540 else raw[328:344]
    if name.startswith(b"NREG"):
        raise TransformError(
            f"{path} is a field of NiftyReg, whose vectors are RAS mm or positions; convert it to a displacement "
            "field of ITK first (reg_transform -disp, then negate x and y and set the intent code 1007)"
        )
