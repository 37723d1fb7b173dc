"""Pairs like MR: exact truth, signals of every tissue, noise that is never negative."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.errors import GeometryError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic.contrast import like_mr, mr_pair, rescan_mr

GRID = Grid((48, 44, 40), np.diag([3.0, 3.0, 3.0, 1.0]))


def head(signal: tuple[float, float]) -> Volume:
    """A ball with a smooth pattern; the signal is drawn between two values."""
    away = np.linalg.norm(GRID.voxel_centers() - GRID.center, axis=-1)
    waves = np.sin(GRID.voxel_centers() / 5.0).prod(axis=-1)
    low, high = signal
    return Volume(np.where(away < 50, low + (high - low) * (waves + 1) / 2, 0).astype(np.float32), GRID)


@pytest.mark.parametrize("breathing_mm", [0.0, 10.0])
def test_what_stands_at_a_point_stands_at_its_true_place(breathing_mm: float) -> None:
    scan = head((200.0, 1000.0))
    pair = mr_pair(
        scan, scan, 3, breathing_mm=breathing_mm, shift_mm=15.0, thickness_mm=(3.0, 3.0), noise=0.0, crop_mm=6.0
    )
    first, second = pair.fixed.at(pair.points.positions), pair.moving.at(pair.truth.positions)
    # Both are lit unevenly, so they are not equal; but nowhere around do they agree as well.
    at_truth = np.corrcoef(first, second)[0, 1]
    assert at_truth > 0.5
    for shift in np.concatenate([np.eye(3), -np.eye(3)]) * 7.0:
        assert np.corrcoef(first, pair.moving.at(pair.truth.positions + shift))[0, 1] < at_truth - 0.1
    assert pair.in_view.all()
    assert pair.initial_error_mm > 5


def test_another_contrast_keeps_places_and_changes_signals() -> None:
    pair = mr_pair(head((200.0, 1000.0)), head((1000.0, 200.0)), 4, noise=0.0, crop_mm=0.0, thickness_mm=(3.0, 3.0))
    first, second = pair.fixed.at(pair.points.positions), pair.moving.at(pair.truth.positions)
    assert np.corrcoef(first, second)[0, 1] < -0.8


def test_signals_keep_the_order_of_tissues_in_air_and_change_with_the_seed() -> None:
    hounsfield = np.linspace(-1000, 1500, GRID.size).reshape(GRID.shape)
    one, same, other = (like_mr(Volume(hounsfield, GRID), seed).data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 50
    assert one.min() == 0.0
    assert one.max() <= 1000.0
    assert one[hounsfield < -950].max() < 50


def test_noise_is_rician_and_slices_are_as_thick_as_asked() -> None:
    air = Volume(np.where(np.arange(GRID.shape[0])[:, None, None] < 24, 0.0, 500.0) * np.ones(GRID.shape), GRID)
    scan = rescan_mr(air, np.random.default_rng(0), thickness_mm=6.0, noise=0.05, crop_mm=0.0)
    assert scan.grid.spacing[2] == pytest.approx(6.0)
    assert scan.data.dtype == np.uint16
    dark = scan.data[:20].astype(float)
    # In air magnitude noise follows Rayleigh: mean over standard deviation is sqrt(pi / (4 - pi)) = 1.91.
    assert dark.mean() / dark.std() == pytest.approx(1.91, rel=0.05)


def test_scans_of_different_worlds_are_refused() -> None:
    shifted = np.diag([3.0, 3.0, 3.0, 1.0])
    shifted[:3, 3] = 900.0
    far = Volume(head((1.0, 2.0)).data, Grid(GRID.shape, shifted))
    with pytest.raises(GeometryError, match="same world"):
        mr_pair(head((1.0, 2.0)), far, 1)
