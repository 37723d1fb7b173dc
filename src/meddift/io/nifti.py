"""NIfTI-1 and NIfTI-2 in one file (`.nii`, `.nii.gz`) or as a pair of header and voxels (`.hdr`, `.img`).

Voxels are read and written without ITK, whose NIfTI code fills cut-off files with zeros and does not
report a full disk.
"""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, OptionsError
from meddift.geometry import Grid
from meddift.io.compressed import opened, read_voxels, require_room
from meddift.io.header import REPAIR, ImageHeader, content_problems, stored_shape
from meddift.io.nifti_geometry import NiftiForm, nifti_affine
from meddift.io.sniff import what_it_is
from meddift.library_images import nifti_image

#: Largest offset of the voxels that is accepted, bytes.
_LARGEST_OFFSET = 1 << 40

#: Either file of a pair: its stem, which half it is, and whether that is compressed.
_PAIR_NAME = re.compile(r"(.+)\.(hdr|img)(\.gz)?", re.IGNORECASE)


def read_nifti_header(path: Path, *, nifti_form: NiftiForm | None, assume_geometry: bool) -> ImageHeader:
    """Read and judge the header of a NIfTI file.

    Args:
        path: A file that exists.
        nifti_form: Which of the two geometries to believe, where they differ.
        assume_geometry: Accept a file that states no position and direction; they are taken as ITK takes them
            (index axes run to the left, to posterior and to superior, voxel (0, 0, 0) lies at the origin).

    Returns:
        The header, with every problem found.

    Raises:
        ImageError: if the file is no NIfTI file at all.
        OptionsError: if `nifti_form` is something else.
    """
    if nifti_form not in (None, "sform", "qform"):
        raise OptionsError(f'the NIfTI form must be "sform" or "qform", got {nifti_form!r}')
    head, voxels = _files(path)
    header = _parse(head)
    shape = stored_shape(header.get_data_shape())
    kind, dtype = _pixel_kind(header, path)
    problems = content_problems(shape, kind, path)
    try:
        _voxel_offset(header, path)
        _scaling(header, path)
        require_room(voxels, math.prod(shape) * header.get_data_dtype().itemsize)
    except ImageError as error:
        problems.append(error)
    details: dict[str, Any] = {
        "sform_code": int(header["sform_code"]),
        "qform_code": int(header["qform_code"]),
        "intent_code": int(header["intent_code"]),
    }
    affine = None
    if len(shape) >= 3 and min(shape) >= 1:
        affine, found = nifti_affine(header, shape[:3], path, nifti_form=nifti_form, assume_geometry=assume_geometry)
        problems += found
    files = tuple(dict.fromkeys((head, voxels)))
    source = (header, voxels)
    return ImageHeader(path, "NIfTI", shape, dtype, affine, kind, tuple(problems), details, files=files, source=source)


def read_nifti_voxels(header: ImageHeader) -> NDArray[Any]:
    """Read the voxels that belong to a header without problems.

    Returns:
        (X, Y, Z) array of the stored type, or float32 where the header asks for scaling.

    Raises:
        ImageError: if the file is cut off or damaged.
    """
    raw, voxels = header.source
    data = read_voxels(voxels, offset=_voxel_offset(raw, header.path), shape=header.shape, dtype=raw.get_data_dtype())
    slope, intercept = _scaling(raw, header.path)
    if (slope, intercept) == (1.0, 0.0):
        return data
    scaled = np.empty(data.shape, dtype=np.float32)
    # Along the last axis, piece by piece: double precision without a double-precision copy. What a damaged slope makes
    # of a value is not finite, and is judged where the values are used.
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(data.shape[-1]):
            scaled[..., k] = data[..., k].astype(np.float64) * slope + intercept
    return scaled


def write_nifti(data: NDArray[Any], grid: Grid, path: Path, *, compressed: bool) -> None:
    """Write a NIfTI-1 file whose sform and qform agree and both have code 1 (scanner).

    Args:
        data: (X, Y, Z), of a type that NIfTI knows.
        grid: Its grid.
        path: The file; not atomic by itself.
        compressed: Whether to compress by gzip.

    Raises:
        OSError: if the operating system refuses.
    """
    write_nifti_image(nifti_image(data, grid), path, compressed=compressed)


def write_nifti_image(image: Any, path: Path, *, compressed: bool) -> None:
    """Write a nibabel NIfTI image; equal images make equal files.

    Args:
        image: As `nifti_image` makes it.
        path: The file; not atomic by itself.
        compressed: Whether to compress by gzip.

    Raises:
        OSError: if the operating system refuses.
    """
    with path.open("wb") as stream:
        if not compressed:
            image.to_stream(stream)
            return
        # Without name and time in the gzip header, equal images give equal files.
        with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=3, mtime=0) as packed:
            image.to_stream(packed)


# ---------------------------------------------------------------------- internals


def _files(path: Path) -> tuple[Path, Path]:
    """Header and voxels: the same file, or the two of a pair, whichever of them is named."""
    named = _PAIR_NAME.fullmatch(path.name)
    if named is None:
        return path, path
    stem, half, packed = named[1], named[2].lower(), named[3] or ""
    wanted = "img" if half == "hdr" else "hdr"
    names = [f"{stem}.{kind}{end}" for end in (packed, "", ".gz") for kind in (wanted, wanted.upper())]
    other = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
    if other is not None:
        return (path, other) if half == "hdr" else (other, path)
    found = what_it_is(path)
    content = f", and {found} by its content" if found else ""
    raise ImageError(
        f"there is no {names[0]} beside {path}, which is one of a pair of files (.hdr and .img) by its name{content}. "
        "Copy both files of the pair, or save the scan as one .nii.gz file."
    )


def _parse(path: Path) -> Any:
    """The nibabel header as it stands in the file: nothing repaired, nothing guessed."""
    import nibabel

    with opened(path) as stream:
        raw = stream.read(540)
    if not raw:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again.")
    sizes = {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}
    try:
        if 348 in sizes and len(raw) >= 348:
            header = nibabel.Nifti1Header(raw[:348], check=False)
            magic = bytes(header["magic"])
        elif 540 in sizes and len(raw) >= 540:
            header = nibabel.Nifti2Header(raw[:540], check=False)
            magic = bytes(header["magic"])[:3]
        else:
            raise ImageError(f"{path} is not a NIfTI image, whatever its name says: it begins with {raw[:8]!r}.")
        header.get_data_shape()
    except ImageError:
        raise
    except Exception as error:  # a damaged header makes nibabel raise almost anything
        raise ImageError(f"the NIfTI header of {path} is damaged: {error}.") from error
    if float(header["pixdim"][0]) not in (-1.0, 1.0):
        header["pixdim"][0] = -1.0 if header["pixdim"][0] < 0 else 1.0  # as the standard reads it; often 0
    if magic[:3] not in (b"n+1", b"n+2", b"ni1", b"ni2"):
        raise ImageError(
            f"{path} is in the old Analyze 7.5 format, which does not tell left from right; "
            "save it as NIfTI with a tool that knows."
        )
    if _is_half(header) != (_PAIR_NAME.fullmatch(path.name) is not None):
        is_what = "one half of a pair (.hdr and .img)" if _is_half(header) else "a whole NIfTI image (.nii)"
        raise ImageError(f"{path} is {is_what} by its header, not by its name. Give it the name that it should have.")
    return header


def _is_half(header: Any) -> bool:
    """Whether the voxels lie in another file than the header."""
    return bytes(header["magic"]).startswith(b"ni")


def _pixel_kind(header: Any, path: Path) -> tuple[str, np.dtype[Any]]:
    """Kind and native type of the voxels."""
    try:
        dtype = np.dtype(header.get_data_dtype())
    except Exception as error:
        raise ImageError(f"{path} has voxels of an unknown type (NIfTI code {int(header['datatype'])}).") from error
    if dtype.fields is not None:
        return "color", dtype
    if dtype.kind == "c":
        return "complex", dtype
    if dtype.kind not in "iuf":
        raise ImageError(f"{path} has voxels of a type that is not a number ({dtype}).")
    # Vectors lie along the fifth axis (NIfTI-1 standard, intent codes 1006 and 1007).
    shape = stored_shape(header.get_data_shape())
    return ("vector" if len(shape) == 5 and shape[3] == 1 else "scalar"), dtype.newbyteorder("=")


def _voxel_offset(header: Any, path: Path) -> int:
    """Bytes before the first voxel; behind the header at least, where that is in the same file."""
    stated = float(header["vox_offset"])
    if not abs(stated) <= _LARGEST_OFFSET:  # NaN, too
        raise ImageError(f"the header of {path} says that voxels begin at byte {stated:g}. {REPAIR}")
    least = 0 if _is_half(header) else 352 if int(header["sizeof_hdr"]) == 348 else 544
    return max(int(stated), least)


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    """Slope and intercept; slope 0 or not a number means no scaling, as the standard says."""
    try:
        slope, intercept = header.get_slope_inter()
    except Exception as error:
        raise ImageError(f"the intensity scaling in the header of {path} is not usable: {error}.") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))
