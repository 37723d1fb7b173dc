"""The closest orthogonal grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.geometry import Grid


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=9, max_size=9), st.sampled_from([-1.0, 1.0]))
def test_it_is_orthogonal_with_the_same_spacing_and_middle(entries, handed):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, :3] = (np.diag([handed, 1.0, 1.0]) + np.reshape(entries, (3, 3))) * [1.0, 2.0, 3.0]
    affine[:3, 3] = (5, -7, 11)
    grid = Grid((10, 11, 12), affine)
    straight = grid.without_shear()
    np.testing.assert_allclose(straight.direction.T @ straight.direction, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(straight.spacing, grid.spacing, rtol=1e-12)
    np.testing.assert_allclose(straight.center, grid.center, atol=1e-9)
    assert np.sign(np.linalg.det(straight.direction)) == np.sign(np.linalg.det(grid.direction))


def test_no_other_rotation_is_closer():
    affine = np.eye(4)
    affine[0, 1] = 0.1
    grid = Grid((5, 5, 5), affine)
    best = np.linalg.norm(grid.without_shear().direction - grid.direction)
    for angle in np.linspace(-0.2, 0.2, 401):
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        assert np.linalg.norm(turn - grid.direction) >= best - 1e-9


def test_orthogonal_grids_stay():
    grid = Grid((3, 4, 5), np.diag([-1.5, 2.0, 0.5, 1.0]))
    assert grid.without_shear().same_as(grid, tolerance_mm=1e-12)
    assert grid.without_shear().spacing == pytest.approx(grid.spacing)
