"""Lungs that slide along the wall: what is true of the drawn motion whatever the scan."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.errors import NoCorrespondenceError, OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic.deformation import TableShift
from meddift_lab.synthetic.sliding import Sliding, SurfaceFlow, deform_sliding

GRID = Grid((60, 50, 70), np.diag([4.0, 4.0, 4.0, 1.0]))
CENTERS = GRID.voxel_centers()


def lungs() -> Volume:
    """Two upright ellipsoids, 60 mm left and right of the middle."""
    middle = GRID.center
    inside = np.zeros(GRID.shape, dtype=bool)
    for side in (-1, 1):
        away = (CENTERS - middle - [side * 60.0, 0, 0]) / [45.0, 70.0, 110.0]
        inside |= (away**2).sum(axis=-1) < 1
    return Volume(inside, GRID)


def places(count: int = 3000) -> np.ndarray:
    return GRID.index_to_world(np.random.default_rng(0).uniform(2, np.array(GRID.shape) - 3, (count, 3)))


def test_both_sides_stay_where_they_are_and_only_the_lungs_move() -> None:
    sliding = Sliding(SurfaceFlow(lungs(), amplitude_mm=20.0))
    points = places()
    inside = sliding.inside(points)
    moved = sliding.apply(points)
    np.testing.assert_array_equal(moved[~inside], points[~inside])
    # The surface is carried onto itself: hardly a point of the lungs leaves them.
    assert sliding.inside(moved[inside]).mean() > 0.995
    length = np.linalg.norm(moved[inside] - points[inside], axis=1)
    assert 12.0 < length.max() <= 21.0


def test_there_is_a_jump_along_the_wall_and_none_across() -> None:
    sliding = Sliding(SurfaceFlow(lungs(), amplitude_mm=20.0))
    # At half height the outer wall of the right-hand ellipsoid is upright and faces along x.
    wall = GRID.center + np.array([60.0 + 45.0, 0, 0])
    across = np.array([4.0, 0, 0])
    within, beyond = sliding.displacement(np.stack([wall - across, wall + across]))
    np.testing.assert_array_equal(beyond, 0)
    assert within[2] < -12.0
    assert abs(within[0]) < 1.0


def test_back_again_and_no_tissue_turns_inside_out() -> None:
    sliding = Sliding(SurfaceFlow(lungs(), amplitude_mm=20.0))
    points = places()
    inside = sliding.inside(points)
    returned = sliding.inverse_apply(sliding.apply(points))
    # Points within a tenth of a millimetre of the surface may change sides.
    assert np.percentile(np.linalg.norm(returned - points, axis=1), 99.5) < 0.05
    assert np.linalg.det(np.eye(3) + sliding.gradient(points[inside])).min() > 0.05


def test_the_moving_scan_shows_at_the_true_place_what_the_fixed_one_shows() -> None:
    mask = lungs()
    sliding = Sliding(SurfaceFlow(mask, amplitude_mm=20.0))
    # Linear in the world, and another line inside: cubic interpolation reproduces both exactly.
    value = np.where(mask.data, 500 + 2 * CENTERS[..., 2], 3 * CENTERS[..., 2])
    fixed = Volume(value.astype(np.float32), GRID)
    after = TableShift((5.0, -3.0, 8.0))
    moving = deform_sliding(fixed, sliding, after, GRID)
    points = places()
    truth = after.apply(sliding.apply(points))
    deep = np.abs(sliding.inner.smoothed.at(points) - 0.5) > 0.49
    seen = GRID.contains(truth, margin_mm=8) & deep & (np.abs(sliding.inner.smoothed.at(truth) - 0.5) > 0.45)
    assert (seen & sliding.inside(points)).sum() > 100
    difference = np.abs(moving.at(truth) - fixed.at(points))[seen]
    assert np.percentile(difference, 95) < 2.0  # of 2 to 3 a mm


def test_what_cannot_slide_is_refused() -> None:
    with pytest.raises(NoCorrespondenceError, match="no lungs"):
        SurfaceFlow(Volume(np.zeros(GRID.shape, dtype=bool), GRID))
    with pytest.raises(OptionsError, match="cannot slide"):
        SurfaceFlow(lungs(), amplitude_mm=90.0)
