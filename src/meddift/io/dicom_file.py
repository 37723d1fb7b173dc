"""One DICOM file: what its header says about geometry, values and grouping, read by pydicom without its pixels."""

from __future__ import annotations

import mmap
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import ImageError
from meddift.io.compressed import AGAIN
from meddift.io.dicom_slice import TELLING_APART, DicomSlice, PixelFormat
from meddift.io.dicom_values import TAGS, DicomValues, FrameValues

#: Classes of DICOM objects that lie beside images and are none (PS3.6 annex A): directory, structured report,
#: presentation state, radiotherapy structures, plans and doses, registration, value mapping, document, raw data.
_NOT_IMAGES = (
    "1.2.840.10008.1.3.10",
    "1.2.840.10008.5.1.4.1.1.88.",
    "1.2.840.10008.5.1.4.1.1.11.",
    "1.2.840.10008.5.1.4.1.1.481.",
    "1.2.840.10008.5.1.4.1.1.66",
    "1.2.840.10008.5.1.4.1.1.67",
    "1.2.840.10008.5.1.4.1.1.104.",
    "1.2.840.10008.5.1.4.1.1.9.",
)
#: SOP classes of CT, MR and PET, classic and enhanced: such an object without pixels is a damaged file.
_SCANS = tuple(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "2.1", "4", "4.1", "128", "130"))
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_IMPLICIT, _BIG, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_NATIVE = (_IMPLICIT, "1.2.840.10008.1.2.1", _BIG)
_PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)


_MOST_FRAMES = 100_000
#: Bytes that are searched for identifiers; private data of a vendor after them does not matter here.
_LARGEST_HEAD = 1 << 16
_quiet = threading.Lock()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings about values within the block; meddift checks the values itself."""
    from pydicom import config

    with _quiet, warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def read_slices(path: Path) -> list[DicomSlice] | None:
    """Headers of the images in one file, within `quiet_pydicom`.

    Returns:
        One for each frame; an empty list for a DICOM object that is no image; None if the file is not DICOM.

    Raises:
        ImageError: if the file is damaged, and an image could be lost by leaving it out.
    """
    named = path.suffix.lower() in (".dcm", ".ima")
    try:
        with path.open("rb") as stream:
            start = stream.read(1024)
            if start.startswith(b"\x00\x05\x16\x07"):  # AppleDouble: what macOS keeps beside a file
                return None
            marked = start[128:132] == b"DICM"
            # Files without preamble begin with a tag of group 2 or 8, in either order of bytes.
            bare = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
            bare = bare or (start[:2] == b"\x00\x08" and start[2:3] == b"\x00")
            if not marked and not bare:
                if named:
                    raise ImageError(
                        f"{path} is no DICOM file, whatever its name says, or damaged; remove or replace it."
                    )
                return None
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _parse(content, path)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged file makes pydicom raise almost anything
        if not (marked or named):
            return None
        if _class_of(start).startswith(_NOT_IMAGES):
            return []  # damaged, and no image in any case
        if isinstance(error, ImageError):
            raise
        told = f"{type(error).__name__}: {str(error)[:100]}"
        raise ImageError(f"the DICOM file {path} is damaged ({told}). {AGAIN}") from error


def series_named_in(path: Path) -> frozenset[str]:
    """Every SeriesInstanceUID in the first bytes of a file that cannot be read."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_LARGEST_HEAD)
    except OSError:
        return frozenset()
    # (0020,000E), explicit or implicit, in either order of bytes.
    found = re.findall(
        rb"(?:\x20\x00\x0e\x00|\x00\x20\x00\x0e)(?:UI..|..\x00\x00|\x00\x00..)([0-9.]{3,64})", start, re.S
    )
    return frozenset(uid.decode("ascii") for uid in found)


def _class_of(start: bytes) -> str:
    """MediaStorageSOPClassUID from the first bytes of a file, "" where it is not found (PS3.10 section 7.1)."""
    mark = b"\x02\x00\x02\x00UI"  # (0002,0002), explicit little endian: always so in this part of the file
    place = start.find(mark)
    if place < 0:
        return ""
    length = int.from_bytes(start[place + 6 : place + 8], "little")
    return start[place + 8 : place + 8 + length].rstrip(b"\0 ").decode("ascii", errors="replace")


def _parse(content: mmap.mmap, path: Path) -> list[DicomSlice]:
    """Headers of the images in an open file."""
    import pydicom

    dataset = pydicom.dcmread(content, stop_before_pixels=True, force=True, specific_tags=list(TAGS.values()))
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    header = DicomValues(dataset)
    sop_class = header.text("sop_class") or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if sop_class.startswith(_NOT_IMAGES):
        return []
    columns, rows = header.integer("columns"), header.integer("rows")
    if syntax == _DEFLATED:
        raise ImageError(f"{path} is a deflated DICOM file, which meddift does not read; convert it with dcmconv.")
    place = _pixel_place(content, explicit=not dataset.is_implicit_VR, little=bool(dataset.is_little_endian))
    if place is None or not columns or not rows:
        if sop_class in _SCANS or not sop_class or (columns and rows):
            raise ImageError(f"the DICOM file {path} is cut off: it holds no pixels. {AGAIN}")
        return []
    offset, length, tag = place
    pixels = _pixel_format(header, syntax, offset, tag, dataset)
    frames = header.number("frames", 1.0)
    count = int(frames) if frames == frames and 1 <= frames <= _MOST_FRAMES else 1
    samples = header.integer("samples", 1)
    needed = rows * columns * samples * count * pixels.dtype.itemsize
    if pixels.offset is not None and samples == 1 and (needed > length or offset + needed > len(content)):
        raise ImageError(
            f"the DICOM file {path} is cut off: {needed} bytes of pixels are announced, and "
            f"{max(min(length, len(content) - offset), 0)} are there. {AGAIN}"
        )
    photometric = header.text("photometric").upper()
    first = DicomSlice(
        path=path,
        frame=0,
        uid=header.text("series"),
        sop=header.text("sop"),
        description=header.decoded("description"),
        modality=header.text("modality"),
        size=(columns, rows),
        kind="scalar" if samples == 1 and photometric in ("MONOCHROME1", "MONOCHROME2", "") else "color",
        captured=sop_class.startswith(_SECONDARY_CAPTURE),
        localizer="LOCALIZER" in header.text("image_type").upper(),
        pixels=pixels,
        problem=_problem(header, pixels),
        **_place(header),
    )
    if TAGS["per_frame"] not in dataset:
        if count > 1:
            said = f"the {count} frames do not say where each of them lies"
            return [replace(first, problem=first.problem or said)]
        return [first]
    return _frames(first, dataset, count)


def _pixel_place(content: mmap.mmap, *, explicit: bool, little: bool) -> tuple[int, int, int] | None:
    """Where the value of the pixel data element begins, its length as stated, and its tag."""
    start = content.tell()
    head = content[start : start + 12]
    if len(head) < 8:
        return None
    order = "<" if little else ">"
    group, element = struct.unpack(order + "HH", head[:4])
    tag = group << 16 | element
    if tag not in _PIXELS:
        return None
    if explicit and head[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN"):
        return (start + 12, struct.unpack(order + "L", head[8:12])[0], tag) if len(head) == 12 else None
    return start + 8, struct.unpack(order + "L", head[4:8])[0], tag


def _pixel_format(header: DicomValues, syntax: str, offset: int, tag: int, dataset: Any) -> PixelFormat:
    """How the pixels are stored; a type of 0 bits where the header makes no sense, which `_problem` tells."""
    allocated, stored = header.integer("allocated", 16), header.integer("stored")
    stored = stored if 1 <= stored <= allocated else allocated
    high = header.integer("high")
    high = high if stored - 1 <= high < allocated else stored - 1
    order = "<" if dataset.is_little_endian else ">"
    kind = "f" if tag != _PIXELS[0] else "i" if header.integer("signed") == 1 else "u"
    size = {8: 1, 16: 2, 32: 4}.get(allocated, 4 if kind == "f" else 0)
    if tag == _PIXELS[2]:
        size = 8
    dtype = np.dtype(f"{order}{kind}{size}") if size else np.dtype("V1")
    native = syntax in _NATIVE or not syntax
    slope, intercept = header.number("slope", 1.0), header.number("intercept", 0.0)
    return PixelFormat(dtype, stored, high, offset if native else None, slope, intercept)


def _problem(header: DicomValues, pixels: PixelFormat) -> str:
    """Why an image cannot be used according to its header, as a clause; "" if it can."""
    if pixels.dtype.kind == "V":
        return f"pixels are stored in {header.integer('allocated')} bits each"
    if not (np.isfinite(pixels.slope) and np.isfinite(pixels.intercept)) or pixels.slope == 0:
        said = f"slope {header.text('slope')!r}, intercept {header.text('intercept')!r}"
        return f"the values cannot be rescaled ({said})"
    if header.raw("table") is not None and header.raw("slope") is None:
        return "the values are mapped by a table (Modality LUT Sequence), which meddift does not apply"
    for name, tag, count in (
        ("position", "ImagePositionPatient", 3),
        ("orientation", "ImageOrientationPatient", 6),
        ("spacing", "PixelSpacing", 2),
    ):
        if header.raw(name) is not None and not np.isfinite(header.numbers(name, count)).all():
            return f"the {tag} is not {count} numbers: {header.text(name)[:60]!r}"
    return ""


def _place(header: DicomValues) -> dict[str, Any]:
    """Fields of `DicomSlice` for the place of an image, and for telling it from others at the same place."""
    orientation = header.numbers("orientation", 6)
    return {
        "position": header.numbers("position", 3),
        "row": orientation[:3],
        "column": orientation[3:],
        "spacing": header.numbers("spacing", 2),
        "thickness": header.number("thickness"),
        "instance": header.number("instance"),
        "marks": {name: header.text(name) for name, _ in TELLING_APART if header.raw(name) is not None},
    }


def _frames(first: DicomSlice, dataset: Any, count: int) -> list[DicomSlice]:
    """The frames of an enhanced object, each with its own place (PS3.3 C.7.6.16)."""
    shared = dataset[TAGS["shared"]].value[0] if TAGS["shared"] in dataset and dataset[TAGS["shared"]].value else None
    groups = dataset[TAGS["per_frame"]].value
    if len(groups) != count:
        said = f"of {count} frames, {len(groups)} are described"
        return [replace(first, problem=first.problem or said)]
    result = []
    for number, own in enumerate(groups):
        merged = FrameValues(own, shared)
        orientation = merged.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
        scaling = merged.item("PixelValueTransformationSequence")
        pixels = first.pixels
        if scaling is not None:
            slope, intercept = float(scaling.get("RescaleSlope", 1)), float(scaling.get("RescaleIntercept", 0))
            pixels = replace(pixels, slope=slope, intercept=intercept)
        content = merged.item("FrameContentSequence")
        marks = dict(first.marks)
        for name, keyword in (("acquisition", "FrameAcquisitionNumber"), ("temporal", "TemporalPositionIndex")):
            if content is not None and content.get(keyword) is not None:
                marks[name] = str(content.get(keyword))
        measures = merged.item("PixelMeasuresSequence")
        thickness = measures.get("SliceThickness") if measures is not None else None
        one = replace(
            first,
            frame=number,
            position=merged.numbers("PlanePositionSequence", "ImagePositionPatient", 3),
            row=orientation[:3],
            column=orientation[3:],
            spacing=merged.numbers("PixelMeasuresSequence", "PixelSpacing", 2),
            thickness=float("nan") if thickness is None else float(thickness),
            pixels=pixels,
            marks=marks,
        )
        if not one.problem and (not np.isfinite([pixels.slope, pixels.intercept]).all() or pixels.slope == 0):
            one = replace(one, problem="the values cannot be rescaled")
        result.append(one)
    return result
