"""Points files as other programs really write them, damaged ones, and things that are no points files at all."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from meddift.errors import MissingFileError, OptionsError, PointsError
from meddift.io.points import parse_points_file, read_points, what_is_lost, write_points
from meddift.points import Points

MISSING = [math.nan] * 3


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


FCSV = """# Markups fiducial file version = 5.6
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
"""


class TestSlicerStatus:
    def test_the_15th_column_of_an_fcsv_says_what_was_placed(self, tmp_path: Path) -> None:
        # vtkMRMLMarkupsNode: 0 undefined, 1 preview, 2 defined, 3 missing.
        rows = "".join(f"{i},7,8,9,0,0,0,1,1,1,0,F-{i},,,{status},0\n" for i, status in enumerate((2, 0, 3, 1), 1))
        points = read_points(save(tmp_path, "a.fcsv", FCSV + rows))
        np.testing.assert_array_equal(points.positions, [[-7, -8, 9], MISSING, MISSING, MISSING])
        assert points.labels == ("F-1", "F-2", "F-3", "F-4")

    @pytest.mark.parametrize(
        ("word", "placed"), [("true", 1), ("TRUE", 1), ("1", 1), ("false", 0), ("False", 0), ("0", 0)]
    )
    def test_a_control_point_table_says_it_in_words_too(self, tmp_path: Path, word: str, placed: int) -> None:
        path = save(tmp_path, "a.csv", f"label,l,p,s,defined,selected\nA,1,2,3,{word},1\nB,4,5,6,1,1\n")
        assert read_points(path).missing.tolist() == [not placed, False]

    @pytest.mark.parametrize("name", ["positionStatus", "Position Status", "status"])
    @pytest.mark.parametrize("frame", ["l,p,s", "x,y,z"])
    def test_the_words_of_markups_in_a_table(self, tmp_path: Path, name: str, frame: str) -> None:
        """Slicer's positionStatus (markups schema): only "defined" has been placed."""
        rows = "".join(f"{word},1,2,3,{word}\n" for word in ("defined", "undefined", "preview", "missing"))
        path = save(tmp_path, "a.csv", f"label,{frame},{name}\n{rows}")
        found = read_points(path, space=None if frame == "l,p,s" else "lps")
        assert found.missing.tolist() == [False, True, True, True]
        assert not found.columns

    def test_a_status_of_something_else_is_a_column(self, tmp_path: Path) -> None:
        path = save(tmp_path, "a.csv", "label,l,p,s,status\nA,1,2,3,benign\nB,4,5,6,missing\n")
        found = read_points(path)
        assert not found.missing.any()
        assert found.columns == {"status": ("benign", "missing")}

    def test_a_word_that_is_neither_is_refused(self, tmp_path: Path) -> None:
        path = save(tmp_path, "a.csv", "label,l,p,s,defined\nA,1,2,3,perhaps\n")
        with pytest.raises(PointsError, match="line 2: defined is 1 or 0, true or false, got 'perhaps'"):
            read_points(path)

    def test_written_fcsv_carries_the_status_as_slicer_5_does(self, tmp_path: Path) -> None:
        points = Points([[1.0, 2.0, 3.0], MISSING], ("A", "B"))
        write_points(points, tmp_path / "a.fcsv")
        lines = (tmp_path / "a.fcsv").read_text().splitlines()
        assert lines[3:] == ["1,-1,-2,3,0,0,0,1,1,1,0,A,,,2,0", "2,0,0,0,0,0,0,1,1,1,0,B,,,0,0"]
        np.testing.assert_array_equal(read_points(tmp_path / "a.fcsv").positions, points.positions)


class TestShiftedColumns:
    """Decimal commas and columns that nobody announced are refused, never read as other numbers."""

    @pytest.mark.parametrize(
        "row",
        [
            "1,-12,5,30,25,-45,125,0,0,0,1,1,1,0,F-1,,,2,0",  # three decimal commas
            "1,-12,5,30.25,-45.125,0,0,0,1,1,1,0,F-1,,,2,0",  # one
            "1,-12.5,30.25,-45,1,0,0,0,1,1,1,0,F-1,,,2,0",  # one, in the last coordinate
            "1,-12.5,30.25,-45,125,0,0,0,1,1,1,0,F-1,,",  # without status
            "1,-12.5,30.25,-45,1,0,0,0,1,1,1,0,F-1,,",
            "1,-12,5,30,25,-45,0,0,0,1,1,1,0,F-1,,",
            "1,-12.5,30.25,-45.125,0,0,0,1,1,1,0,F-1,,,2,0,more",
            "1,-12.5,30.25,-45.125,0,0,0,1,1,1,0,F-1,,,7,0",
        ],
    )
    def test_fcsv(self, tmp_path: Path, row: str) -> None:
        good = "1,-12.5,30.25,-45.125,0,0,0,1,1,1,0,F-1,,,2,0\n"
        assert len(read_points(save(tmp_path, "good.fcsv", FCSV + good))) == 1
        with pytest.raises(PointsError, match="line 5"):
            read_points(save(tmp_path, "a.fcsv", f"{FCSV}{good}{row}\n"))

    @pytest.mark.parametrize("row", ["A,10,5,20,30,1,1", "A,10,5,20,30"])
    def test_fcsv_of_slicer_3(self, tmp_path: Path, row: str) -> None:
        with pytest.raises(PointsError, match="line 1"):
            read_points(save(tmp_path, "a.fcsv", row + "\n"))

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.csv", "label,x,y,z\nA,1,5,2,5,3,5\n"),
            ("a.csv", "x,y,z,t\n-12,5,30,25,-45,125,0\n"),
            ("a.csv", "x,y,z,t,label,comment\n-12,5,30,25,-45,0\n"),  # fits by accident
            ("a.csv", "label;x;y;z\nA;1,5;2,5;3,5\n"),
            ("a.tsv", "label\tx\ty\tz\nA\t1,5\t2,5\t3,5\n"),
            ("a.csv", "1,5,2,5,3,5\n"),
            ("a.csv", "1,5;2,5;3,5\n"),
            ("a.txt", "1,5 2,5 3,5\n4,5 5,5 6,5\n"),
            ("a.txt", "1,5\t2\t3\n"),
            ("a.txt", "point\n1\n1,5 2,5 3,5\n"),
            ("a.txt", "Point\t0\t; OutputPoint = [ 1,5 2,5 3,5 ]\n"),
            ("a.csv", "label,l,p,s,defined,selected,visible,locked,description\nA,1,5,2,5,3,5,1,1,1,0,\n"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": ["1,5", "2,5", "3,5"]}]}]}'),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1,5, 2,5, 3,5]}]}]}'),
        ],
    )
    def test_other_formats(self, tmp_path: Path, name: str, text: str) -> None:
        with pytest.raises(PointsError):
            read_points(save(tmp_path, name, text), space=None if "json" in name else "ras")


class TestBlankRows:
    @pytest.mark.parametrize(
        ("name", "text", "space"),
        [
            ("ants.csv", "x,y,z,t\n-12.5,30.25,-45.125,0\n,,,\n1,2,3,0\n,,,\n,,,\n", None),
            ("slicer.csv", "l,p,s,description\n-12.5,30.25,-45.125,\n,,,\n1,2,3,\n,,,\n", None),
            ("tab.tsv", "l\tp\ts\n-12.5\t30.25\t-45.125\n\t\t\n1\t2\t3\n\t\t\n", None),
            ("own.csv", "# meddift points; space=LPS\nlabel,x,y,z\n1,-12.5,30.25,-45.125\n,,,\n3,1,2,3\n,,,\n", None),
            ("l2r.csv", "-12.5,30.25,-45.125\n,,\n1,2,3\n,,\n", "lps"),
            ("a.fcsv", FCSV + "1,-12.5,30.25,-45.125\n,,,,,,,,,,,,,,,\n3,1,2,3\n,,,\n", None),
        ],
    )
    def test_a_blank_row_in_between_is_a_missing_point_and_keeps_its_number(self, tmp_path, name, text, space) -> None:
        points = read_points(save(tmp_path, name, text), space=space)
        np.testing.assert_array_equal(points.positions, [[12.5, -30.25, -45.125], MISSING, [-1, -2, 3]])
        if name in ("ants.csv", "slicer.csv", "tab.tsv", "l2r.csv"):
            assert points.labels == ("1", "2", "3")

    def test_lines_without_anything_are_no_rows(self, tmp_path: Path) -> None:
        points = read_points(save(tmp_path, "a.csv", "\n\nx,y,z,t\n\n1,2,3,0\n\n\n4,5,6,0\n\n"))
        assert len(points) == 2


class TestLabelsAndColumns:
    @pytest.mark.parametrize("name", ["name", "Name", "LABEL", "lesion", "Lesion", "id", "ID"])
    def test_labels_by_any_of_their_names(self, tmp_path: Path, name: str) -> None:
        points = read_points(save(tmp_path, "a.csv", f"{name},x,y,z\nnodule,1,2,3\n"), space="ras")
        assert points.labels == ("nodule",)
        assert points.columns == {}

    def test_where_there_are_several_the_rest_are_columns(self, tmp_path: Path) -> None:
        points = read_points(save(tmp_path, "a.csv", "id,Name,x,y,z,Grade\n7,nodule,1,2,3,IV\n"), space="ras")
        assert (points.labels, points.columns) == (("nodule",), {"id": ("7",), "Grade": ("IV",)})

    @pytest.mark.parametrize("suffix", ["csv", "tsv"])
    def test_columns_are_carried_through(self, tmp_path: Path, suffix: str) -> None:
        points = read_points(
            save(
                tmp_path,
                "a.csv",
                'name,x,y,z,size mm,remark\nA,1,2,3,8.5,"left, upper"\nB,,,,,"two\nlines\tand tab"\n',
            ),
            space="ras",
        )
        write_points(points, tmp_path / f"b.{suffix}")
        again = read_points(tmp_path / f"b.{suffix}")
        np.testing.assert_array_equal(again.positions, points.positions)
        assert again.labels == ("A", "B")
        assert again.columns == {"size mm": ("8.5", ""), "remark": ("left, upper", "two\nlines\tand tab")}
        if suffix == "tsv":
            assert "label\tx\ty\tz\tsize mm\tremark" in (tmp_path / "b.tsv").read_text()

    def test_pandas_reads_what_was_written(self, tmp_path: Path) -> None:
        pandas = pytest.importorskip("pandas")
        write_points(Points([[1.5, 2, 3]], ("A",), {"grade": ("IV",)}), tmp_path / "a.tsv")
        table = pandas.read_csv(tmp_path / "a.tsv", sep="\t", comment="#")
        assert table.to_dict("records") == [{"label": "A", "x": 1.5, "y": 2, "z": 3, "grade": "IV"}]

    def test_a_column_written_anew_replaces_the_old_one(self, tmp_path: Path) -> None:
        points = Points([[1, 2, 3]], ("A",), {"Verdict": ("old",), "x": ("1",), "grade": ("IV",)})
        write_points(points, tmp_path / "a.csv", extra={"verdict": ["new"]})
        assert read_points(tmp_path / "a.csv").columns == {"grade": ("IV",), "verdict": ("new",)}

    def test_what_a_format_has_no_room_for_is_told(self, tmp_path: Path) -> None:
        points = Points([[1, 2, 3], [4, 5, 6]], ("A", "B"), {"grade": ("IV", "I"), "size": ("1", "2")})
        assert (
            what_is_lost(points, "a.csv") == what_is_lost(points, "a.mrk.json") == what_is_lost(points, "a.fcsv") == []
        )
        for path, form in (("a.txt", None), ("a.txt", "dirlab"), ("a.csv", "learn2reg")):
            assert what_is_lost(points, path, form) == ["labels", "columns grade, size"]  # type: ignore[arg-type]
        assert what_is_lost(Points([[1, 2, 3]]), "a.txt") == []
        write_points(points, tmp_path / "a.txt")
        assert (tmp_path / "a.txt").read_text() == "point\n2\n-1 -2 3\n-4 -5 6\n"

    def test_columns_of_another_length_are_refused(self) -> None:
        with pytest.raises(PointsError, match="'grade' has 2 values for 1 points"):
            Points([[1, 2, 3]], ("A",), {"grade": ("I", "II")})

    def test_a_subset_takes_its_columns_along(self) -> None:
        points = Points([[1, 2, 3], [4, 5, 6]], ("A", "B"), {"grade": ("I", "II")}).subset([1])
        assert (points.labels, points.columns) == (("B",), {"grade": ("II",)})


class TestLabelMaps:
    def test_the_centre_of_every_label(self, tmp_path: Path) -> None:
        data = np.zeros((12, 14, 16), np.uint8)
        data[2:5, 3, 4:6] = 1  # centre (3, 3, 4.5)
        data[8, 9, 10] = 7
        affine = np.array([[-1.5, 0.2, 0, 30], [0.2, 1.5, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]])
        affine[:2, :2] = [[0, -1.5], [1.5, 0]]
        image = nibabel.Nifti1Image(data, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nibabel.save(image, tmp_path / "lesions.nii.gz")
        points = read_points(tmp_path / "lesions.nii.gz")
        expected = nibabel.affines.apply_affine(affine, [[3, 3, 4.5], [8, 9, 10]])
        np.testing.assert_allclose(points.positions, expected, atol=1e-6)
        assert points.labels == ("1", "7")
        assert parse_points_file(tmp_path / "lesions.nii.gz").format == "label map"

    @pytest.mark.parametrize("what", ["scan", "floats", "empty"])
    def test_an_image_without_labels_is_refused(self, tmp_path: Path, what: str) -> None:
        data = np.random.default_rng(0).normal(size=(8, 8, 8)) * 300
        data = {
            "scan": data.astype(np.int16),
            "floats": data.astype(np.float32),
            "empty": np.zeros((8, 8, 8), np.uint8),
        }[what]
        image = nibabel.Nifti1Image(data, np.eye(4))
        image.set_sform(np.eye(4), 1)
        nibabel.save(image, tmp_path / "a.nii.gz")
        with pytest.raises(PointsError, match=r"no label map|without any label"):
            read_points(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"\x89PNG\r\n\x1a\n....", "a PNG picture"),
        ("a.csv", b"PK\x03\x04....", "Excel"),
        ("a.xls", b"\xd0\xcf\x11\xe0....", "Excel"),
        ("a.txt", b"#Insight Transform File V1.0\n", "an ITK transform"),
        ("a.txt", b'(Transform "EulerTransform")\n', "an elastix transform"),
        ("a.h5", b"\x89HDF\r\n\x1a\n\x00", "HDF5"),
        ("a.csv.gz", gzip.compress(b"x,y,z\n1,2,3\n", mtime=0), "gzip archive"),
        ("a.mps", b'<?xml version="1.0"?>', "XML"),
        ("a.vtk", b"# vtk DataFile Version 3.0\n", "VTK"),
    ],
)
def test_what_was_given_instead_of_points_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(PointsError, match=words):
        read_points(save(tmp_path, name, content))


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises((PointsError, MissingFileError)):
        read_points(tmp_path / ("a" * 5000 + ".csv"))


HOSTILE = {
    "digits.csv": "x,y,z,t\n" + "1" * 30_000 + "x,2,3,0\n",
    "digits.txt": "1" * 800_000 + "x 2 3\n",
    "count.txt": "point\n" + "9" * 10_000 + "\n1 2 3\n",
    "outputpoints.txt": "Point\t0\t; " + "OutputPoint = [ 1 2 3 " * 35_000 + "\n",
    "spaces.txt": "Point\t0\t; " + ("OutputPoint" + " " * 200) * 4_000 + "\n",
    "comments.csv": "# meddift points; space=RAS\n" + "#\n" * 390_000 + "label,x,y,z\nA,1,2\n",
    "columns.csv": ",".join(f"c{i}" for i in range(100_000)) + ",x,y,z\n1\n",
    "version.csv": "# meddift points; version=" + "9" * 50_000 + "\nlabel,x,y,z\nA,1,2,3\n",
    "quotes.csv": 'x,y,z,t\n"' + '""' * 300_000 + "\n",
    "nested.mrk.json": '{"markups":' * 50_000,
    "numbers.mrk.json": '{"markups": [{"controlPoints": [{"position": [1,2,' + "3" * 500_000 + "]}]}]}",
    "text.mrk.json": json.dumps({"markups": [{"controlPoints": [{"position": "x" * 700_000}]}]}),
    "a.fcsv": FCSV + "1," + "1" * 400_000 + ",",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_in_linear_time_and_few_words(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, name, HOSTILE[name])
    started = time.process_time()
    with pytest.raises(PointsError) as caught:
        read_points(path)
    assert time.process_time() - started < 1.0
    assert len(str(caught.value)) < 1000 + len(str(tmp_path))


def test_points_are_not_written_over_a_scan(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"a scan")
    with pytest.raises(OptionsError, match="the name of an image"):
        write_points(Points([[1.0, 2, 3]]), tmp_path / "scan.nii.gz", format="elastix")
    assert (tmp_path / "scan.nii.gz").read_bytes() == b"a scan"
