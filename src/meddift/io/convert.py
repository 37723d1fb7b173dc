"""Conversion of scans in memory, as objects of other libraries, to volumes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, MeddiftError, OptionsError
from meddift.geometry import flip_affine_ras_lps
from meddift.io.header import content_problems, geometry_problems, stored_shape
from meddift.io.images import check_scan, plain_array, read_volume
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.io.nifti_geometry import NiftiForm


def as_volume(
    scan: Any,
    *,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
    series: str | None = None,
    check: bool = True,
) -> Volume:
    """Convert a scan from any supported form to a volume.

    Args:
        scan: A path (see `read_volume`), a Volume, a SimpleITK.Image, a nibabel image, a TorchIO image, or a
            MONAI MetaTensor of shape (X, Y, Z) or (1, X, Y, Z).
        nifti_form: "sform" or "qform", for NIfTI files and nibabel images of them.
        assume_geometry: Accept scans that do not state where they lie in space.
        series: Which DICOM series, for folders.
        check: Whether to apply `check_scan`; never applied to a Volume, which is returned as it is if its axes are
            orthogonal.

    Returns:
        Volume of (X, Y, Z); types as in `read_volume`.

    Raises:
        OptionsError: if `scan` is none of these.
        ImageError: if it is not one 3D scalar scan.
        GeometryError: if its geometry is impossible, sheared, or stated in two ways.
    """
    if isinstance(scan, Volume):
        _raise_first(geometry_problems(scan.grid.shape, scan.grid.affine, "the volume"))
        return scan
    if isinstance(scan, str | Path):
        return read_volume(scan, nifti_form=nifti_form, assume_geometry=assume_geometry, series=series, check=check)
    library = type(scan).__module__.partition(".")[0]
    if library == "SimpleITK" and hasattr(scan, "GetDirection"):
        return from_sitk(scan, check=check)
    if _is_nibabel_image(scan):
        return _from_nibabel(scan, nifti_form=nifti_form, assume_geometry=assume_geometry, check=check)
    if hasattr(scan, "affine") and hasattr(scan, "detach") and hasattr(scan, "meta"):
        return _from_metatensor(scan, check=check)
    if all(hasattr(scan, name) for name in ("affine", "data", "spatial_shape")):
        return _from_torchio(scan, check=check)
    way_out = ""
    if isinstance(scan, np.ndarray) or hasattr(scan, "detach"):
        way_out = " A bare array does not say where it lies in space: wrap it as Volume(array, Grid(shape, affine))."
    raise OptionsError(
        f"a scan must be a path, a Volume, or an image of SimpleITK, nibabel, MONAI or TorchIO, "
        f"got {type(scan).__module__}.{type(scan).__qualname__}.{way_out}"
    )


def from_sitk(image: Any, *, check: bool = True) -> Volume:
    """Convert a SimpleITK.Image, whose world is LPS mm.

    Args:
        image: 3D, scalar.
        check: Whether to apply `check_scan`.

    Raises:
        ImageError: if it is not one 3D scalar scan.
        GeometryError: if its geometry is impossible or sheared.
    """
    from meddift.io.itk import affine_of, pixel_kind
    from meddift.io.itk_files import array_of

    name = "the SimpleITK image"
    shape = stored_shape(image.GetSize())
    _, kind = pixel_kind(image.GetPixelIDTypeAsString())
    _raise_first(content_problems(shape, kind, name))
    affine = affine_of(image)
    return _finished(array_of(image), affine, name, check=check)


# ---------------------------------------------------------------------- internals


def _is_nibabel_image(scan: Any) -> bool:
    """Whether it is an image of nibabel; nibabel is not imported to find out."""
    nibabel = sys.modules.get("nibabel")
    return nibabel is not None and isinstance(scan, nibabel.spatialimages.SpatialImage)


def _from_nibabel(image: Any, *, nifti_form: NiftiForm | None, assume_geometry: bool, check: bool) -> Volume:
    """Convert a nibabel image; its NIfTI header is checked like that of a file."""
    import nibabel

    from meddift.io.nifti_geometry import TOLERANCE_MM, corner_distance, nifti_affine

    filename = image.get_filename()
    name = "the nibabel image" + (f" of {filename}" if filename else "")
    shape = stored_shape(image.shape)
    dtype = np.dtype(image.get_data_dtype())
    kind = "color" if dtype.fields is not None else "complex" if dtype.kind == "c" else "scalar"
    _raise_first(content_problems(shape, kind, name))
    affine = image.affine
    header = image.header
    if isinstance(image, nibabel.analyze.AnalyzeImage) and not isinstance(image, nibabel.nifti1.Nifti1Pair):
        raise GeometryError(
            f"{name} is in the old Analyze format, which does not tell left from right; save it as NIfTI with a tool "
            "that knows."
        )
    stated = header.get_best_affine() if hasattr(header, "get_best_affine") else affine
    if affine is not None and len(shape) == 3 and not corner_distance(shape, affine, stated) <= TOLERANCE_MM:
        raise GeometryError(
            f"{name} states two geometries: its affine was changed after its header, in which another one stands. "
            "Make a new image of the affine that holds: type(image)(image.dataobj, affine)."
        )
    if isinstance(image, nibabel.nifti1.Nifti1Pair):
        affine, problems = nifti_affine(header, shape, name, nifti_form=nifti_form, assume_geometry=assume_geometry)
        _raise_first(problems)
    if affine is None:
        raise GeometryError(f"{name} has no affine: nothing says where it lies in space.")
    data = np.asanyarray(image.dataobj).reshape(shape)
    return _finished(data, np.asarray(affine, dtype=np.float64), name, check=check)


def _from_metatensor(tensor: Any, *, check: bool) -> Volume:
    """Convert a MONAI MetaTensor; its world is RAS unless its metadata says LPS."""
    name = "the MetaTensor"
    data = tensor.detach().cpu().numpy()
    if data.ndim == 4 and data.shape[0] == 1:
        data = data[0]
    _raise_first(content_problems(tuple(data.shape), "complex" if data.dtype.kind == "c" else "scalar", name))
    affine = np.asarray(tensor.affine.detach().cpu().numpy(), dtype=np.float64)
    if affine.shape != (4, 4):
        raise GeometryError(f"{name} has an affine of shape {affine.shape}; (4, 4) is needed.")
    space = str(getattr(tensor.meta.get("space"), "value", tensor.meta.get("space") or "RAS"))
    if space.upper() not in ("RAS", "LPS"):
        raise GeometryError(f"{name} says that its world is {space!r}; only RAS and LPS are known.")
    return _finished(data, flip_affine_ras_lps(affine) if space.upper() == "LPS" else affine, name, check=check)


def _from_torchio(image: Any, *, check: bool) -> Volume:
    """Convert an image of TorchIO: a tensor of (1, X, Y, Z) with an affine to world RAS mm."""
    name = "the TorchIO image"
    data = np.asarray(image.data)
    if data.ndim == 4 and data.shape[0] == 1:
        data = data[0]
    _raise_first(content_problems(tuple(data.shape), "complex" if data.dtype.kind == "c" else "scalar", name))
    return _finished(data, np.asarray(image.affine, dtype=np.float64), name, check=check)


def _finished(data: NDArray[Any], affine: NDArray[np.float64], name: str, *, check: bool) -> Volume:
    """Last steps, common to all libraries: checks of content and geometry, type of the values."""
    from meddift.geometry import Grid

    shape = (data.shape[0], data.shape[1], data.shape[2])
    _raise_first(geometry_problems(shape, affine, name))
    volume = Volume(plain_array(data), Grid(shape, affine))
    return check_scan(volume, name) if check else volume


def _raise_first(problems: list[MeddiftError]) -> None:
    """Raise the most basic problem, if there is one."""
    if problems:
        raise problems[0]
