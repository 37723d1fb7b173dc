"""Points in files: frames against hand-worked examples, nibabel and SimpleITK; formats against their own rules."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from meddift.errors import FrameError, MissingFileError, OptionsError, OutputError, PointsError
from meddift.geometry import Grid
from meddift.io.points import describe_points, looks_like_flipped, parse_points_file, read_points, write_points
from meddift.points import Points

MANY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

COORDINATE = st.floats(-3000, 3000, allow_nan=False)
POSITION = st.one_of(st.tuples(COORDINATE, COORDINATE, COORDINATE), st.just((math.nan,) * 3))
PRESENT = st.tuples(COORDINATE, COORDINATE, COORDINATE)
#: Whatever a person or a program may call a point; NUL and lone surrogates are no text.
LABEL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
AWKWARD = st.sampled_from(
    ['a,"b"', "'", '"', '""', "#1", " lead", "trail ", "", "Lungenrundherd rechts Ø", "结节", ";", "nan"]
)
LINE = st.one_of(AWKWARD, LABEL.map(lambda text: text.replace("\n", "").replace("\r", "")))
ANY_LABEL = st.one_of(AWKWARD, LABEL, st.just("two\nlines"), st.just("\r\n"))


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def made(rows: list[tuple[Any, str]]) -> Points:
    return Points(np.array([row[0] for row in rows]).reshape(-1, 3), tuple(row[1] for row in rows))


def oblique_grid(orientation: int = 0, *, shape: tuple[int, int, int] = (30, 40, 20)) -> Grid:
    """One of the 48 orientations, turned a little, with unequal spacing and an origin."""
    permutations = list(itertools.permutations(range(3)))
    signs = list(itertools.product([1.0, -1.0], repeat=3))
    turn = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(permutations[orientation // 8], signs[orientation % 8], strict=True)):
        turn[row, column] = sign
    affine = np.eye(4)
    tilt = Rotation.from_euler("xyz", [7, -4, 11], degrees=True).as_matrix()
    affine[:3, :3] = tilt @ turn @ np.diag([0.7, 1.3, 2.5])
    affine[:3, 3] = [-31.0, 42.0, 900.0]
    return Grid(shape, affine)


class TestRoundTrip:
    @MANY
    @given(
        rows=st.lists(st.tuples(POSITION, ANY_LABEL), min_size=1, max_size=8), space=st.sampled_from(["lps", "ras"])
    )
    def test_slicer_json(self, tmp_path: Path, rows: list[Any], space: Any) -> None:
        self.check(tmp_path / "points.mrk.json", made(rows), space=space)

    @MANY
    @given(
        rows=st.lists(st.tuples(POSITION, ANY_LABEL), min_size=1, max_size=8),
        space=st.sampled_from(["lps", "ras", "voxel", "voxel1"]),
    )
    def test_own_table(self, tmp_path: Path, rows: list[Any], space: Any) -> None:
        self.check(tmp_path / "points.csv", made(rows), space=space, grid=oblique_grid(17))

    @MANY
    @given(rows=st.lists(st.tuples(PRESENT, LINE), min_size=1, max_size=8), space=st.sampled_from(["lps", "ras"]))
    def test_slicer_fcsv(self, tmp_path: Path, rows: list[Any], space: Any) -> None:
        self.check(tmp_path / "points.fcsv", made(rows), space=space)

    @MANY
    @given(rows=st.lists(st.tuples(POSITION, LINE), min_size=1, max_size=8))
    def test_ants(self, tmp_path: Path, rows: list[Any]) -> None:
        self.check(tmp_path / "points.csv", made(rows), format="ants")

    @MANY
    @given(rows=st.lists(PRESENT, min_size=1, max_size=8), suffix=st.sampled_from(["txt", "pts"]))
    def test_elastix(self, tmp_path: Path, rows: list[Any], suffix: str) -> None:
        self.check(tmp_path / f"points.{suffix}", Points(np.array(rows)))

    @MANY
    @given(rows=st.lists(POSITION, min_size=1, max_size=8), orientation=st.integers(0, 47))
    def test_learn2reg(self, tmp_path: Path, rows: list[Any], orientation: int) -> None:
        points, grid = Points(np.array(rows)), oblique_grid(orientation)
        write_points(points, tmp_path / "points.csv", grid=grid, format="learn2reg")
        again = read_points(tmp_path / "points.csv", grid=grid, space="voxel")
        np.testing.assert_allclose(again.positions, points.positions, atol=1e-6)

    @MANY
    @given(
        rows=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 39), st.integers(0, 19)), min_size=1, max_size=8),
        orientation=st.integers(0, 47),
    )
    def test_dirlab_keeps_whole_voxels(self, tmp_path: Path, rows: list[Any], orientation: int) -> None:
        grid = oblique_grid(orientation)
        points = Points.from_voxels(rows, grid)
        write_points(points, tmp_path / "points.txt", grid=grid, format="dirlab")
        assert np.loadtxt(tmp_path / "points.txt", ndmin=2).tolist() == (np.array(rows) + 1).tolist()
        again = read_points(tmp_path / "points.txt", grid=grid, space="voxel1")
        np.testing.assert_allclose(again.positions, points.positions, atol=1e-9)

    @staticmethod
    def check(path: Path, points: Points, **options: Any) -> None:
        write_points(points, path, **options)
        again = read_points(path, grid=options.get("grid"))
        np.testing.assert_allclose(again.positions, points.positions, atol=1e-6)
        if path.suffix in (".txt", ".pts"):
            assert again.labels == tuple(str(i + 1) for i in range(len(points)))
        else:
            assert again.labels == points.labels


class TestVoxelFrames:
    @pytest.mark.parametrize("orientation", range(48))
    def test_against_nibabel_and_simpleitk(self, tmp_path: Path, orientation: int) -> None:
        grid = oblique_grid(orientation)
        index = np.array([[0.0, 0.0, 0.0], [1.5, 2.25, 3.0], [29.0, 39.0, 19.0]])
        path = save(tmp_path, "voxels.csv", "".join(f"{x},{y},{z}\n" for x, y, z in index.tolist()))
        expected = nibabel.affines.apply_affine(grid.affine, index)
        np.testing.assert_allclose(read_points(path, space="voxel", grid=grid).positions, expected, atol=1e-9)
        one_based = save(tmp_path, "voxels1.txt", "".join(f"{x + 1} {y + 1} {z + 1}\n" for x, y, z in index.tolist()))
        np.testing.assert_allclose(read_points(one_based, space="voxel1", grid=grid).positions, expected, atol=1e-9)

        image = sitk.Image(list(grid.shape), sitk.sitkUInt8)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetSpacing([0.7, 1.3, 2.5])
        image.SetDirection((lps[:3, :3] / [0.7, 1.3, 2.5]).ravel().tolist())
        elastix = tmp_path / "points.txt"
        write_points(Points(expected), elastix)
        for line, ijk in zip(elastix.read_text().splitlines()[2:], index.tolist(), strict=True):
            physical = image.TransformContinuousIndexToPhysicalPoint(ijk)
            np.testing.assert_allclose([float(word) for word in line.split()], physical, atol=1e-6)

    def test_elastix_index_file(self, tmp_path: Path) -> None:
        grid = oblique_grid(5)
        expected = nibabel.affines.apply_affine(grid.affine, [[1, 2, 3], [4, 5, 6]])
        named = save(tmp_path, "a.txt", "index\n2\n1 2 3\n4 5 6\n")
        bare = save(tmp_path, "b.txt", "2\n1 2 3\n4 5 6\n")  # elastix takes it for indices
        for path in (named, bare):
            np.testing.assert_allclose(read_points(path, grid=grid).positions, expected)
            np.testing.assert_allclose(read_points(path, grid=grid, space="voxel").positions, expected)
            with pytest.raises(FrameError, match="image"):
                read_points(path)
            with pytest.raises(FrameError, match="lps was asked for"):
                read_points(path, grid=grid, space="lps")

    def test_elastix_index_with_fraction_is_refused(self, tmp_path: Path) -> None:
        path = save(tmp_path, "a.txt", "index\n1\n1.5 2 3\n")
        with pytest.raises(PointsError, match=r"line 3.*rounds"):
            read_points(path, grid=oblique_grid())

    def test_counting_from_zero_called_counting_from_one(self, tmp_path: Path) -> None:
        path = save(tmp_path, "case.txt", "5 6 7\n0 3 4\n")
        with pytest.raises(FrameError, match="point 2"):
            read_points(path, space="voxel1", grid=oblique_grid())

    @pytest.mark.parametrize("space", ["voxel", "voxel1"])
    def test_voxels_need_their_image(self, tmp_path: Path, space: Any) -> None:
        path = save(tmp_path, "voxels.csv", "1,2,3\n")
        with pytest.raises(FrameError, match="image they were counted in"):
            read_points(path, space=space)
        with pytest.raises(FrameError, match="image they were counted in"):
            write_points(Points([[1, 2, 3]]), tmp_path / "out.csv", space=space)
        assert not (tmp_path / "out.csv").exists()


#: One point 10 mm to the right, 20 mm to the front and 30 mm up, as each program would write it by hand.
RAS = [10.0, 20.0, 30.0]
BY_HAND = {
    "slicer.mrk.json": '{"markups":[{"type":"Fiducial","coordinateSystem":"LPS","coordinateUnits":"mm",'
    '"controlPoints":[{"label":"A","position":[-10,-20,30]}]}]}',
    "slicer-ras.mrk.json": '{"markups":[{"type":"Fiducial","coordinateSystem":"RAS",'
    '"controlPoints":[{"label":"A","position":[10,20,30]}]}]}',
    "default.mrk.json": '{"markups":[{"type":"Fiducial","controlPoints":[{"label":"A","position":[-10,-20,30]}]}]}',
    "micrometres.mrk.json": '{"markups":[{"type":"Fiducial","coordinateUnits":["um","UCUM","micrometer"],'
    '"controlPoints":[{"label":"A","position":[-10000,-20000,30000]}]}]}',
    "lps.fcsv": "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n1,-10,-20,30,0,0,0,1,1,1,0,A,,\n",
    "one.fcsv": "# Markups fiducial file version = 4.11\n# CoordinateSystem = 1\n1,-10,-20,30,0,0,0,1,1,1,0,A,,\n",
    "zero.fcsv": "# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n1,10,20,30,0,0,0,1,1,1,0,A,,\n",
    "padded.fcsv": "# Markups fiducial file version = 4.10,,,,\n# CoordinateSystem = RAS,,,,\n"
    "1,10,20,30,0,0,0,1,1,1,0,A,,\n",
    "slicer3.fcsv": "# Fiducial List file F.fcsv\n# numPoints = 1\n# columns = label,x,y,z,sel,vis\nA,10,20,30,1,1\n",
    "bare3.fcsv": "A,10,20,30,1,1\n",
    "renamed.csv": "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n1,-10,-20,30,0,0,0,1,1,1,0,A,,\n",
    "table.csv": "label,l,p,s,defined,selected,visible,locked,description\nA,-10,-20,30,1,1,1,0,\n",
    "table.tsv": "label\tr\ta\ts\nA\t10\t20\t30\n",
    "ants.csv": "x,y,z,t,label,comment\n-10,-20,30,0,A,here\n",
    "own.csv": "# meddift points; version=1; space=RAS; unit=mm\nlabel,x,y,z\nA,10,20,30\n",
    "own-lps.csv": "# meddift points; space=LPS; unit=mm\nlabel,x,y,z,similarity\nA,-10,-20,30,0.9\n",
    "resaved.csv": '"# meddift points; version=1; space=RAS; unit=mm",,,\n# from a spreadsheet,,,\n'
    "label,x,y,z\nA,10,20,30\n,,,\n",
}


class TestFramesByHand:
    @pytest.mark.parametrize("name", BY_HAND)
    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_read(self, tmp_path: Path, name: str, ending: str, mark: bytes) -> None:
        path = save(tmp_path, name, mark + BY_HAND[name].replace("\n", ending).encode())
        points = read_points(path)
        np.testing.assert_allclose(points.positions, [RAS])
        assert points.labels == ("A",)

    @pytest.mark.parametrize("name", BY_HAND)
    def test_file_is_believed_or_contradiction_is_an_error(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path, name, BY_HAND[name])
        frame = parse_points_file(path).frame
        assert frame is not None
        np.testing.assert_allclose(read_points(path, space=frame).positions, [RAS])
        for other in {"ras", "lps", "voxel", "voxel1"} - {frame}:
            with pytest.raises(FrameError, match=f"{frame}, but {other} was asked for"):
                read_points(path, space=other, grid=oblique_grid())  # type: ignore[arg-type]

    def test_written_files(self, tmp_path: Path) -> None:
        points = Points([RAS], ("A",))
        write_points(points, tmp_path / "a.mrk.json")
        markup = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]
        assert (markup["coordinateSystem"], markup["controlPoints"][0]["position"]) == ("LPS", [-10, -20, 30])
        write_points(points, tmp_path / "a.fcsv")
        lines = (tmp_path / "a.fcsv").read_text().splitlines()
        assert lines[1] == "# CoordinateSystem = LPS"
        assert lines[3].split(",")[1:4] == ["-10", "-20", "30"]
        write_points(points, tmp_path / "a.txt")
        assert (tmp_path / "a.txt").read_text() == "point\n1\n-10 -20 30\n"
        write_points(points, tmp_path / "ants.csv", format="ants")
        assert (tmp_path / "ants.csv").read_text() == "x,y,z,t,label\n-10,-20,30,0,A\n"
        write_points(points, tmp_path / "a.csv")
        expected = "# meddift points; version=1; space=RAS; unit=mm\nlabel,x,y,z\nA,10,20,30\n"
        assert (tmp_path / "a.csv").read_text() == expected

    def test_transformix_output_is_the_moving_point(self, tmp_path: Path) -> None:
        line = (
            "Point\t{}\t; InputIndex = [ 1 2 3 ]\t; InputPoint = [ 1.0 2.0 3.0 ]\t; OutputIndexFixed = [ 4 5 6 ]\t; "
            "OutputPoint = [ -10.000000 -20.000000 30.000000 ]\t; "
            "Deformation = [ 0 0 0 ]\t; OutputIndexMoving = [ 7 8 9 ]\n"
        )
        path = save(tmp_path, "outputpoints.txt", line.format(0) + line.format(1))
        points = read_points(path)
        np.testing.assert_allclose(points.positions, [RAS, RAS])
        assert points.labels == ("1", "2")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("keypoints.csv", "1,2,3\n4,5,6\n"),
            ("case1.txt", "1 2 3\n4 5 6\n"),
            ("table.csv", "label,x,y,z\nA,1,2,3\n"),
            ("own.csv", "# meddift points; version=1; unit=mm\nlabel,x,y,z\nA,1,2,3\n"),
            ("old.fcsv", "# Markups fiducial file version = 4.3\n1,10,20,30,0,0,0,1,1,1,0,A,,\n"),
        ],
    )
    def test_unsaid_frame_is_never_guessed(self, tmp_path: Path, name: str, content: str) -> None:
        path = save(tmp_path, name, content)
        with pytest.raises(FrameError, match=r"--points-space \{lps,ras,voxel,voxel1\}") as caught:
            read_points(path)
        assert name in str(caught.value)
        ras = read_points(path, space="ras").positions
        np.testing.assert_allclose(read_points(path, space="lps").positions, ras * [-1, -1, 1])

    def test_markups_of_different_frames_are_joined(self, tmp_path: Path) -> None:
        content = {
            "markups": [
                {
                    "type": "Line",
                    "coordinateSystem": "LPS",
                    "controlPoints": [{"label": "A", "position": [-10, -20, 30]}],
                },
                {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [{"label": "B", "position": RAS}]},
            ]
        }
        points = read_points(save(tmp_path, "two.mrk.json", json.dumps(content)))
        np.testing.assert_allclose(points.positions, [RAS, RAS])
        assert points.labels == ("A", "B")

    def test_unknown_space(self, tmp_path: Path) -> None:
        with pytest.raises(OptionsError, match="mni"):
            read_points(save(tmp_path, "a.csv", "1,2,3\n"), space="mni")  # type: ignore[arg-type]


class TestMissingPoints:
    POINTS = Points([[1.0, 2.0, 3.0], [math.nan] * 3], ("seen", "unseen"))

    @pytest.mark.parametrize("status", ["undefined", "preview", "missing"])
    def test_slicer_status_counts_more_than_position(self, tmp_path: Path, status: str) -> None:
        point = {"label": "A", "position": [0, 0, 0], "positionStatus": status}
        path = save(tmp_path, "a.mrk.json", json.dumps({"markups": [{"controlPoints": [point]}]}))
        assert read_points(path).missing.tolist() == [True]

    @pytest.mark.parametrize("position", ["", [], None])
    def test_slicer_point_without_position(self, tmp_path: Path, position: Any) -> None:
        point = {"label": "A", "position": position, "positionStatus": "defined"}
        path = save(tmp_path, "a.mrk.json", json.dumps({"markups": [{"controlPoints": [point]}]}))
        assert read_points(path).missing.tolist() == [True]

    def test_slicer_file_says_undefined(self, tmp_path: Path) -> None:
        write_points(self.POINTS, tmp_path / "a.mrk.json")
        first, second = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]["controlPoints"]
        assert (first["positionStatus"], second["positionStatus"], second["position"]) == ("defined", "undefined", "")

    def test_slicer_table_says_not_defined(self, tmp_path: Path) -> None:
        path = save(tmp_path, "a.csv", "label,l,p,s,defined\nA,1,2,3,1\nB,0,0,0,0\n")
        assert read_points(path).missing.tolist() == [False, True]

    @pytest.mark.parametrize(("name", "form"), [("a.txt", None), ("a.txt", "dirlab")])
    def test_formats_without_a_word_for_it_refuse(self, tmp_path: Path, name: str, form: Any) -> None:
        with pytest.raises(PointsError, match=r"unseen.*\.mrk\.json, \.fcsv or \.csv"):
            write_points(self.POINTS, tmp_path / name, format=form, grid=oblique_grid())
        assert not (tmp_path / name).exists()


class TestExtraColumns:
    POINTS = Points([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ("a", "b"))
    EXTRA = {"similarity": [0.1 + 0.2, np.float32(0.5)], "reason": ["", 'air, "maybe"'], "valid": [True, np.False_]}  # noqa: RUF012

    def test_own_table_and_ants_keep_them(self, tmp_path: Path) -> None:
        for name, form in (("own.csv", None), ("ants.csv", "ants")):
            write_points(self.POINTS, tmp_path / name, extra=self.EXTRA, format=form)  # type: ignore[arg-type]
            read = parse_points_file(tmp_path / name)
            assert read.extra == {
                "similarity": ("0.30000000000000004", "0.5"),
                "reason": ("", 'air, "maybe"'),
                "valid": ("true", "false"),
            }
            assert read.labels == ("a", "b")

    def test_slicer_shows_them_as_description(self, tmp_path: Path) -> None:
        for name in ("a.mrk.json", "a.fcsv"):
            write_points(self.POINTS, tmp_path / name, extra={"similarity": [0.5, None], "reason": ["", "air"]})
            assert parse_points_file(tmp_path / name).extra == {"description": ("similarity=0.5", "reason=air")}

    def test_refused_where_they_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(PointsError, match="similarity"):
            write_points(self.POINTS, tmp_path / "a.txt", extra={"similarity": [1, 2]})
        with pytest.raises(PointsError, match="1 values for 2 points"):
            write_points(self.POINTS, tmp_path / "a.csv", extra={"similarity": [1]})
        for name in ("x", "Label", " "):
            with pytest.raises(PointsError, match="name of its own"):
                write_points(self.POINTS, tmp_path / "a.csv", extra={name: [1, 2]})
        with pytest.raises(PointsError, match="name of its own"):
            write_points(self.POINTS, tmp_path / "a.csv", extra={"A": [1, 2], "a": [1, 2]})
        assert list(tmp_path.iterdir()) == []


class TestMalformed:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", "", "empty"),
            ("a.csv", " \n\n", "empty"),
            ("a.txt", "point\n0\n", "holds no points"),
            ("a.mrk.json", '{"markups": []}', "holds no points"),
            ("a.fcsv", "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n", "holds no points"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel,x,y,z\n", "holds no points"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\n", "line 2: the header must name"),
            ("a.csv", "# meddift points; space=RAS; unit=mm", "the header must name"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel,x,y,z\nA,1,2\n", "line 3: 3 columns"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel,x,y,z\nA,1,2,3,4\n", "line 3: 5 columns"),
            ("a.csv", '# meddift points; space=RAS; unit=mm\nlabel,x,y,z\n"a\nb",1,2,3\nA,1,2,q\n', "line 5: 'q'"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel,x,y,z\nA,1,,3\n", "line 3: '' is not"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel,x,y,z\nA,nan,2,3\n", "line 3: only some"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel;x;y;z\nA;1;2;3\n", "not semicolons"),
            ("a.csv", '# meddift points; space=RAS; unit=mm\nlabel,x,y,z\nA,"1,5",2,3\n', "decimals with a point"),
            ("a.csv", "# meddift points; space=RAS; unit=cm\nlabel,x,y,z\nA,1,2,3\n", "unit of RAS is mm"),
            ("a.csv", "# meddift points; version=2; space=RAS; unit=mm\nlabel,x,y,z\nA,1,2,3\n", "later meddift"),
            ("a.csv", "# meddift points; space=RAS; unit=mm\nlabel,x,y,z,x\nA,1,2,3,4\n", "twice"),
            ("a.csv", '# meddift points; space=RAS; unit=mm\nlabel,x,y,z\n"A"b,1,2,3\n', "line 3"),
            ("a.csv", "1,2,3\n4,5\n", "line 2: 2 columns"),
            ("a.csv", "1,2,3,4\n", "line 1: 4 columns"),
            ("a.csv", "1,2,3\n4,five,6\n", "line 2: 'five'"),
            ("a.csv", "A,1,2,3\n", "header line missing"),
            ("a.csv", "name,where\nA,1\n", "no coordinate columns"),
            ("a.csv", "l,p,s,r,a\n1,2,3,4,5\n", "two sets"),
            ("a.csv", "x;y;z\n1;2;3\n", "separated by commas"),
            ("a.txt", "1 2 3\n1e999 2 3\n", "line 2: .* not finite"),
            ("a.txt", "1 2 3\n4 inf 6\n", "line 2: 'inf'"),
            ("a.txt", "1_0 2 3\n4 5 6\n", "line 1"),
            ("a.txt", "1 2 3\n٤ 5 6\n", "line 2"),
            ("a.txt", "1 2 3\n1e300 2 3\n", "line 2: .* no place in a scan"),
            ("a.txt", "point\n", "number of points"),
            ("a.txt", "point\nmany\n1 2 3\n", "line 2: expected the number of points, got 'many'"),
            ("a.txt", "point\n2\n1 2 3\n", "announces 2 points in line 2 but holds 1"),
            ("a.txt", "point\n1\n1 2 3\n4 5 6\n", "announces 1 points in line 2 but holds 2"),
            ("a.txt", "point\n2\n\n1 2\n3 4\n", "line 4: a point has 3 coordinates, got 2"),
            ("a.txt", "point\n1 2 3\n", "stands alone"),
            ("a.txt", "Point\t0\t; InputPoint = [ 1 2 3 ]\n", "line 1: no 'OutputPoint"),
            ("a.txt", "Point\t0\t; OutputPoint = [ 1 2 ]\n", "line 1: a point has 3 coordinates, got 2"),
            (
                "a.fcsv",
                "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n1,2,3\n",
                "line 3: 3 columns",
            ),
            ("a.fcsv", "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n1,2,3,z\n", "line 3: 'z'"),
            ("a.mrk.json", '{"markups": [\n{"controlPoints": [}]}', "line 2: not valid JSON"),
            ("a.mrk.json", "[1, 2]", 'no list "markups"'),
            ("a.json", "label,x,y,z\n", "line 1: not valid JSON"),
            ("a.mrk.json", "[" * 100000, "JSON"),
            (
                "a.mrk.json",
                '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}',
                "control point 1: .* 3 numbers",
            ),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2, "3"]}]}]}', "3 numbers"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2, true]}]}]}', "3 numbers"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2, Infinity]}]}]}', "not finite"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2, NaN]}]}]}', "only some"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2, 1%s]}]}]}' % ("0" * 400), "finite"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [{"positionStatus": "lost"}]}]}', "positionStatus"),
            ("a.mrk.json", '{"markups": [{"controlPoints": [3]}]}', "JSON object"),
            ("a.mrk.json", '{"markups": [{"controlPoints": 3}]}', "list"),
            ("a.mrk.json", '{"markups": [3]}', "JSON object"),
            ("a.mrk.json", '{"markups": [{"coordinateUnits": "inch"}]}', "mm or um"),
            ("a.mrk.json", '{"markups": [{"coordinateUnits": ["mm", "DCM", "millimetre"]}]}', "mm or um"),
            ("a.vtk", "# vtk DataFile Version 3.0\nASCII\n", "holds no points: it is a VTK file"),
            ("a.csv", b"\xff\xfea\x00", "UTF-16"),
            ("a.csv", b"\x1f\x8b\x00\x00", "gzip archive"),
            ("a.csv", b"\x01\x02\x00\x00", "not a text file"),
        ],
    )
    def test_message_names_file_and_cause(self, tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
        path = save(tmp_path, name, content)
        with pytest.raises(PointsError, match=message) as caught:
            read_points(path, grid=oblique_grid())
        assert str(path) in str(caught.value)
        assert not isinstance(caught.value, FrameError)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.fcsv", "# Markups fiducial file version = 5.6\n# CoordinateSystem = IJK\n1,2,3,4\n"),
            ("a.csv", "# meddift points; space=MNI; unit=mm\nlabel,x,y,z\nA,1,2,3\n"),
            ("a.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": []}]}'),
        ],
    )
    def test_unknown_frame_in_the_file(self, tmp_path: Path, name: str, content: str) -> None:
        with pytest.raises(FrameError):
            read_points(save(tmp_path, name, content), grid=oblique_grid())

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError, match=r"nowhere\.csv"):
            read_points(tmp_path / "nowhere.csv")
        with pytest.raises(PointsError, match="not a file"):
            read_points(tmp_path)

    @MANY
    @given(
        content=st.one_of(
            st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
        )
    )
    @pytest.mark.parametrize("name", ["a.mrk.json", "a.fcsv", "a.csv", "a.txt", "a.tsv"])
    def test_garbage_never_breaks_the_reader(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = save(tmp_path, name, content)
        try:
            points = read_points(path, space="ras")
        except PointsError:
            return
        assert len(points) > 0

    @MANY
    @given(cut=st.integers(0, 400), name=st.sampled_from(sorted(BY_HAND)))
    def test_truncated_files_never_break_the_reader(self, tmp_path: Path, cut: int, name: str) -> None:
        path = save(tmp_path, name, BY_HAND[name][:cut])
        try:
            points = read_points(path, space=parse_points_file(path).frame or "ras")
        except PointsError:
            return
        assert len(points) == 1

    def test_latin1_labels(self, tmp_path: Path) -> None:
        content = "# meddift points; space=RAS; unit=mm\nlabel,x,y,z\nLäsion Ø,1,2,3\n".encode("latin-1")
        assert read_points(save(tmp_path, "a.csv", content)).labels == ("Läsion Ø",)


class TestWriting:
    POINTS = Points([[1.0, 2.0, 3.0]], ("a",))

    def test_slicer_schema(self, tmp_path: Path) -> None:
        write_points(self.POINTS, tmp_path / "a.mrk.json", extra={"description": ["left"]})
        root = json.loads((tmp_path / "a.mrk.json").read_text())
        assert root["@schema"].endswith("/markups-schema-v1.0.3.json#")
        markup = root["markups"][0]
        assert (markup["type"], markup["coordinateUnits"]) == ("Fiducial", "mm")
        point = markup["controlPoints"][0]
        assert (point["selected"], point["locked"], point["visibility"]) == (True, False, True)
        assert point["orientation"] == [-1, 0, 0, 0, -1, 0, 0, 0, 1]
        assert (point["label"], point["description"], point["positionStatus"]) == ("a", "left", "defined")

    def test_suffixes_and_frames_that_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(OptionsError, match=r"\.mrk\.json"):
            write_points(self.POINTS, tmp_path / "points.dat")
        with pytest.raises(OptionsError, match="mitk"):
            write_points(self.POINTS, tmp_path / "points.csv", format="mitk")  # type: ignore[arg-type]
        with pytest.raises(FrameError, match="elastix format holds lps"):
            write_points(self.POINTS, tmp_path / "points.txt", space="ras")
        with pytest.raises(FrameError, match="slicer format holds lps or ras"):
            write_points(self.POINTS, tmp_path / "points.mrk.json", space="voxel", grid=oblique_grid())
        with pytest.raises(PointsError, match="no points"):
            write_points(Points(np.zeros((0, 3))), tmp_path / "points.csv")
        with pytest.raises(OutputError):
            write_points(self.POINTS, tmp_path / "no folder" / "points.csv")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("name", "form"), [("a.fcsv", None), ("a.csv", "ants")])
    def test_line_breaks_where_a_line_is_a_point(self, tmp_path: Path, name: str, form: Any) -> None:
        with pytest.raises(PointsError, match="line break"):
            write_points(Points([[1, 2, 3]], ("two\nlines",)), tmp_path / name, format=form)

    @pytest.mark.parametrize("label", ["\x00", "\ud800"])
    def test_labels_that_are_no_text(self, tmp_path: Path, label: str) -> None:
        for name in ("a.mrk.json", "a.csv"):
            with pytest.raises(PointsError, match="cannot be written as text"):
                write_points(Points([[1, 2, 3]], (label,)), tmp_path / name)

    def test_dirlab_rounds_and_refuses_points_outside(self, tmp_path: Path) -> None:
        exact = Grid((9, 9, 9), np.diag([2.0, 2.0, 2.0, 1.0]))
        write_points(Points([[0.8, 3.0, 7.2], [1.0, 5.0, 0.0]]), tmp_path / "a.txt", grid=exact, format="dirlab")
        assert (tmp_path / "a.txt").read_text() == "1\t3\t5\n2\t4\t1\n"  # halves go up, as numbers on paper do
        grid = oblique_grid(3)
        with pytest.raises(PointsError, match="far lie outside"):
            write_points(
                Points.from_voxels([[-3, 0, 0]], grid, ["far"]), tmp_path / "b.txt", grid=grid, format="dirlab"
            )

    def test_locale_does_not_matter(self, tmp_path: Path) -> None:
        code = (
            "import locale, sys; from meddift.points import Points; from meddift.io.points import write_points\n"
            "for name in ('de_DE.UTF-8', 'fr_FR.UTF-8', ''):\n"
            "    try: locale.setlocale(locale.LC_ALL, name); break\n"
            "    except locale.Error: pass\n"
            "write_points(Points([[1234567.25, -0.5, 0.125]]), sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.csv")], check=True)
        assert (tmp_path / "a.csv").read_text().splitlines()[2] == "1,1234567.25,-0.5,0.125"


class TestLooksLikeFlipped:
    GRID = Grid((50, 50, 50), np.array([[2.0, 0, 0, 20], [0, 2, 0, 30], [0, 0, 2, -100], [0, 0, 0, 1]]))

    def inside(self) -> np.ndarray:
        return self.GRID.index_to_world(np.random.default_rng(0).uniform(0, 49, (50, 3)))

    def test_mixed_up(self) -> None:
        assert looks_like_flipped(Points(self.inside() * [-1, -1, 1]), self.GRID)

    def test_correct_few_outside_and_elsewhere(self) -> None:
        assert not looks_like_flipped(Points(self.inside()), self.GRID)
        few = self.inside()
        few[:9] *= [-1, -1, 1]
        assert not looks_like_flipped(Points(few), self.GRID)  # 18 %
        assert not looks_like_flipped(Points(self.inside() + 1000), self.GRID)
        assert not looks_like_flipped(Points([[math.nan] * 3]), self.GRID)

    def test_a_fifth_outside_is_not_enough(self) -> None:
        grid = Grid((110, 100, 100), np.array([[1.0, 0, 0, -50], [0, 1, 0, -50], [0, 0, 1, -50], [0, 0, 0, 1]]))
        positions = np.tile([10.0, 0.0, 0.0], (10, 1))
        positions[:2, 0] = -55.0  # outside on the right, and inside once flipped
        assert not looks_like_flipped(Points(positions), grid)
        positions[2, 0] = -55.0
        assert looks_like_flipped(Points(positions), grid)

    def test_missing_points_do_not_count(self) -> None:
        positions = np.vstack([self.inside()[:4] * [-1, -1, 1], np.full((40, 3), np.nan)])
        assert looks_like_flipped(Points(positions), self.GRID)


class TestDescribe:
    def test_a_file_that_says_everything(self, tmp_path: Path) -> None:
        points = Points([[1.0, 2.0, 3.0], [-4.0, 7.0, 0.0], [math.nan] * 3], ("a", "b", "c"))
        write_points(points, tmp_path / "a.csv", space="lps", extra={"score": [1, 2, 3]})
        told = describe_points(tmp_path / "a.csv", grid=Grid((10, 10, 10), np.eye(4)))
        assert (told["frame"], told["unit"], told["count"], told["missing"]) == ("lps", "mm", 3, 1)
        assert (told["labels"], told["columns"]) == (["a", "b", "c"], ["score"])
        assert told["bounds"] == [[-1.0, -7.0, 0.0], [4.0, -2.0, 3.0]]
        assert told["bounds_ras_mm"] == [[-4.0, 2.0, 0.0], [1.0, 7.0, 3.0]]
        assert (told["outside"], told["looks_like_flipped"]) == (1, False)
        json.dumps(told)

    def test_a_file_that_says_nothing(self, tmp_path: Path) -> None:
        path = save(tmp_path, "a.csv", "1,2,3\n4,5,6\n")
        told = describe_points(path)
        assert (told["frame"], told["unit"], told["bounds_ras_mm"]) == (None, None, None)
        assert told["bounds"] == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
        assert describe_points(path, space="voxel")["bounds_ras_mm"] is None
        grid = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
        assert describe_points(path, space="voxel", grid=grid)["bounds_ras_mm"] == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]

    def test_all_missing(self, tmp_path: Path) -> None:
        write_points(Points([[math.nan] * 3], ("a",)), tmp_path / "a.mrk.json")
        assert describe_points(tmp_path / "a.mrk.json")["bounds"] is None
