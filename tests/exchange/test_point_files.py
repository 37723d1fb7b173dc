"""Points as transformix writes them, in eight orientations and oblique, and as 3D Slicer reads what we write."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from exchange_grids import NAMES, SHAPE, affine

from meddift.geometry import Grid
from meddift.io.points import parse_points_file, read_points, write_points
from meddift.points import Points

HERE = Path(__file__).parent
POINTS = HERE / "points"
WITHIN_MM = 1e-5  # transformix writes six decimals
TO_RAS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def told() -> dict:
    return json.loads((POINTS / "points.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_voxels_are_where_transformix_has_them(name: str, told: dict) -> None:
    grid = Grid(SHAPE, affine(name))
    expected = np.array(told[name]) * TO_RAS  # InputPoint, as transformix computed it
    found = read_points(POINTS / "index.txt", grid=grid)
    np.testing.assert_allclose(found.positions, expected, atol=WITHIN_MM)


@pytest.mark.parametrize("name", NAMES)
def test_output_of_transformix_is_the_moved_point(name: str, told: dict, tmp_path: Path) -> None:
    expected = np.array(told[name]) * TO_RAS + told["shift_ras"]
    found = read_points(POINTS / name / "outputpoints.txt")
    np.testing.assert_allclose(found.positions, expected, atol=WITHIN_MM)
    grid = Grid(SHAPE, affine(name))
    for file, form, options in [
        ("a.txt", "elastix", {}),
        ("a.csv", "ants", {}),
        ("b.csv", "learn2reg", {"space": "voxel", "grid": grid}),
        ("a.fcsv", "fcsv", {}),
        ("a.mrk.json", "slicer", {}),
    ]:
        write_points(found, tmp_path / file, format=form, grid=grid)
        again = read_points(tmp_path / file, **options)
        np.testing.assert_allclose(again.positions, found.positions, atol=1e-6)


def test_slicer_says_which_points_were_placed() -> None:
    """The same three points in both formats of Slicer 5; the second was never placed."""
    slicer = POINTS.parent / "slicer"
    json_file, table = parse_points_file(slicer / "points.mrk.json"), parse_points_file(slicer / "points.fcsv")
    for content in (json_file, table):
        assert np.isnan(content.coordinates).any(axis=1).tolist() == [False, True, False]
        assert content.labels == ("F-1", "F-2", "F-3")
    np.testing.assert_allclose(json_file.coordinates, table.coordinates, atol=1e-9)


def test_our_fcsv_has_the_columns_of_slicer_5(tmp_path: Path) -> None:
    slicer = POINTS.parent / "slicer" / "points.fcsv"
    write_points(read_points(slicer), tmp_path / "ours.fcsv")
    ours, theirs = (
        [line.split(",") for line in path.read_text().splitlines() if not line.startswith("#")]
        for path in (tmp_path / "ours.fcsv", slicer)
    )
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    assert [row[14:] for row in ours] == [row[14:] for row in theirs]  # position status, made by Slicer itself
    for mine, slicers in zip(ours, theirs, strict=True):
        if slicers[14] == "2":
            assert [float(v) for v in mine[1:4]] == [float(v) for v in slicers[1:4]]


@pytest.mark.skipif(find_spec("ants") is None, reason="needs antspyx")
def test_tables_of_points_go_through_the_program_of_ants(tmp_path: Path) -> None:
    """It reads our table and writes its own, with six digits and without texts. The truth is the matrix, by hand."""
    matrix, shift = np.array([[1.1, 0.1, 0], [0, 0.9, 0.05], [0, 0, 1.05]]), np.array([3.0, -4.0, 5.0])
    numbers = " ".join(map(str, [*matrix.ravel(), *shift]))
    (tmp_path / "t.tfm").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )
    lps = np.array([[-10.123456, 20.5, 30.25], [-1.0, -2.0, 3.5], [100.0, 0.0, -124.5]])
    places = lps * [-1, -1, 1]
    columns = {"comment": ["x", "", "y,z"]}
    given = Points(np.vstack([places[:1], [[np.nan] * 3], places[1:]]), ("A, b", "gone", "Läsion", '"q"'))
    for points, more in ((given, {}), (Points(places, ("A", "B", "C")), columns), (Points(places), {})):
        write_points(points, tmp_path / "ours.csv", format="ants", extra=more)
        run = subprocess.run(
            [
                sys.executable,
                str(HERE / "make_ants_points.py"),
                *(str(tmp_path / name) for name in ("ours.csv", "t.tfm", "theirs.csv")),
            ],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        carried = read_points(tmp_path / "theirs.csv")
        assert carried.labels == tuple(str(number + 1) for number in range(len(points)))
        assert carried.columns == {}
        np.testing.assert_array_equal(carried.missing, points.missing)
        np.testing.assert_allclose(
            carried.positions[~carried.missing] * [-1, -1, 1], lps @ matrix.T + shift, atol=1e-3
        )
