"""Labelled points: what is accepted, what stays missing, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import grids

from meddift.errors import PointsError
from meddift.points import Points


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(0, 5))
def test_voxels_become_world_points(grid, count):
    index = np.random.default_rng(count).uniform(-2, 30, (count, 3))
    points = Points.from_voxels(index, grid)
    assert len(points) == count
    np.testing.assert_allclose(grid.world_to_index(points.positions), index, atol=1e-8)
    assert points.labels == tuple(str(i + 1) for i in range(count))


def test_a_row_of_nan_is_a_point_without_a_position():
    points = Points([[1, 2, 3], [np.nan] * 3], ("tip", "lost"))
    np.testing.assert_array_equal(points.missing, [False, True])
    assert repr(points) == "Points(2, 1 missing)"


@pytest.mark.parametrize(
    ("positions", "labels", "message"),
    [
        ([[1, 2, np.nan]], (), "only some"),
        ([[1, 2, np.inf]], (), "infinite"),
        ([[1, 2]], (), "shape"),
        ([1, 2, 3], (), "shape"),
        (np.zeros((2, 2, 3)), (), "shape"),
        ([[1, 2, 3]], ("a", "b"), "labels"),
    ],
)
def test_malformed_points_are_refused(positions, labels, message):
    with pytest.raises(PointsError, match=message):
        Points(positions, labels)


def test_points_are_copied_and_frozen():
    positions = np.zeros((2, 3))
    points = Points(positions)
    positions[0, 0] = 9
    assert points.positions[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        points.positions[0, 0] = 1


@pytest.mark.parametrize("keep", [[2, 0], [True, False, True], np.array([False, False, False])])
def test_a_subset_keeps_labels_with_positions(keep):
    points = Points(np.arange(9.0).reshape(3, 3), ("a", "b", "c"))
    some = points.subset(keep)
    rows = np.arange(3)[np.asarray(keep)]
    np.testing.assert_array_equal(some.positions, points.positions[rows])
    assert some.labels == tuple("abc"[r] for r in rows)


def test_no_points_are_points():
    assert len(Points([])) == 0
    assert Points(np.zeros((0, 3))).positions.shape == (0, 3)


def test_nothing_picked_is_no_points() -> None:
    points = Points([[1.0, 2.0, 3.0]], ("a",))
    for nothing in ([], np.zeros(0, dtype=int), np.array([False])):
        assert len(points.subset(nothing)) == 0
