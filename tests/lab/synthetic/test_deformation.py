from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.errors import OptionsError
from meddift.geometry import Grid, Transform
from meddift_lab.synthetic import BreathingDeformation, LocalWarps, SmallRotation, TableShift, compose

LOW, HIGH = (-120.0, -90.0, -120.0), (120.0, 90.0, 120.0)


def everything(seed: int, amplitude_mm: float = 30.0):
    return compose(
        BreathingDeformation(LOW, HIGH, amplitude_mm=amplitude_mm),
        LocalWarps.random(seed, low=LOW, high=HIGH),
        SmallRotation((2.0, -3.0, 1.0), center=(5.0, 0.0, -10.0)),
        TableShift((10.0, -5.0, 33.0)),
    )


TRANSFORMS = {
    "breathing in": BreathingDeformation(LOW, HIGH, amplitude_mm=30.0),
    "breathing out": BreathingDeformation(LOW, HIGH, amplitude_mm=-40.0),
    "deep": BreathingDeformation(LOW, HIGH, amplitude_mm=60.0),
    "warps": LocalWarps.random(3, low=LOW, high=HIGH, count=12, amplitude_mm=12.0, width_mm=25.0),
    "rotation": SmallRotation((10.0, 20.0, -15.0), center=(3.0, 4.0, 5.0)),
    "shift": TableShift((1.0, 2.0, -35.0)),
    "all": everything(0),
}


def cloud(count: int, seed: int = 0, reach: float = 320.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 3))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_is_a_transform_that_keeps_shape_and_nan(name):
    transform = TRANSFORMS[name]
    assert isinstance(transform, Transform)
    points = cloud(24)
    points[5] = np.nan
    moved = transform.apply(points)
    assert np.isnan(moved[5]).all()
    assert np.isfinite(np.delete(moved, 5, axis=0)).all()
    assert np.array_equal(transform.apply(points.reshape(2, 3, 4, 3)), moved.reshape(2, 3, 4, 3), equal_nan=True)
    back = transform.inverse_apply(moved.reshape(2, 3, 4, 3)).reshape(-1, 3)
    assert np.isnan(back[5]).all()
    assert np.nanmax(np.abs(back - points)) < 1e-3
    assert np.array_equal(transform.inverted().apply(moved), back, equal_nan=True)
    assert transform.inverted().inverted() is transform


@pytest.mark.parametrize("name", TRANSFORMS)
def test_nothing_folds(name):
    dense = np.stack(np.meshgrid(*[np.arange(-340.0, 341.0, 17.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    assert TRANSFORMS[name].jacobian_determinant(dense).min() > 0.02


@pytest.mark.parametrize("name", TRANSFORMS)
def test_jacobian_agrees_with_finite_differences(name):
    transform = TRANSFORMS[name]
    points, h = cloud(400, seed=1, reach=220.0), 1e-3
    columns = [(transform.apply(points + h * e) - transform.apply(points - h * e)) / (2 * h) for e in np.eye(3)]
    assert np.abs(transform.jacobian(points) - np.stack(columns, axis=-1)).max() < 1e-5


@pytest.mark.parametrize("name", TRANSFORMS)
def test_inverse_is_exact_both_ways(name):
    transform = TRANSFORMS[name]
    points = cloud(5000, seed=2)
    found = transform.inverse_apply(points)
    assert np.linalg.norm(transform.apply(found) - points, axis=1).max() <= 1e-4
    assert np.linalg.norm(transform.inverse_apply(transform.apply(points)) - points, axis=1).max() < 2e-3


def test_breathing_moves_what_breathing_moves():
    breathing = BreathingDeformation(LOW, HIGH, amplitude_mm=30.0)
    base, apex, spine, far = [60.0, 0.0, -70.0], [60.0, 0.0, 125.0], [0.0, -90.0, -70.0], [900.0, 0.0, -70.0]
    moved = breathing.displacement(np.array([base, apex, spine, far]))
    assert -31 < moved[0, 2] < -24
    assert np.abs(moved[1:]).max() < 0.5
    front = breathing.displacement(np.array([[0.0, 95.0, 0.0], [0.0, 0.0, -70.0]]))
    assert 4 < front[0, 1] < 7
    assert np.abs(moved[:, 0]).max() == 0
    assert np.linalg.norm(breathing.displacement(cloud(20000)), axis=1).max() < 31


def test_composition_order_is_the_order_written():
    shift, turn = TableShift((100.0, 0.0, 0.0)), SmallRotation((0.0, 0.0, 30.0))
    # First 100 mm along x, then 30 degrees about z; counter-clockwise seen from above.
    expected = [100 * np.cos(np.pi / 6), 50.0, 0.0]
    assert np.allclose(compose(shift, turn).apply([[0.0, 0.0, 0.0]]), expected)
    assert np.allclose(compose(turn, shift).apply([[0.0, 0.0, 0.0]]), [100.0, 0.0, 0.0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 40), st.floats(10, 60), st.integers(1, 20))
def test_random_warps_are_contractions_whatever_is_asked_for(seed, amplitude, width, count):
    warps = LocalWarps.random(seed, low=LOW, high=HIGH, count=count, amplitude_mm=amplitude, width_mm=width)
    points, others = cloud(300, seed=seed % 1000), cloud(300, seed=seed % 1000 + 1)
    others = points + (others - points) * 0.02
    moved = np.linalg.norm(warps.displacement(points) - warps.displacement(others), axis=1)
    assert (moved <= 0.7 * np.linalg.norm(points - others, axis=1) + 1e-9).all()
    assert warps.jacobian_determinant(warps.centers).min() >= 0.3**3 - 1e-9


def test_equal_seeds_equal_transforms_other_seeds_others():
    points = cloud(10, reach=100.0)
    assert np.array_equal(everything(4).apply(points), everything(4).apply(points))
    assert np.abs(everything(4).apply(points) - everything(5).apply(points)).max() > 0.1


def test_what_would_fold_is_refused():
    with pytest.raises(OptionsError, match="too steep"):
        BreathingDeformation(LOW, HIGH, amplitude_mm=200.0)
    with pytest.raises(OptionsError, match="empty"):
        BreathingDeformation(HIGH, LOW)
    with pytest.raises(OptionsError, match="too steep"):
        LocalWarps(np.zeros((1, 3)), np.array([[50.0, 0.0, 0.0]]), np.array([10.0]))
    with pytest.raises(OptionsError, match="40 degrees"):
        SmallRotation((0.0, 0.0, 90.0))


def test_breathing_for_a_grid_does_not_care_for_its_orientation():
    grid = Grid((100, 90, 80), np.diag([3.0, 3.0, 3.0, 1.0]))
    turned, _, _ = grid.reoriented("SLP")
    points = cloud(50, reach=250.0)
    first, second = BreathingDeformation.for_grid(grid), BreathingDeformation.for_grid(turned)
    assert np.allclose(first.apply(points), second.apply(points))
    assert np.abs(first.displacement(points)).max() > 5
