"""NRRD (`.nrrd`, `.nhdr`) and MetaImage (`.mha`, `.mhd`), read and written by SimpleITK.

Both formats have text headers. They are looked at before ITK reads the file, because ITK fills in what they
leave out (identity directions, origin 0, spacing 1), ignores units and the intensity scaling of MetaImage,
and turns a direction that is not a number into zeros.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError, MeddiftError
from meddift.geometry import Grid, flip_affine_ras_lps
from meddift.io.compressed import opened
from meddift.io.header import REPAIR, ImageHeader, content_problems, geometry_problems, stored_shape
from meddift.io.itk import affine_of, captured_messages, one_sentence, pixel_kind

#: The NRRD spaces that name patient axes in a way ITK converts; and how they begin their long names.
_NRRD_SPACES = {
    "left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las",
}  # fmt: skip

#: The fields of a MetaImage header that state geometry, each with its other names and its meaning.
_META_GEOMETRY = (
    (("ElementSpacing", "ElementSize"), "spacing"),
    (("TransformMatrix", "Rotation", "Orientation"), "directions"),
    (("Offset", "Origin", "Position"), "position"),
)

_ASSUME = (
    "Use the file from before this was lost, or say --assume-geometry to take what ITK fills in: axes to the "
    "left, to posterior and to superior, the first voxel at the origin, spacing 1 mm."
)


def read_itk_header(path: Path, *, assume_geometry: bool) -> ImageHeader:
    """Read and judge the header of an NRRD or MetaImage file.

    Args:
        path: A file that exists.
        assume_geometry: Accept a file that states no directions or no position; ITK's reading of it is taken.

    Returns:
        The header, with every problem found.

    Raises:
        ImageError: if the file is no such file at all.
    """
    import SimpleITK as sitk  # noqa: N813 - the name under which everybody knows it

    fields, _ = _text_header(path)
    is_nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    file_format = "NRRD" if is_nrrd else "MetaImage"
    reader = _reader(path, file_format)
    try:
        with captured_messages():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(f"{path} cannot be read as {file_format}: {one_sentence(error)}") from error
    dtype, kind = pixel_kind(sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    if reader.GetNumberOfComponents() == 1 and kind == "vector":
        kind = "scalar"  # a trailing axis of length 1 that NRRD calls a list
    shape = stored_shape(reader.GetSize())
    problems = content_problems(shape, kind, path)
    affine = None
    if len(shape) >= 3:
        affine = affine_of(reader)
        if min(reader.GetSpacing()[:3]) < 0:
            spacing = list(reader.GetSpacing()[:3])
            problems.append(GeometryError(f"the spacing in the header of {path} is negative: {spacing} mm. {REPAIR}"))
        problems += (_nrrd_problems if is_nrrd else _meta_problems)(fields, path, assume_geometry)
        problems += geometry_problems(shape[:3], affine, path)
    keys = ("space", "content", "modality", "anatomicalorientation")
    details = {key: fields[key] for key in keys if key in fields}
    return ImageHeader(path, file_format, shape, dtype, affine, kind, tuple(problems), details)


def read_itk_voxels(header: ImageHeader) -> NDArray[Any]:
    """Read the voxels that belong to a header without problems.

    Returns:
        (X, Y, Z) array of the stored type.

    Raises:
        ImageError: if the file is cut off or damaged.
    """
    _check_compressed(header.path)
    messages = None
    try:
        with captured_messages() as messages:
            image = _reader(header.path, header.file_format).Execute()
    except RuntimeError as error:
        told = messages.text if messages else ""
        reason = "it is cut off" if "not read completely" in told else one_sentence(error)
        raise ImageError(f"{header.path} cannot be read: {reason.rstrip('.')}. {_AGAIN}") from error
    # MetaIO says this on the error stream only, and returns whatever stood in memory.
    if re.search(r"uncompress failed|not read completely|data cannot be read", messages.text, re.IGNORECASE):
        raise ImageError(f"{header.path} is damaged: {messages.text.strip().splitlines()[0]}. {_AGAIN}")
    return array_of(image)


def array_of(image: Any) -> NDArray[Any]:
    """Voxels of a scalar SimpleITK image as an (X, Y, Z) view or copy; axes of length 1 beyond z are dropped."""
    import SimpleITK as sitk  # noqa: N813

    data = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1 and "vector" in image.GetPixelIDTypeAsString():
        data = data[..., 0]
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    return np.asarray(data.transpose())


def image_of(data: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK.Image of (X, Y, Z) voxels on a lattice.

    Args:
        data: (X, Y, Z), of a type that SimpleITK knows.
        grid: Its lattice; its axes must be orthogonal.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose()))
    affine = flip_affine_ras_lps(grid.affine)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    direction = affine[:3, :3] / grid.spacing
    # ITK 5.4 inverts directions with entries below some 1e-290 wrongly, and says so on the error stream only.
    direction[np.abs(direction) < 1e-15] = 0.0
    image.SetDirection(direction.ravel().tolist())
    return image


def write_itk(data: NDArray[Any], grid: Grid, path: Path) -> None:
    """Write an NRRD or MetaImage file, compressed; not atomic by itself.

    Raises:
        RuntimeError: if SimpleITK cannot write.
    """
    import SimpleITK as sitk  # noqa: N813

    with captured_messages():
        sitk.WriteImage(image_of(data, grid), str(path), True)


_AGAIN = "Copy or download it again."


def _reader(path: Path, file_format: str) -> Any:
    """The SimpleITK reader of a format; named, because SimpleITK does not know suffixes in capital letters."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if file_format == "NRRD" else "MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _text_header(path: Path) -> tuple[dict[str, str], int]:
    """The text header: field names in lower case with their values, and at which byte the data begins.

    NRRD headers end at an empty line, MetaImage headers with the line that names the data.
    """
    fields: dict[str, str] = {}
    with opened(path, decompress=False) as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(1 << 16), b"")):
            text = raw.strip().decode("utf-8", errors="replace")
            if number > 10_000 or (number and not text):
                break
            match = re.match(r"([\w .]+?)\s*(?::=|=|:)\s*(.*)", text)
            if match and not text.startswith("#"):
                fields.setdefault(match[1].lower(), match[2])
                if match[1].lower() == "elementdatafile":
                    break
        end = stream.tell()
    if not end:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again.")
    return fields, end


def _check_compressed(path: Path) -> None:
    """Decompress the data of a file to its end and compare the checksum, which ITK does not do.

    Raises:
        ImageError: if the data is damaged or cut off.
    """
    fields, start = _text_header(path)
    packed = fields.get("encoding", "").lower() in ("gzip", "gz") or fields.get("compresseddata", "").lower() == "true"
    named = fields.get("data file") or fields.get("datafile") or fields.get("elementdatafile") or "LOCAL"
    data = path if named.upper() == "LOCAL" else path.parent / named
    if not packed or not data.is_file():  # a list or pattern of files: ITK reads them as they are
        return
    engine = zlib.decompressobj(wbits=47)  # gzip in NRRD, zlib in MetaImage: told apart by the first bytes
    with opened(data, decompress=False) as stream:
        stream.seek(start if data == path else 0)
        while not engine.eof and (chunk := stream.read(1 << 16)):
            engine.decompress(chunk)
    if not engine.eof:
        raise ImageError(f"{data} is cut off: its compressed data ends too early. {_AGAIN}")


def _nrrd_problems(fields: dict[str, str], path: Path, assume_geometry: bool) -> list[MeddiftError]:
    """What an NRRD header leaves open or says in a way that ITK ignores."""
    problems: list[MeddiftError] = []
    space = fields.get("space", "").lower()
    missing = [name for name in ("space directions", "space origin") if name not in fields]
    if space and re.sub(r"-time$|(?<=^...)t$", "", space) not in _NRRD_SPACES and not assume_geometry:
        problems.append(
            GeometryError(
                f"{path} gives its geometry in the space {space!r}, which does not tell patient axes. {_ASSUME}"
            )
        )
    elif (not space or missing) and not assume_geometry:
        absent = ", ".join(missing if space else ["space", *missing])
        problems.append(
            GeometryError(f"{path} does not state where it lies in space (no {absent} in its header). {_ASSUME}")
        )
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if units - {"mm", "", "millimeter", "millimetre", "none"}:
        problems.append(
            GeometryError(
                f"{path} states its lengths in {', '.join(sorted(units))}, which programs ignore. "
                "Write the file again in mm."
            )
        )
    return problems


def _meta_problems(fields: dict[str, str], path: Path, assume_geometry: bool) -> list[MeddiftError]:
    """What a MetaImage header leaves open or says in a way that ITK ignores."""
    problems: list[MeddiftError] = []
    for names, meaning in _META_GEOMETRY:
        value = next((fields[name.lower()] for name in names if name.lower() in fields), None)
        if value is not None and not _all_finite(value):  # ITK stops reading there and fills in zeros
            problems.append(GeometryError(f"{names[0]} in the header of {path} is not finite: {value}. {REPAIR}"))
        elif value is None and not assume_geometry:
            problems.append(
                GeometryError(f"{path} does not state its {meaning} (no {names[0]} in its header). {_ASSUME}")
            )
    slope = fields.get("elementtointensityfunctionslope", "1")
    offset = fields.get("elementtointensityfunctionoffset", "0")
    if _number(slope) != 1 or _number(offset) != 0:
        problems.append(
            ImageError(
                f"{path} asks for an intensity scaling (slope {slope}, offset {offset}), which programs ignore. "
                "Apply it and write the file again."
            )
        )
    return problems


def _number(text: str) -> float:
    """A number, or NaN."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _all_finite(text: str) -> bool:
    """Whether a text is a list of finite numbers."""
    return all(np.isfinite(_number(word)) for word in text.split())
