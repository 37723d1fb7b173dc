"""Affines and displacement fields against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import grids

from meddift.errors import TransformError
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Grid, Transform

entries = st.lists(st.floats(-0.2, 0.2), min_size=9, max_size=9)


def affine_from(entries, shift=(40.0, -300.0, 7.0)):
    matrix = np.eye(4)
    matrix[:3, :3] += np.reshape(entries, (3, 3))
    matrix[:3, 3] = shift
    return AffineTransform(matrix)


@settings(max_examples=50, deadline=None)
@given(entries, st.integers(4, 30))
def test_a_fit_finds_the_affine_that_made_the_points(values, count):
    true = affine_from(values)
    # Far from the origin, as scans are.
    fixed = np.random.default_rng(count).normal(size=(count, 3)) * 60 + [500, -900, 1200]
    if np.linalg.svd(fixed - fixed.mean(0), compute_uv=False)[-1] < 5:
        return
    found = AffineTransform.fit(fixed, true.apply(fixed))
    probe = np.random.default_rng(0).normal(size=(10, 3)) * 100 + [500, -900, 1200]
    np.testing.assert_allclose(found.apply(probe), true.apply(probe), atol=1e-6)


def test_a_fit_is_the_least_squares_one():
    generator = np.random.default_rng(5)
    fixed, moving = generator.normal(size=(20, 3)) * 50, generator.normal(size=(20, 3)) * 50
    found = AffineTransform.fit(fixed, moving)
    least = ((found.apply(fixed) - moving) ** 2).sum()
    for _ in range(50):
        other = AffineTransform(found.matrix + np.vstack([generator.normal(size=(3, 4)) * 1e-3, np.zeros((1, 4))]))
        assert ((other.apply(fixed) - moving) ** 2).sum() >= least


@pytest.mark.parametrize(
    "points",
    [
        np.eye(3),
        np.column_stack([np.random.default_rng(0).normal(size=(9, 2)), np.zeros(9)]),
        np.zeros((6, 3)),
    ],
)
def test_points_in_a_plane_determine_no_affine(points):
    with pytest.raises(TransformError, match="plane"):
        AffineTransform.fit(points, points)


@settings(max_examples=30, deadline=None)
@given(entries)
def test_an_affine_and_its_inverse_undo_each_other(values):
    true = affine_from(values)
    points = np.random.default_rng(1).normal(size=(8, 3)) * 200
    np.testing.assert_allclose(true.inverted().apply(true.apply(points)), points, atol=1e-8)
    homogeneous = np.column_stack([points, np.ones(8)]) @ true.matrix.T
    np.testing.assert_allclose(true.apply(points), homogeneous[:, :3], atol=1e-9)


@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([1, 1, 0, 1]), np.full((4, 4), np.nan)])
def test_impossible_affines_are_refused(matrix):
    with pytest.raises(TransformError):
        AffineTransform(matrix)


@settings(max_examples=40, deadline=None)
@given(grids(largest=7, smallest=2), entries)
def test_a_field_of_an_affine_moves_points_as_the_affine_does(grid, values):
    true = affine_from(values, (3.0, -2.0, 1.0))
    displacement = np.moveaxis(true.apply(grid.voxel_centers().reshape(-1, 3)).reshape(*grid.shape, 3), -1, 0)
    displacement = displacement - np.moveaxis(grid.voxel_centers(), -1, 0)
    field = DisplacementField(displacement, grid)
    inside = grid.index_to_world(np.random.default_rng(2).uniform(0, np.array(grid.shape) - 1, (12, 3)))
    np.testing.assert_allclose(field.apply(inside), true.apply(inside), atol=1e-6)
    # Outside, the displacement of the nearest place of the border.
    index = np.random.default_rng(3).uniform(-6, np.array(grid.shape) + 6, (12, 3))
    nearest = grid.index_to_world(np.clip(index, 0, np.array(grid.shape) - 1))
    outside = grid.index_to_world(index)
    np.testing.assert_allclose(field.apply(outside) - outside, true.apply(nearest) - nearest, atol=1e-6)


def test_a_field_must_lie_on_its_grid():
    with pytest.raises(TransformError, match="shape"):
        DisplacementField(np.zeros((4, 5, 6, 3)), Grid((4, 5, 6), np.eye(4)))


def test_parts_are_applied_first_to_last():
    double = AffineTransform(np.diag([2.0, 2, 2, 1]))
    shift = np.eye(4)
    shift[:3, 3] = [1, 0, 0]
    both = CompositeTransform((double, AffineTransform(shift)))
    np.testing.assert_allclose(both.apply([[1, 1, 1]]), [[3, 2, 2]])
    np.testing.assert_allclose(CompositeTransform(()).apply([[1, 1, 1]]), [[1, 1, 1]])


def test_all_of_them_are_transforms():
    field = DisplacementField(np.zeros((3, 2, 2, 2)), Grid((2, 2, 2), np.eye(4)))
    for transform in (AffineTransform.identity(), field, CompositeTransform((field,))):
        assert isinstance(transform, Transform)
    assert not isinstance("affine", Transform)


def test_a_transposed_affine_is_refused():
    """Its translation stands in the last row, where it would be lost."""
    shift = np.eye(4)
    shift[:3, 3] = [40.0, -3.0, 12.0]
    with pytest.raises(TransformError, match="last row"):
        AffineTransform(shift.T)


def test_what_transforms_say_of_themselves_holds_no_array():
    grid = Grid((5, 6, 7), np.diag([20.0, 20, 20, 1]))
    values = np.zeros((3, 5, 6, 7))
    values[:, 2, 3, 4] = [3.0, 4.0, 12.0]
    field = DisplacementField(values, grid)
    assert "up to 13.0 mm" in repr(field)
    for transform in (field, field.inverted(), AffineTransform.identity(), CompositeTransform((field, field))):
        assert "array" not in repr(transform)
        assert "\n" not in repr(transform)


def test_every_transform_has_an_inverse_that_undoes_it():
    generator = np.random.default_rng(0)
    grid = Grid((9, 9, 9), np.diag([20.0, 20, 20, 1]) + np.array([[0, 0, 0, -80.0]] * 3 + [[0] * 4]))
    field = DisplacementField(generator.uniform(-3, 3, (3, 9, 9, 9)), grid)
    matrix = np.eye(4)
    matrix[:3] += generator.normal(0, 0.05, (3, 4))
    affine = AffineTransform(matrix)
    points = generator.uniform(-60, 60, (200, 3))
    for transform in (affine, field, CompositeTransform((affine, field, affine)), field.inverted()):
        back = transform.inverted()
        np.testing.assert_allclose(back.apply(transform.apply(points)), points, atol=5e-3)
        np.testing.assert_allclose(back.inverted().apply(points), transform.apply(points), atol=5e-3)
