"""Reading and writing scans. In memory they are (X, Y, Z) arrays with a Grid in world RAS mm."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from meddift.errors import ImageError, MissingFileError, OptionsError
from meddift.io.header import ImageHeader
from meddift.io.sniff import usual_suffix, what_it_is
from meddift.io.text_header import shortened
from meddift.library_images import storable_array
from meddift.system.atomic import atomic_write
from meddift.system.memory import require_memory
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii.gz", ".nii")
PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
MGH_SUFFIXES = (".mgz", ".mgh")
DICOM_SUFFIXES = (".dcm", ".ima")
IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES, *MGH_SUFFIXES, *DICOM_SUFFIXES)

#: What `write_volume` can write. Formats of two files (.nhdr, .mhd) cannot be replaced in one step.
WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


@np.errstate(all="ignore")  # numbers of damaged headers overflow; what is not finite is refused with a sentence
def read_volume(
    path: Path | str,
    *,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
    series: str | None = None,
    check: bool = True,
) -> Volume:
    """Read a scan: NIfTI, NRRD, MetaImage, MGH, or a folder with a DICOM series.

    Args:
        path: The file; or the folder of a DICOM series, with its files in it or below it, or one of these files.
        nifti_form: "sform" or "qform": which one to believe where a NIfTI file states two geometries.
        assume_geometry: Accept files that do not state where they lie in space.
        series: Which DICOM series, where a folder holds several: its UID, a unique beginning of it, or its
            description.
        check: Whether to apply `check_scan`; off for label maps, which may be constant.

    Returns:
        Volume of (X, Y, Z), index order as in nibabel, native byte order. Integer types are kept where the
        file asks for no scaling (DICOM: where scaled values are whole numbers); all else is float32.

    Raises:
        MissingFileError: if there is nothing at `path`.
        ImageError: if it is no image, damaged, cut off, or not one 3D scalar scan.
        GeometryError: if the geometry is impossible, sheared, not stated, or stated in two ways.
        MemoryLimitError: if the scan does not fit into memory.
        OptionsError: if an option is not known.
    """
    header = read_header(path, nifti_form=nifti_form, assume_geometry=assume_geometry, series=series)
    if header.problems:
        raise header.problems[0]
    for note in header.notes:
        logger.warning("%s", note)
    # The stored voxels and the returned array are in memory at the same time.
    voxels = math.prod(header.shape)
    require_memory(voxels * (header.dtype.itemsize + min(header.dtype.itemsize, 8) + 4), f"reading {header.path}")
    modality = str(header.details.get("modality", ""))
    volume = Volume(plain_array(_voxels(header)), header.grid, notes=header.notes, modality=modality)
    return check_scan(volume, str(path)) if check else volume


def write_volume(volume: Volume, path: Path | str, *, like_dtype: DTypeLike | None = None) -> None:
    """Write a scan, map or label image as NIfTI, NRRD or MetaImage; the suffix decides. Atomic.

    NIfTI files get an sform and a qform that agree, both with code 1, so that no two programs place them
    differently.

    Args:
        volume: (X, Y, Z), or (1, X, Y, Z). Booleans become uint8, float16 becomes float32, and 64-bit integers
            become int32 where they fit, because few programs read them.
        path: Ends with .nii.gz, .nii, .nrrd or .mha.
        like_dtype: Convert to this type first; for integers, values are rounded and clipped to its range.

    Raises:
        OptionsError: if the suffix is not one of those.
        ImageError: if the volume has several channels, or values of a type no format holds.
        GeometryError: if the axes of the grid are not orthogonal.
        OutputError: if the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    suffix = suffix_of(path, WRITABLE_SUFFIXES)
    if suffix is None:
        raise OptionsError(
            f"cannot tell the format of {path} from its name; end it with one of {', '.join(WRITABLE_SUFFIXES)}"
        )
    data = storable_array(volume.data, volume.grid, str(path), like_dtype=like_dtype)
    # SimpleITK does not know its own suffixes in capital letters.
    with atomic_write(path, suffix=None if path.name.endswith(suffix) else suffix) as temporary:
        if suffix in NIFTI_SUFFIXES:
            from meddift.io.nifti import write_nifti

            write_nifti(data, volume.grid, temporary, compressed=suffix == ".nii.gz")
        else:
            from meddift.io.itk_files import write_itk

            write_itk(data, volume.grid, temporary)


def check_scan(volume: Volume, name: str = "the scan") -> Volume:
    """Refuse a scan that cannot be matched, and fill voxels that are NaN or infinite.

    Args:
        volume: A scan.
        name: What to call it in messages: its path.

    Returns:
        The same volume; or, if some voxels are NaN or infinite, a copy where they have the smallest finite
        value, which is also logged as a warning.

    Raises:
        ImageError: if all voxels are equal, or none is a finite number.
    """
    data = volume.data
    if data.dtype.kind == "f":
        finite = np.isfinite(data)
        count = data.size - int(finite.sum())
        if count == data.size:
            raise ImageError(f"{name} holds no finite number: every voxel is NaN or infinite.")
        if count:
            low = data[finite].min()
            logger.warning(
                "%s: %d of %d voxels (%.2g %%) are not finite numbers; they were set to the smallest value, %g",
                name, count, data.size, 100 * count / data.size, low,
            )  # fmt: skip
            volume = replace(volume, data=np.where(finite, data, low))
            data = volume.data
    if data.size and data.min() == data.max():
        raise ImageError(f"{name} is constant: every voxel is {data.flat[0]}. There is nothing to find in it.")
    return volume


@np.errstate(all="ignore")
def read_header(
    path: Path | str,
    *,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
    series: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> ImageHeader:
    """Read and check the header of an image of any known format; arguments as for `read_volume`.

    `progress` is called with a sentence and the share that is done, while headers of a DICOM folder are read.

    Raises:
        MissingFileError: if there is nothing at `path`.
        ImageError: if it is no image of a known format.
    """
    path = Path(path)
    require_existing(path)
    if path.name.upper() == "DICOMDIR" and path.is_file():  # the table of contents of the folder that it lies in
        path = path.parent
    if path.is_dir():
        from meddift.io.dicom import read_dicom_header

        return read_dicom_header(path, series=series, progress=progress)
    suffix = suffix_of(path, IMAGE_SUFFIXES)
    if suffix in NIFTI_SUFFIXES + PAIR_SUFFIXES:
        from meddift.io.nifti import read_nifti_header

        return read_nifti_header(path, nifti_form=nifti_form, assume_geometry=assume_geometry)
    if suffix in NRRD_SUFFIXES:
        from meddift.io.nrrd import read_nrrd_header

        return read_nrrd_header(path, assume_geometry=assume_geometry)
    if suffix in META_SUFFIXES:
        from meddift.io.metaimage import read_metaimage_header

        return read_metaimage_header(path, assume_geometry=assume_geometry)
    if suffix in MGH_SUFFIXES:
        from meddift.io.mgh import read_mgh_header

        return read_mgh_header(path)
    if suffix in DICOM_SUFFIXES or _is_dicom(path):
        from meddift.io.dicom import read_dicom_header

        header = read_dicom_header(path, series=series)
        if header.details["number_of_slices"] > 1:  # an enhanced object: all of a scan in one file
            return header
        return read_dicom_header(path.parent, series=series, holding=path, progress=progress)
    raise ImageError(_not_readable(path))


def suffix_of(path: Path, known: tuple[str, ...]) -> str | None:
    """The first of the known suffixes (lower case, with dots) that a name ends with, or None."""
    name = path.name.lower()
    return next((suffix for suffix in known if name.endswith(suffix)), None)


def plain_array(data: NDArray[Any]) -> NDArray[Any]:
    """Voxels in memory order x, y, z, native bytes; booleans and integers as they are, all else float32."""
    if data.dtype.kind in "iu":
        return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
    if data.dtype.kind == "b":
        return np.ascontiguousarray(data, dtype=np.uint8)
    with np.errstate(over="ignore"):  # beyond float32 means infinite; check_scan says so
        return np.ascontiguousarray(data, dtype=np.float32)


# ---------------------------------------------------------------------- internals


def _voxels(header: ImageHeader) -> NDArray[Any]:
    """Read the voxels by the reader of the format."""
    if header.file_format == "NIfTI":
        from meddift.io.nifti import read_nifti_voxels

        return read_nifti_voxels(header)
    if header.file_format == "MGH":
        from meddift.io.mgh import read_mgh_voxels

        return read_mgh_voxels(header)
    if header.file_format == "DICOM":
        from meddift.io.dicom import read_dicom_voxels

        return read_dicom_voxels(header)
    if header.file_format == "NRRD":
        from meddift.io.nrrd import read_nrrd_voxels

        return read_nrrd_voxels(header)
    from meddift.io.metaimage import read_metaimage_voxels

    return read_metaimage_voxels(header)


def _not_readable(path: Path) -> str:
    """A sentence that says why a file cannot be read as a scan, from its name and its first bytes."""
    try:
        found = what_it_is(path)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}."
    suffix = usual_suffix(found)
    known = ", ".join((*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES, *MGH_SUFFIXES))
    if suffix:
        suffix = {".nii": ".nii.gz", ".mgh": ".mgz"}.get(suffix, suffix) if _is_packed(path) else suffix
        return (
            f"{path} is {found} by its content; give it a name that ends with {suffix}, so that every program knows."
        )
    is_what = f"it is {found}" if found else "its content is none of an image that meddift knows"
    return f"{path} is not an image that meddift can read: {is_what}, and its name ends with none of {known}."


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def require_existing(path: Path) -> None:
    """Raise MissingFileError if a path does not exist, with a suggestion of a similar name."""
    try:
        if path.exists():
            return
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise MissingFileError(f"{shortened(str(path))} cannot be read: {reason}.") from error
    if path.is_symlink():
        raise MissingFileError(f"{path} is a link to {path.readlink()}, which does not exist.")
    if not path.parent.is_dir():
        raise MissingFileError(f"{path} does not exist, nor does the folder {path.parent}.")
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    near += [name for name in names if name.split(".")[0] == path.name.split(".")[0]]
    hint = f" Did you mean {path.with_name(near[0])}?" if near else ""
    raise MissingFileError(f"{path} does not exist.{hint}")


def _is_dicom(path: Path) -> bool:
    """Whether a file has the DICOM mark after its preamble."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
