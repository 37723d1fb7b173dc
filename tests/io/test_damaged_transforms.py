"""Transform files that are cut off, damaged or hostile: refused in a sentence, never half read, and at once."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from meddift.errors import MeddiftError, TransformError
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Grid
from meddift.io import read_transform, write_transform
from meddift.io.hdf5.frame import checksum
from meddift.io.transform_sidecar import file_entry, sidecar_path

LPS = np.array([-1.0, -1.0, 1.0])
AFFINE = sitk.AffineTransform((1.1, 0.2, 0.0, -0.1, 0.9, 0.05, 0.0, 0.1, 1.3), (1.5, -2.25, 3.75), (50.0, 60.5, -70.0))
EULER = sitk.Euler3DTransform((10.0, -20.0, 30.0), 0.3, -0.2, 0.5, (4.0, 5.0, -6.0))


def written(transform: sitk.Transform, path: Path) -> bytes:
    sitk.WriteTransform(transform, str(path))
    return path.read_bytes()


def field_image(seed: int = 0) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(seed).normal(0, 25, (5, 6, 7, 3)), isVector=True)
    image.SetSpacing((2.0, 2.0, 2.5))
    return image


class TestCutOff:
    """Cut at every byte: refused, or the very transform that the whole file holds."""

    @pytest.mark.parametrize("name", ["affine.tfm", "affine.mat", "affine.h5", "euler.tfm"])
    def test_a_transform_cut_anywhere(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / name
        whole = written(AFFINE if name.startswith("affine") else EULER, path)
        for length in range(0, len(whole), 1 if len(whole) < 1000 else 37):
            path.write_bytes(whole[:length])
            with pytest.raises(TransformError):
                read_transform(path)

    def test_text_cut_inside_its_members(self, tmp_path: Path) -> None:
        """Only where the first member ends is a shorter composition whole again, and ITK's text does not tell."""
        path = tmp_path / "both.tfm"
        whole = written(sitk.CompositeTransform([AFFINE, EULER]), path)
        ends = {whole.index(b"#Transform 2") + extra for extra in range(1)}
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            if length not in ends:
                with pytest.raises(TransformError):
                    read_transform(path)

    def test_text_of_ours_says_how_many_members_there_are(self, tmp_path: Path) -> None:
        path = tmp_path / "both.tfm"
        parts = (AffineTransform(np.diag([1.1, 1, 1, 1])), AffineTransform(np.diag([1, 1.2, 1, 1])))
        write_transform(CompositeTransform(parts), path)
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(TransformError):
                read_transform(path)

    @pytest.mark.parametrize(
        "name", ["field.nii", "field.nii.gz", "field.nrrd", "field.mha", "packed.nrrd", "packed.mha"]
    )
    def test_a_truncated_field_is_not_read_as_zeros(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / name
        sitk.WriteImage(field_image(), str(path), name.startswith("packed"))
        whole = path.read_bytes()
        for length in (len(whole) - 1, len(whole) - 200, len(whole) // 2, 100):
            path.write_bytes(whole[:length])
            with pytest.raises(TransformError, match=name):
                read_transform(path)


class TestDamaged:
    @pytest.mark.parametrize("name", ["field.nii.gz", "packed.nrrd", "packed.mha"])
    def test_a_flipped_byte_in_a_compressed_field_is_noticed(self, name: str, tmp_path: Path) -> None:
        """A flip that deflate does not notice: stored blocks, as level 0 makes them."""
        path = tmp_path / name
        plain = tmp_path / ("field.nii" if "nii" in name else name.replace("packed", "plain"))
        sitk.WriteImage(field_image(), str(plain))
        raw = plain.read_bytes()
        if name.endswith(".nii.gz"):
            packed = gzip.compress(raw, 0)
        else:
            mark = b"\n\n" if name.endswith(".nrrd") else b"ElementDataFile = LOCAL\n"
            start = raw.index(mark) + len(mark)
            header, data = raw[:start], raw[start:]
            if name.endswith(".nrrd"):
                packed = header.replace(b"encoding: raw", b"encoding: gzip") + gzip.compress(data, 0)
            else:
                header = header.replace(b"CompressedData = False", b"CompressedData = True")
                packed = header + zlib.compress(data, 0)
        path.write_bytes(packed)
        read_transform(path)
        at = len(packed) - 300
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 64]) + packed[at + 1 :])
        with pytest.raises(TransformError, match=name):
            read_transform(path)

    def test_a_flipped_byte_in_a_header_of_hdf5_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "affine.h5"
        whole = written(AFFINE, path)
        at = whole.index(b"OHDR", whole.index(b"TransformParameters")) + 20
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(TransformError, match="checksum"):
            read_transform(path)

    def test_the_checksum_of_hdf5(self) -> None:
        """Values printed by its author's own driver (lookup3.c, driver5, with initial value 0)."""
        assert checksum(b"") == 0xDEADBEEF
        assert checksum(b"Four score and seven years ago") == 0x17770551

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("Parameters: / 0 0 1 2 3", "'/' is not a number"),
            ("Parameters: 0 0 ] 1 2 3", "is not a number"),
            ("Parameters: 0 0 nan 1 2 3", "is not a number"),
            ("Parameters: 0 0 1e999 1 2 3", "no lengths in mm"),
            ("Parameters: 0 0 1_0 1 2 3", "is not a number"),
            ("Parameters: 0 0 0,5 1 2 3", "is not a number"),
            ("Parameters: 0 0 " + "," * 2000, "is not a number"),
            ("Parameters: 0 0 0.5 1 2\N{NO-BREAK SPACE}3", "is not a number"),
            ("Parameters: 0.1 0 0 1 2", "has 6 parameters"),
            ("Parameters:", "has 6 parameters"),
            ("Parameter: 0 0 0 1 2 3", "does not belong"),
        ],
    )
    def test_text_that_is_no_number(self, line: str, message: str, tmp_path: Path) -> None:
        """Of each of these ITK died, or took it for 0 or for memory garbage."""
        path = tmp_path / "euler.tfm"
        text = "#Insight Transform File V1.0\n#Transform 0\nTransform: Euler3DTransform_double_3_3\n"
        path.write_text(f"{text}{line}\nFixedParameters: 0 0 0 0\n", encoding="utf-8")
        with pytest.raises(TransformError, match=message) as caught:
            read_transform(path)
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()

    def test_control_characters_of_a_class_do_not_reach_the_terminal(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.tfm"
        path.write_bytes(b"#Insight\nTransform: \x1b[2J\xff\nParameters: 1\nFixedParameters: 1\n")
        with pytest.raises(TransformError) as caught:
            read_transform(path)
        assert str(caught.value).isprintable()

    def test_a_matlab_matrix_that_announces_a_gigabyte(self, tmp_path: Path) -> None:
        path = tmp_path / "affine.mat"
        whole = written(AFFINE, path)
        for rows in (1 << 27, 0x7FFFFFFF, -1):
            path.write_bytes(whole[:4] + rows.to_bytes(4, "little", signed=True) + whole[8:])
            with pytest.raises(TransformError, match=r"affine\.mat"):
                read_transform(path)

    def test_the_lattice_of_a_field_against_its_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "field.tfm"
        lattice = "2 2 2 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1"
        text = "Transform: DisplacementFieldTransform_double_3_3\nParameters: {}\nFixedParameters: {}\n"
        path.write_text(text.format(" ".join(["0.5"] * 24), lattice))
        read_transform(path)
        for numbers, fixed in (
            (23, lattice),
            (24, lattice.replace("2 2 2", "2 2 -2")),
            (24, lattice.replace("2 2 2", "2 2 2.5")),
            (24, lattice.replace("1 1 1", "1 0 1", 1)),
            (24, lattice.replace("2 2 2", "99999 99999 99999")),
            (24, lattice.replace(" 1 0 0 0 1 0", " 1 0 0 1 0 0")),
            (24, lattice + " 0"),
        ):
            path.write_text(text.format(" ".join(["0.5"] * numbers), fixed))
            with pytest.raises(TransformError, match=r"field\.tfm"):
                read_transform(path)

    def test_an_affine_with_another_last_row(self) -> None:
        matrix = np.eye(4)
        matrix[3] = (0.0, 0.0, 0.1, 1.0)
        with pytest.raises(TransformError, match="last row"):
            AffineTransform(matrix)

    def test_versors_that_are_no_rotation(self, tmp_path: Path) -> None:
        path = tmp_path / "versor.tfm"
        path.write_text(
            "Transform: VersorRigid3DTransform_double_3_3\nParameters: 0.9 0.9 0.1 0 0 0\nFixedParameters: 0 0 0\n"
        )
        with pytest.raises(TransformError, match="no rotation"):
            read_transform(path)


class TestOtherPrograms:
    def test_a_bare_matrix_of_flirt_or_greedy(self, tmp_path: Path) -> None:
        (tmp_path / "flirt.mat").write_text("1 0 0 2.5  \n0 1 0 3  \n0 0 1 4  \n0 0 0 1  \n")
        with pytest.raises(TransformError, match=r"4 x 4 matrix.*c3d_affine_tool"):
            read_transform(tmp_path / "flirt.mat")

    def test_a_field_of_niftyreg_is_not_taken_for_one_of_itk(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), np.diag([2.0, 2, 2, 1]))
        image.header.set_intent(1007, name="NREG_TRANS")
        nibabel.save(image, tmp_path / "cpp.nii.gz")
        with pytest.raises(TransformError, match="NiftyReg"):
            read_transform(tmp_path / "cpp.nii.gz")

    def test_matlab_of_another_level(self, tmp_path: Path) -> None:
        scipy_io = pytest.importorskip("scipy.io")
        scipy_io.savemat(tmp_path / "five.mat", {"AffineTransform_double_3_3": np.zeros((12, 1))})
        with pytest.raises(TransformError, match="level 5"):
            read_transform(tmp_path / "five.mat")
        scipy_io.savemat(tmp_path / "four.mat", {"AffineTransform_double_3_3": np.zeros((12, 1))}, format="4")
        with pytest.raises(TransformError, match="cut off"):
            read_transform(tmp_path / "four.mat")

    def test_matlab_of_scipy_in_both_orders_of_bytes(self, tmp_path: Path) -> None:
        """Level 4 by its format: big-endian files begin with 1000, those of single precision with 10."""
        numbers = np.array(AFFINE.GetParameters()), np.array(AFFINE.GetFixedParameters())
        for order, kind, code in (("<", "f8", 0), (">", "f8", 1000), ("<", "f4", 10), (">", "f4", 1010)):
            raw = b""
            for name, values in zip((b"AffineTransform_double_3_3\0", b"fixed\0"), numbers, strict=True):
                raw += np.array([code, len(values), 1, 0, len(name)], f"{order}i4").tobytes() + name
                raw += values.astype(f"{order}{kind}").tobytes()
            (tmp_path / "a.mat").write_bytes(raw)
            moved = read_transform(tmp_path / "a.mat").apply(np.array([[5.0, 6.0, 7.0]]) * LPS) * LPS
            np.testing.assert_allclose(moved, [AFFINE.TransformPoint((5.0, 6.0, 7.0))], atol=1e-4)

    def test_hdf5_without_a_transform(self, tmp_path: Path) -> None:
        whole = written(AFFINE, tmp_path / "a.h5")
        start = whole.index(b"TransformGroup")
        (tmp_path / "a.h5").write_bytes(whole[:start] + b"TransformGroip" + whole[start + 14 :])
        with pytest.raises(TransformError, match="checksum"):  # the name stands in a header, which has one
            read_transform(tmp_path / "a.h5")


class TestSidecar:
    def test_a_transform_that_is_not_the_one_of_its_sidecar(self, tmp_path: Path) -> None:
        path = tmp_path / "T.mat"
        whole = written(AFFINE, path)
        content = {"direction": {}, "file": file_entry(path, name="T.mat")}
        sidecar_path(path).write_text(json.dumps(content))
        assert content["file"]["sha256"] == hashlib.sha256(whole).hexdigest()
        read_transform(path)
        flipped = bytearray(whole)
        flipped[-90] ^= 1  # one bit of a number: nothing in the file itself tells
        path.write_bytes(bytes(flipped))
        with pytest.raises(TransformError, match=r"T\.mat is not the file that T\.transform\.json describes"):
            read_transform(path)

    def test_sidecars_of_others_and_damaged_ones(self, tmp_path: Path) -> None:
        path = tmp_path / "T.tfm"
        written(AFFINE, path)
        beside = sidecar_path(path)
        other = {"direction": {}, "file": {"name": "T.h5", "sha256": "0" * 64}}
        for harmless in ('{"a": 1}', "[]", '{"direction": 3}', json.dumps(other)):
            beside.write_text(harmless)
            read_transform(path)
        for damaged in ("{", "[" * 100_000, "\udcff"):
            beside.write_bytes(damaged.encode("utf-8", "surrogateescape"))
            with pytest.raises(TransformError, match=r"T\.transform\.json is damaged"):
                read_transform(path)


def test_more_members_than_fit_into_a_header_of_hdf5(tmp_path: Path) -> None:
    """HDF5 keeps groups of more than eight members in another structure."""
    for count in (8, 9, 11, 40):
        shifts = np.random.default_rng(count).normal(0, 5, (count, 3))
        parts = [sitk.TranslationTransform(3, shift.tolist()) for shift in shifts]
        sitk.WriteTransform(sitk.CompositeTransform(parts), str(tmp_path / "long.h5"))
        moved = read_transform(tmp_path / "long.h5").apply([[0.0, 0.0, 0.0]]) * LPS
        np.testing.assert_allclose(moved, [shifts.sum(axis=0)], atol=1e-9)


def test_every_error_is_one_of_ours_for_names_that_no_file_system_allows(tmp_path: Path) -> None:
    for name in ("x" * 5000 + ".h5", "a\0b.h5", "folder.h5"):
        path = tmp_path / name
        if name.startswith("folder"):
            path.mkdir()
        with pytest.raises(MeddiftError):
            read_transform(path)


def test_equal_transforms_make_equal_files(tmp_path: Path) -> None:
    """And none that tells the system on which it was written, as those of ITK do."""
    for name in ("f.h5", "f.nii.gz"):
        field = DisplacementField(np.zeros((3, 2, 3, 4), np.float32), Grid((2, 3, 4), np.eye(4)))
        write_transform(field, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_transform(field, tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
        assert b"OSVersion" not in first


def test_a_field_of_ours_survives_unchanged(tmp_path: Path) -> None:
    grid = Grid((4, 5, 6), np.diag([2.0, 3.0, 4.0, 1.0]))
    field = DisplacementField(np.random.default_rng(0).normal(0, 3, (3, 4, 5, 6)).astype(np.float32), grid)
    for name in ("f.h5", "f.nii.gz", "f.nrrd", "f.mha"):
        write_transform(field, tmp_path / name)
        again = read_transform(tmp_path / name)
        assert isinstance(again, DisplacementField)
        np.testing.assert_array_equal(again.displacement, field.displacement)


@pytest.mark.parametrize(
    "content",
    [
        b"\n" * 3_000_000,
        b"# Transform 9\n" * 200_000,
        b"Transform: CompositeTransform_double_3_3\n" * 70_000,
        b"Transform: AffineTransform_double_3_3\nParameters: " + b"9" * 3_000_000 + b"\nFixedParameters: 0 0 0\n",
        b"Transform: AffineTransform_double_3_3\nParameters: " + b"1 " * 1_000_000 + b"\nFixedParameters: 0 0 0\n",
        b"Transform: AffineTransform_double_3_3\nParameters: " + b"," * 3_000_000 + b"\nFixedParameters: 0 0 0\n",
    ],
    ids=["blank lines", "comments", "compositions", "one long number", "many numbers", "commas"],
)
def test_megabytes_of_text_take_no_time(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "long.tfm").write_bytes(content)
    start = time.process_time()
    with pytest.raises(TransformError) as caught:
        read_transform(tmp_path / "long.tfm")
    assert time.process_time() - start < 2.0
    assert len(str(caught.value)) < 600


@pytest.mark.skipif(sys.platform != "linux", reason="the largest size of a file is limited as Linux does it")
@pytest.mark.parametrize("name", ["f.h5", "f.nii", "f.nii.gz", "f.nrrd", "f.mha", "f.tfm"])
def test_a_disk_that_is_full_is_told(name: str, tmp_path: Path) -> None:
    """ITK's NIfTI writer says nothing and leaves half a field, its HDF5 writer ends the process when Python ends."""
    program = """
import resource, sys
import numpy as np
from meddift.errors import OutputError
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Grid
from meddift.io import write_transform
values = np.random.default_rng(0).normal(0, 1, (3, 20, 20, 20)).astype(np.float32)
field = DisplacementField(values, Grid((20, 20, 20), np.eye(4)))
many = CompositeTransform(tuple(AffineTransform(np.diag([1.1, 1, 1, 1])) for _ in range(300)))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_transform(many if sys.argv[1].endswith("tfm") else field, sys.argv[1])
except OutputError as error:
    print("told:", error)
"""
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], capture_output=True, text=True)
    assert run.stdout.startswith(f"told: cannot write {tmp_path / name}"), run.stderr[-1000:]
    assert run.returncode == 0
    assert list(tmp_path.iterdir()) == []


HOSTILE = Path(__file__).parent / "cases" / "hostile"


@pytest.mark.parametrize("name", sorted(path.name for path in HOSTILE.iterdir()))
def test_files_on_which_itk_died_or_went_on_for_ever(name: str) -> None:
    """Found by damaging good files: ITK 5.4 ended the process, took half a gigabyte, or did not come back."""
    start = time.process_time()
    with pytest.raises(TransformError) as caught:
        read_transform(HOSTILE / name)
    assert time.process_time() - start < 1.0
    assert name in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("end", ["double_3_3_douform", "double_3_3_3_3", "a_b_c_d_double_3_3"])
def test_a_name_that_is_no_class_is_not_taken_for_a_spline(tmp_path: Path, end: str) -> None:
    (tmp_path / "t.tfm").write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: BSplineTransform_{end}\nParameters: {'0 ' * 192}\n"
        "FixedParameters: 4 4 4 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1\n"
    )
    with pytest.raises(TransformError, match="is no class of ITK"):
        read_transform(tmp_path / "t.tfm")
