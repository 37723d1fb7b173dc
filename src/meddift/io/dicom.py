"""DICOM series in folders, read slice by slice through GDCM in SimpleITK.

The lattice is built from where each slice says it lies (ImagePositionPatient, DICOM PS3.3 C.7.6.2), not from
slice thickness, instance numbers or file names. A series whose slices do not lie on one lattice with
orthogonal axes is refused: a tilted gantry, a missing slice or a second time point would shift points.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, MeddiftError, MissingFileError
from meddift.io.dicom_lattice import DicomSlice, lattice_of_slices
from meddift.io.header import ImageHeader, content_problems, geometry_problems
from meddift.io.itk import captured_messages, one_sentence, pixel_kind

logger = logging.getLogger(__name__)

#: Classes of DICOM objects that lie beside images and are none (PS3.6 annex A): directory, structured report,
#: presentation state, radiotherapy structures, plans and doses, registration, document, raw data.
_NOT_IMAGES = (
    "1.2.840.10008.1.3.10",
    "1.2.840.10008.5.1.4.1.1.88.",
    "1.2.840.10008.5.1.4.1.1.11.",
    "1.2.840.10008.5.1.4.1.1.481.",
    "1.2.840.10008.5.1.4.1.1.66",
    "1.2.840.10008.5.1.4.1.1.104.",
    "1.2.840.10008.5.1.4.1.1.9.",
)


@dataclass(frozen=True)
class DicomSeries:
    """One series of a DICOM folder.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription, may be empty.
        modality: "CT", "MR", ...
        size: Columns and rows of its first slice.
        files: Its files, in the order of their names.
    """

    uid: str
    description: str
    modality: str
    size: tuple[int, int]
    files: tuple[Path, ...]

    @property
    def number_of_slices(self) -> int:
        """Number of files."""
        return len(self.files)

    def __str__(self) -> str:
        """One line for people."""
        text = f'"{self.description}"' if self.description else "no description"
        columns, rows = self.size
        modality = self.modality or "unknown modality"
        return f"{self.uid}: {modality}, {text}, {len(self.files)} slices of {columns} x {rows}"


def list_dicom_series(folder: Path | str) -> list[DicomSeries]:
    """List the series of images in a folder; where it has none directly, in its subfolders.

    Args:
        folder: The folder.

    Returns:
        Series, the one with most slices first.

    Raises:
        MissingFileError: if the folder does not exist.
        ImageError: if a DICOM image in it cannot be read.
    """
    return [_describe(slices) for slices in _all_series(Path(folder))]


def read_dicom_header(folder: Path, *, series: str | None) -> ImageHeader:
    """Read the headers of all slices of a series and build its lattice.

    Args:
        folder: The folder.
        series: UID, unique beginning of a UID, or description; needed where there are several series.

    Returns:
        The header, with every problem found; `details["files"]` holds the slices in order along the normal.

    Raises:
        ImageError: if there is no series, or several and none is chosen.
    """
    slices = _choose(_all_series(folder), folder, series)
    columns, rows = slices[0].size
    shape = (columns, rows, len(slices))
    chosen = _describe(slices)
    details: dict[str, Any] = {
        "series": chosen.uid,
        "description": chosen.description,
        "modality": chosen.modality,
    }
    name = f"the DICOM series {chosen.uid} in {folder}"
    dtype = np.result_type(*[item.dtype for item in slices])
    kind = next((item.kind for item in slices if item.kind != "scalar"), "scalar")
    problems: list[MeddiftError] = []
    if any(item.frames > 1 for item in slices):
        problems.append(
            ImageError(
                f"{name} holds several frames in one file (enhanced DICOM), which meddift does not read; "
                "convert it to NIfTI with dcm2niix first."
            )
        )
    problems += problems or content_problems(shape, kind, name)
    affine = None
    if not problems:
        try:
            slices, affine = lattice_of_slices(slices, name)
        except MeddiftError as error:
            problems.append(error)
        else:
            problems += geometry_problems(shape, affine, name)
    details["files"] = [item.path for item in slices]
    return ImageHeader(folder, "DICOM", shape, dtype, affine, kind, tuple(problems), details)


def read_dicom_voxels(header: ImageHeader) -> NDArray[Any]:
    """Read the slices that belong to a header without problems; rescale slope and intercept are applied.

    Returns:
        (X, Y, Z) array: whole numbers where all slices have such after rescaling (HU), else float32.

    Raises:
        ImageError: if a slice is damaged.
    """
    import SimpleITK as sitk  # noqa: N813

    dtype = header.dtype if header.dtype.kind in "iu" else np.dtype(np.float32)
    data = np.empty(header.shape, dtype=dtype)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    for k, path in enumerate(header.details["files"]):
        reader.SetFileName(str(path))
        try:
            with captured_messages():
                values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise ImageError(f"the slice {path} cannot be read: {one_sentence(error)}") from error
        data[:, :, k] = values.reshape(header.shape[1], header.shape[0]).T
    if data.dtype == np.int32:  # GDCM makes room for any intercept; HU fit into half of it
        limits = np.iinfo(np.int16)
        if limits.min <= data.min() and data.max() <= limits.max:
            return data.astype(np.int16)
    return data


# ---------------------------------------------------------------------- finding and grouping


def _all_series(folder: Path) -> list[list[DicomSlice]]:
    """All series of images, the one with most slices first."""
    if not folder.is_dir():
        raise MissingFileError(f"the folder {folder} does not exist")
    try:
        entries = sorted(folder.iterdir())
        slices = _headers([entry for entry in entries if entry.is_file()])
        if not slices:
            below = [sorted(entry.iterdir()) for entry in entries if entry.is_dir()]
            slices = _headers([entry for inner in below for entry in inner if entry.is_file()])
    except OSError as error:
        raise ImageError(f"the folder {folder} cannot be read: {error.strerror or error}.") from error
    groups: dict[str, list[DicomSlice]] = {}
    for item in slices:
        groups.setdefault(item.uid, []).append(item)
    return sorted(groups.values(), key=len, reverse=True)


def _headers(paths: list[Path]) -> list[DicomSlice]:
    """Headers of the DICOM images among some files."""
    marked = [(path, _object_class(path)) for path in paths]
    slices = []
    for path, object_class in marked:
        if object_class is None or object_class.startswith(_NOT_IMAGES):
            continue
        slices.append(_header(path))
    return slices


def _object_class(path: Path) -> str | None:
    """MediaStorageSOPClassUID, "" where it is not found, None where the file is not DICOM (PS3.10 section 7.1)."""
    with path.open("rb") as stream:
        raw = stream.read(1024)
    if raw[128:132] != b"DICM":
        # Files without preamble exist; only a suffix tells them from anything else.
        return "" if path.suffix.lower() in (".dcm", ".ima") else None
    mark = b"\x02\x00\x02\x00UI"  # (0002,0002), explicit little endian: always so in this part of the file
    start = raw.find(mark)
    if start < 0:
        return ""
    length = int.from_bytes(raw[start + 6 : start + 8], "little")
    return raw[start + 8 : start + 8 + length].rstrip(b"\0 ").decode("ascii", errors="replace")


def _header(path: Path) -> DicomSlice:
    """Header of one DICOM image."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with captured_messages():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"{path} looks like a DICOM image and cannot be read: {one_sentence(error)} "
            "Copy it again, or take it out of the folder if it does not belong to the scan."
        ) from error

    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else ""

    def numbers(tag: str, count: int) -> NDArray[np.float64]:
        try:
            values = np.array([float(word) for word in text(tag).split("\\")])
        except ValueError:
            return np.full(count, np.nan)
        return values if len(values) == count else np.full(count, np.nan)

    dtype, kind = pixel_kind(sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    orientation = numbers("0020|0037", 6)
    frames = text("0028|0008")
    size = reader.GetSize()
    return DicomSlice(
        path=path,
        uid=text("0020|000e"),
        description=text("0008|103e"),
        modality=text("0008|0060"),
        size=(int(size[0]), int(size[1])),
        frames=int(frames) if frames.isdigit() else 1,
        dtype=dtype,
        kind="color" if kind == "vector" else kind,
        position=numbers("0020|0032", 3),
        row=orientation[:3],
        column=orientation[3:],
        spacing=numbers("0028|0030", 2),
    )


def _describe(slices: list[DicomSlice]) -> DicomSeries:
    """The public face of a series."""
    first = slices[0]
    files = tuple(item.path for item in slices)
    return DicomSeries(first.uid, first.description, first.modality, first.size, files)


def _choose(groups: list[list[DicomSlice]], folder: Path, wanted: str | None) -> list[DicomSlice]:
    """The one series that is there or was asked for."""
    if not groups:
        raise ImageError(f"the folder {folder} holds no DICOM images, neither directly nor one level down.")
    listing = "\n".join(f"  {_describe(group)}" for group in groups)
    if wanted is None:
        if len(groups) > 1:
            raise ImageError(
                f"the folder {folder} holds {len(groups)} DICOM series; choose one with --series and its UID, "
                f"the beginning of its UID, or its description:\n{listing}"
            )
        return groups[0]
    for fits in (
        [group for group in groups if group[0].uid == wanted],
        [group for group in groups if wanted and group[0].uid.startswith(wanted)],
        [group for group in groups if wanted and group[0].description.casefold() == wanted.casefold()],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise ImageError(f"{len(fits)} DICOM series in {folder} fit {wanted!r}; give a whole UID:\n{listing}")
    raise ImageError(f"no DICOM series in {folder} fits {wanted!r}; there are:\n{listing}")
