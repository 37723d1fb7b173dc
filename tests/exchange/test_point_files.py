"""Points as transformix writes them, in eight orientations and oblique, and as 3D Slicer reads what we write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exchange_grids import NAMES, SHAPE, affine

from meddift.geometry import Grid
from meddift.io.points import parse_points_file, read_points, write_points

POINTS = Path(__file__).parent / "points"
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
