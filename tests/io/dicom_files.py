"""DICOM files as scanners and archives write them, made with pydicom, which takes nothing for granted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT, SECONDARY, REPORT, CSA = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.11", "1.3.12.2.1107.5.9.1",
)  # fmt: skip
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
SHAPE = (8, 7, 6)  # columns, rows, slices
SPACING = (0.9, 0.8, 2.5)
ORIGIN = (-10.0, -20.0, 100.0)
_count = iter(range(1, 10**6))


def stored(shape=SHAPE) -> np.ndarray:
    """(columns, rows, slices) stored values, all different: HU plus 1024."""
    return (np.arange(np.prod(shape)).reshape(shape) + 3).astype(np.uint16)


def image(values: np.ndarray, position=ORIGIN, **tags) -> Dataset:
    """One CT image of (columns, rows) stored values; `tags` replace or, with None, remove what it says."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = tags.pop("SOPClassUID", CT)
    one.SOPInstanceUID = f"1.2.3.4.{next(_count)}"
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.Modality, one.SeriesDescription, one.SeriesInstanceUID, one.StudyInstanceUID = "CT", "Thorax", "1.2.3.1", "1.2"
    one.ImagePositionPatient = [f"{float(value):.10g}" for value in position]
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    one.Rows, one.Columns = values.shape[1], values.shape[0]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
    one.PixelRepresentation = int(values.dtype.kind == "i")
    one.RescaleIntercept, one.RescaleSlope = -1024, 1
    one.PixelData = np.ascontiguousarray(values.T).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    return one


def above(k: float) -> np.ndarray:
    """Position of slice k."""
    return np.add(ORIGIN, (0, 0, k * SPACING[2]))


def save(one: Dataset, path: Path) -> Path:
    """Write it, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, *, values=None, positions=None, prefix="IM", skip=(), **tags) -> Path:
    """A series of axial slices; `tags` may hold tuples with one value a slice."""
    values = stored() if values is None else values
    for k in range(values.shape[2]):
        place = above(k) if positions is None else positions[k]
        own = {name: value[k] if isinstance(value, tuple) else value for name, value in tags.items()}
        if k not in skip:
            save(image(values[..., k], place, InstanceNumber=k + 1, **own), folder / f"{prefix}{k:03d}.dcm")
    return folder


def enhanced(numbers: list[int], *, explicit: bool = True) -> Dataset:
    """Frames of one enhanced CT object (PS3.3 A.38): places and rescaling stand in functional groups only."""
    one = image(
        stored()[..., 0], SOPClassUID=ENHANCED, ImagePositionPatient=None, ImageOrientationPatient=None,
        PixelSpacing=None, SliceThickness=None, RescaleSlope=None, RescaleIntercept=None,
    )  # fmt: skip
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian

    def item(**values) -> Sequence:
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        return Sequence([inner])

    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = item(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2])
    shared.PixelValueTransformationSequence = item(RescaleIntercept=-1024, RescaleSlope=1)
    frames = []
    for k in numbers:
        own = Dataset()
        own.PlanePositionSequence = item(ImagePositionPatient=list(above(k)))
        frames.append(own)
    one.SharedFunctionalGroupsSequence = Sequence([shared])
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    one.NumberOfFrames = len(frames)
    one.PixelData = b"".join(np.ascontiguousarray(stored()[..., k].T).tobytes() for k in numbers)
    return one


def scout(**tags) -> Dataset:
    """A topogram: one sagittal image of its own series."""
    usual = {
        "SeriesInstanceUID": "1.2.9", "SeriesDescription": "Topogram", "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    }  # fmt: skip
    return image(stored()[..., 0], (0, -100, 300), **{**usual, **tags})


def no_image(sop_class: str, **tags) -> Dataset:
    """An object without pixels."""
    return image(stored()[..., 0], SOPClassUID=sop_class, PixelData=None, Rows=None, Columns=None, **tags)
