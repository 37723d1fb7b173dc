"""The top of a quadratic, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.matching import peak_offsets

PLACES = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij"), -1)


def quadratic(top, hessian, height=0.9):
    away = PLACES - np.asarray(top)
    return height + 0.5 * np.einsum("...i,ij,...j->...", away, hessian, away)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    st.tuples(*[st.floats(0.05, 2.0)] * 3),
    st.lists(st.floats(-1, 1), min_size=9, max_size=9),
)
def test_the_top_of_any_quadratic_is_found(top, curvature, entries):
    turn, _ = np.linalg.qr(np.reshape(entries, (3, 3)) + 1.5 * np.eye(3))
    values = quadratic(top, -turn @ np.diag(curvature) @ turn.T)
    np.testing.assert_allclose(peak_offsets(torch.from_numpy(values[None])), [top], atol=1e-8)


def test_each_row_is_its_own():
    tops = np.random.default_rng(0).uniform(-0.6, 0.6, (30, 3))
    values = np.stack([quadratic(top, -np.diag([1, 2, 0.5])) for top in tops])
    np.testing.assert_allclose(peak_offsets(torch.from_numpy(values)), tops, atol=1e-10)


def test_nothing_is_moved_farther_than_the_limit():
    values = quadratic([3.0, -0.2, 0.1], -np.eye(3))
    np.testing.assert_allclose(peak_offsets(torch.from_numpy(values[None])), [[0.75, -0.2, 0.1]], atol=1e-9)
    np.testing.assert_allclose(peak_offsets(torch.from_numpy(values[None]), limit=0.5), [[0.5, -0.2, 0.1]], atol=1e-9)


@pytest.mark.parametrize(
    "values",
    [
        np.full((3, 3, 3), 0.7),
        quadratic([0.2, 0.1, 0.3], np.eye(3)),  # a minimum
        np.where(PLACES[..., 0] == 1, -np.inf, quadratic([0.2, 0, 0], -np.eye(3))),
        np.where(PLACES[..., 2] == -1, np.nan, quadratic([0.2, 0, 0], -np.eye(3))),
    ],
)
def test_without_a_maximum_or_a_neighbour_nothing_is_moved(values):
    np.testing.assert_array_equal(peak_offsets(torch.from_numpy(values[None])), np.zeros((1, 3)))


def test_along_a_ridge_only_the_way_across_is_answered():
    values = quadratic([0.3, 0.0, -0.2], -np.diag([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(peak_offsets(torch.from_numpy(values[None])), [[0.3, 0.0, -0.2]], atol=1e-9)


def test_no_points_are_no_offsets():
    assert peak_offsets(torch.from_numpy(np.zeros((0, 3, 3, 3)))).shape == (0, 3)
