"""Good images of every kind, small, to be damaged."""

from __future__ import annotations

import bz2
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813

sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
from dicom_files import SHAPE, enhanced, stored

VOXELS = (np.arange(4 * 5 * 6).reshape(4, 5, 6) - 50).astype(np.int16)


def seeds() -> dict[str, dict[str, bytes]]:
    """By kind, files by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        affine = np.diag([-1.5, -2, 3, 1.0])
        affine[:3, 3] = (10, -5, 7)
        for kind, suffixes in ((nibabel.Nifti1Image, ("nii", "nii.gz")), (nibabel.Nifti2Image, ("2.nii",))):
            for suffix in suffixes:
                image = kind(VOXELS, affine)
                image.set_qform(affine, 1)
                nibabel.save(image, folder / f"n.{suffix}")
        nibabel.save(nibabel.MGHImage(VOXELS, affine), folder / "m.mgh")
        nibabel.save(nibabel.MGHImage(VOXELS.astype(np.float32), affine), folder / "m.mgz")
        itk = sitk.GetImageFromArray(VOXELS.transpose())
        itk.SetSpacing((1.5, 2, 3))
        for suffix in ("nrrd", "mha"):
            sitk.WriteImage(itk, str(folder / f"raw.{suffix}"), False)
            sitk.WriteImage(itk, str(folder / f"packed.{suffix}"), True)
        text = " ".join(map(str, VOXELS.ravel(order="F"))).encode()
        head = b"NRRD0005\ntype: short\ndimension: 4\nsizes: 1 4 5 6\nkinds: list domain domain domain\nspace: RAS\n"
        head += b"space directions: none (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,3)\nendian: little\n"
        head += b'space units: "mm" "mm" "mm"\nSegment0_Name:=liver\nencoding: '
        (folder / "text.nrrd").write_bytes(head + b"ascii\n\n" + text)
        (folder / "bzip.nrrd").write_bytes(head + b"bz2\n\n" + bz2.compress(VOXELS.tobytes(order="F")))
        meta = b"ObjectType = Image\nNDims = 3\nBinaryData = False\nDimSize = 4 5 6\nElementSpacing = 1 1 1\n"
        meta += (
            b"Offset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        (folder / "text.mha").write_bytes(meta + text)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        order = list(range(SHAPE[2]))
        enhanced(order).save_as(folder / "all.dcm", enforce_file_format=True)
        enhanced(order, explicit=False).save_as(folder / "implicit.dcm", implicit_vr=True, little_endian=True)
        dicom = {name: (folder / name).read_bytes() for name in ("all.dcm", "implicit.dcm")}
        packed = {name: _packed(folder, name) for name in ("JPEG", "JPEG2000")}

    def of(*suffixes: str) -> dict[str, bytes]:
        return {name: content for name, content in files.items() if name.endswith(suffixes)}

    return {
        "nifti": of(".nii", ".nii.gz"), "mgh": of(".mgh", ".mgz"), "nrrd": of(".nrrd"), "metaimage": of(".mha"),
        "dicom": dicom, "compressed_dicom": packed,
    }  # fmt: skip


def _packed(folder: Path, method: str) -> bytes:
    """An enhanced object whose frames GDCM has compressed without loss."""
    plain = sitk.GetImageFromArray(stored().transpose())
    plain.SetMetaData("0008|0060", "OT")
    writer = sitk.ImageFileWriter()
    writer.SetUseCompression(True)
    writer.SetCompressor(method)
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.Execute(plain)
    packed = pydicom.dcmread(folder / "packed.dcm")
    one = enhanced(list(range(SHAPE[2])))
    one.PixelData = packed.PixelData
    one["PixelData"].VR = "OB"
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    one.save_as(folder / "packed.dcm", enforce_file_format=True)
    return (folder / "packed.dcm").read_bytes()


TOKENS = {
    "nifti": [b"n+1\0", b"ni1\0", b"\x5c\x01\x00\x00", b"\x1c\x02\x00\x00"],
    "mgh": [b"\0\0\0\1"],
    "nrrd": [
        b"none", b"space: ", b"data file: ", b"LIST", b"%d 1 3 1", b"encoding: gzip", b"byte skip: -1\n", b"kinds: ",
    ],
    "metaimage": [
        b"CompressedData = True\n", b"HeaderSize = -1\n", b"LIST", b"%d 1 3 1", b"ElementNumberOfChannels = 3\n",
        b"BinaryData = True\n",
    ],
    "compressed_dicom": [b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xd8", b"\xff\xd9", b"\xff\x4f"],
    "dicom": [b"SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"\\"],
}  # fmt: skip
