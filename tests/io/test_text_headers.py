"""NRRD and MetaImage as other programs write them, and headers that would end the process in ITK."""

from __future__ import annotations

import bz2
import gzip
import time
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import SHAPE, voxels

from meddift.errors import GeometryError, ImageError, MeddiftError
from meddift.io import read_volume
from meddift.io.images import read_header
from meddift.io.metaimage import read_metaimage_voxels
from meddift.io.nrrd import read_nrrd_voxels

DATA = voxels("<i2")
RAW = DATA.tobytes(order="F")
GEOMETRY = "space: LPS\nspace directions: (1.5,0,0) (0,1.5,0) (0,0,3)\nspace origin: (-40,30,100)\n"


def _nrrd(path, content=RAW, *, encoding="raw", sizes="4 5 6", dimension=3, more="", geometry=GEOMETRY):
    head = f"NRRD0005\ntype: short\ndimension: {dimension}\nsizes: {sizes}\nendian: little\nencoding: {encoding}\n"
    path.write_bytes((head + geometry + more + "\n").encode() + content)
    return path


def _meta(path, content=RAW, *, file="LOCAL", more=""):
    head = (
        "ObjectType = Image\nNDims = 3\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -40 30 100\n"
        f"ElementSpacing = 1.5 1.5 3\n{more}DimSize = 4 5 6\nElementType = MET_SHORT\nElementDataFile = {file}\n"
    )
    path.write_bytes(head.encode() + content)
    return path


def _slices(folder, name="s%02d.raw", first=1, step=1):
    for k in range(SHAPE[2]):
        (folder / (name % (first + step * k))).write_bytes(DATA[..., k].tobytes(order="F"))


def _read(path):
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, DATA)
    # By hand: LPS (-40, 30, 100) is RAS (40, -30, 100), and index (1, 1, 1) lies 1.5, 1.5, 3 mm further in LPS.
    np.testing.assert_allclose(
        volume.grid.index_to_world([[0, 0, 0], [1, 1, 1]]), [[40, -30, 100], [38.5, -31.5, 103]]
    )


def _agrees_with_itk(path):
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(), read_volume(path).data)
    np.testing.assert_allclose(np.diag([-1, -1, 1]) @ image.GetOrigin(), read_volume(path).grid.origin)


TEXT = " ".join(map(str, DATA.ravel(order="F"))).encode()


@pytest.mark.parametrize(
    ("encoding", "content", "more"),
    [
        ("raw", RAW, ""),
        ("gzip", gzip.compress(RAW), ""),
        ("gz", gzip.compress(b"123" + RAW), "byte skip: 3\n"),
        ("bzip2", bz2.compress(RAW), ""),
        ("ascii", TEXT + b"\n", ""),
        ("hex", RAW.hex().encode(), ""),
        ("raw", b"a line\nand one\n" + RAW, "line skip: 2\n"),
        ("raw", b"any length" + RAW, "byte skip: -1\n"),
        ("raw", RAW, "long:=" + "x" * 5000 + "\n"),
    ],
)
def test_nrrd_encodings(tmp_path, encoding, content, more):
    _read(_nrrd(tmp_path / "scan.nrrd", content, encoding=encoding, more=more))


def test_nrrd_detached_headers(tmp_path):
    _slices(tmp_path)
    (tmp_path / "all.raw.gz").write_bytes(gzip.compress(RAW))
    (tmp_path / "with header.img").write_bytes(b"x" * 512 + RAW)
    listed = "".join(f"s{k:02d}.raw\n" for k in range(1, 7))
    for encoding, more in [
        ("gzip", "data file: all.raw.gz\n"),
        ("raw", "datafile: with header.img\nbyte skip: 512\n"),
        ("raw", "data file: s%02d.raw 1 6 1 2\n"),
        ("raw", "data file: LIST 2\n" + listed),
    ]:
        path = _nrrd(tmp_path / "scan.nhdr", b"", encoding=encoding, more=more)
        if more.startswith("data file: LIST"):
            path.write_bytes(path.read_bytes().rstrip() + b"\n")
        _read(path)
        _agrees_with_itk(path)


def test_metaimage_data(tmp_path):
    _slices(tmp_path, "s%d.raw", first=10, step=2)
    (tmp_path / "scan.raw").write_bytes(RAW)
    packed = zlib.compress(RAW)
    (tmp_path / "scan.zraw").write_bytes(packed)
    listed = "".join(f"s{10 + 2 * k}.raw\n" for k in range(6)).encode()
    path = tmp_path / "scan.mhd"
    for content, file, more in [
        (RAW, "LOCAL", ""),
        (packed, "LOCAL", f"CompressedData = True\nCompressedDataSize = {len(packed)}\n"),
        (TEXT + b"\n", "LOCAL", "BinaryData = False\n"),
        (DATA.astype(">i2").tobytes(order="F"), "LOCAL", "BinaryDataByteOrderMSB = True\n"),
        (DATA.astype(">i2").tobytes(order="F"), "LOCAL", "ElementByteOrderMSB = True\n"),
        (b"", "scan.raw", "HeaderSize = -1\n"),
        (b"", "scan.zraw", f"CompressedData = True\nCompressedDataSize = {len(packed)}\n"),
        (b"", "s%d.raw 10 20 2", ""),
        (listed, "LIST", ""),
    ]:
        _read(_meta(path, content, file=file, more=more))
        _agrees_with_itk(path)


def test_a_list_axis_of_one_layer_is_read(tmp_path):
    """Slicer writes segmentations and sequences of one member so; the list may stand first or last."""
    first = GEOMETRY.replace("(1.5", "none (1.5", 1)
    last = GEOMETRY.replace("(0,0,3)", "(0,0,3) none", 1)
    for name, sizes, geometry, kinds in [
        ("first.nrrd", "1 4 5 6", first, "list domain domain domain"),
        ("one.seg.nrrd", "4 5 6 1", last, "domain domain domain list"),
        # teem's own word for "none" before version 4 of the format.
        ("nan.nrrd", "1 4 5 6", first.replace("none", "(nan,nan,nan)"), "list domain domain domain"),
        ("nan-last.nrrd", "4 5 6 1", last.replace("none", "(NaN,NaN,NaN)"), "domain domain domain list"),
    ]:
        more = f"kinds: {kinds}\nSegment0_Layer:=0\n"
        _read(_nrrd(tmp_path / name, sizes=sizes, dimension=4, more=more, geometry=geometry))
    path = _nrrd(
        tmp_path / "two.seg.nrrd", RAW * 2, sizes="2 4 5 6", dimension=4,
        more="kinds: list domain domain domain\n", geometry=first,
    )  # fmt: skip
    with pytest.raises(ImageError, match="4D image"):
        read_volume(path)


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
def test_the_header_of_dicom_that_simpleitk_hands_on(tmp_path, suffix):
    """Names with bars, values with equal signs, colons, letters of every alphabet and several lines."""
    image = sitk.GetImageFromArray(DATA.transpose())
    for key, value in {
        "0008|0060": "CT", "0008|103e": "Thorax = nativ: für Ärzte", "0010|4000": "two\nlines = x\n\nmore",
    }.items():  # fmt: skip
        image.SetMetaData(key, value)
    for compressed in (False, True):
        sitk.WriteImage(image, str(tmp_path / f"scan.{suffix}"), compressed)
        assert b"0008|0060" in (tmp_path / f"scan.{suffix}").read_bytes()
        np.testing.assert_array_equal(read_volume(tmp_path / f"scan.{suffix}").data, DATA)


@pytest.mark.parametrize("name", ["BinaryDataByteOrderMSB", "CompressedData", "ElementNumberOfChannels", "HeaderSize"])
def test_a_damaged_name_of_a_metaimage_field_is_not_overlooked(tmp_path, name):
    path = _meta(tmp_path / "scan.mha", more=f"{name[:4]}x{name[5:]} = 1\n")
    with pytest.raises(ImageError, match="no field that is known"):
        read_volume(path)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_vectors_of_itk_come_channels_first(tmp_path, suffix):
    field = np.random.default_rng(3).normal(size=(6, 5, 4, 3)).astype(np.float32)
    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing((1.5, 2.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / f"field.{suffix}"), True)
    header = read_header(tmp_path / f"field.{suffix}")
    assert (header.kind, header.channels, header.shape) == ("vector", 3, SHAPE)
    np.testing.assert_allclose(header.affine, np.diag([-1.5, -2, 3, 1]))
    read = read_nrrd_voxels if suffix == "nrrd" else read_metaimage_voxels
    np.testing.assert_array_equal(read(header), field.transpose(3, 2, 1, 0))


@pytest.mark.parametrize("units", ["mm", "millimeters", "Millimetre", "cm", "um", "furlong"])
def test_units(tmp_path, units):
    nrrd = _nrrd(tmp_path / "scan.nrrd", more=f'space units: "{units}" "{units}" "{units}"\n')
    meta = _meta(tmp_path / "scan.mha", more=f"DistanceUnits = {units}\n")
    for path in (nrrd, meta):
        if units.lower().startswith("m"):
            _read(path)
            continue
        with pytest.raises(GeometryError, match=f"lengths in {units}"):
            read_volume(path)


def _hostile(tmp_path):
    """Headers that end ITK's process, take it many seconds, or make it read what is not there."""
    head = b"ObjectType = Image\n"
    yield "spaces.mha", head + b" " * 60_000 + b"\nNDims = 3\n"
    yield "spaces.nrrd", b"NRRD0005\n" + b" " * 60_000 + b":\n"
    yield "equals.mha", head + b"= " * 30_000
    yield "ndims.mha", head + b"NDims = -1\nElementDataFile = LOCAL\n"
    yield "ndims2.mha", head + b"NDims = 11111111113\nElementDataFile = LOCAL\n"
    yield "ndims3.mha", head + b"NDims = " + b"1" * 5000 + b"\nElementDataFile = LOCAL\n"
    yield "nofile.mha", _meta(tmp_path / "a.mha").read_bytes().replace(b"LOCAL", b"1" * 300)
    yield "nofile.mhd", _meta(tmp_path / "a.mha").read_bytes().replace(b"LOCAL", b"a\0b")
    yield "pattern.mhd", _meta(tmp_path / "a.mha").read_bytes().replace(b"LOCAL", b"%s%n 1 3 1")
    yield "pattern2.mhd", _meta(tmp_path / "a.mha").read_bytes().replace(b"LOCAL", b"%99999999d 1 3 1")
    yield "own.mha", head + b"".join(b"Own%d = Element\n" % k for k in range(30_000)) + b"ElementDataFile = LOCAL\n"
    yield "many.mhd", _meta(tmp_path / "a.mha").read_bytes().replace(b"LOCAL", b"a%d 1 99999999999 1")
    yield "size.mha", _meta(tmp_path / "a.mha").read_bytes().replace(b"4 5 6", b"99999999 99999999 99999999")
    good = _nrrd(tmp_path / "a.nrrd").read_bytes()
    yield "nested.nrrd", good.replace(b"(1.5,0,0)", b"(1.5,0," + b'{"a":' * 2000)
    yield "type.nrrd", good.replace(b"type: short", b"type: " + b'"' * 3000)
    yield "sizes.nrrd", good.replace(b"4 5 6", b"4294967296 4294967296 4294967296")
    yield "sizes2.nrrd", good.replace(b"4 5 6", b"4 5 -6")
    yield "sizes3.nrrd", good.replace(b"4 5 6", b"4 5")
    yield "dimension.nrrd", good.replace(b"dimension: 3", b"dimension: 65537")
    yield "twice.nrrd", good.replace(b"sizes: 4 5 6", b"sizes: 4 5 6\nsizes: 5 4 6")
    yield "text.nrrd", good.replace(b"encoding: raw", b"encoding: ascii")
    yield "zeros.nrrd", good.replace(b"encoding: raw", b"encoding: gzip")[: -len(RAW)] + gzip.compress(bytes(10**8))
    yield "binary.nrrd", b"NRRD0005\n" + bytes(range(1, 256)) * 20_000
    yield "many.nrrd", b"NRRD0005\n" + b"a:=b\n" * 400_000


def test_hostile_headers_are_refused_at_once(tmp_path):
    for name, content in _hostile(tmp_path):
        path = tmp_path / name
        path.write_bytes(content)
        start = time.process_time()
        with pytest.raises(MeddiftError) as caught:
            read_volume(path)
        assert time.process_time() - start < 1, name
        assert name in str(caught.value)
        assert len(str(caught.value)) < 600 + 2 * len(str(path)), name
