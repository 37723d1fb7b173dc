"""Neighbourhoods are aligned: against fields whose motion is known exactly, on every kind of grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from meddift.features import Level
from meddift.geometry import AffineTransform, Grid
from meddift.matching.align import align_neighbourhoods

CHANNELS = 12


def waves(seed: int):
    """A smooth vector-valued function of world mm without any grid: sums of plane waves of 15 mm and longer."""
    generator = np.random.default_rng(seed)
    direction = generator.normal(size=(40, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wave = direction * (2 * np.pi / generator.uniform(15, 60, size=(40, 1)))
    phase, share = generator.uniform(0, 2 * np.pi, 40), generator.normal(size=(40, CHANNELS))

    def function(positions: np.ndarray) -> np.ndarray:
        return np.cos(positions @ wave.T + phase) @ share

    return function


def level_of(function, grid: Grid) -> Level:
    return Level("waves", function(grid.voxel_centers()).astype(np.float32), grid)


def oblique_grid(spacing, shape=(44, 40, 36), turn_degrees: float = 0.0) -> Grid:
    a = np.radians(turn_degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) - 1) / 2
    return Grid(shape, affine)


GRIDS = [
    oblique_grid((2.0, 2.0, 2.0)),
    oblique_grid((2.0, 2.0, 2.0), turn_degrees=30.0),
    oblique_grid((1.5, 2.0, 3.0)),
    oblique_grid((-2.0, 2.0, -2.0), turn_degrees=10.0),
]


@pytest.mark.parametrize("fixed_grid", GRIDS)
@pytest.mark.parametrize("moving_grid", GRIDS[1:3])
def test_a_known_affine_is_found_between_voxels(fixed_grid, moving_grid):
    function = waves(1)
    bent = np.array([[1.06, 0.03, 0.0], [-0.02, 0.95, 0.04], [0.01, 0.0, 1.03]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = bent, [3.0, -2.0, 1.0]
    truth = AffineTransform(matrix)
    back = truth.inverted()
    fixed = level_of(function, fixed_grid)
    moving = level_of(lambda x: function(back.apply(x.reshape(-1, 3))).reshape(*x.shape[:-1], CHANNELS), moving_grid)
    generator = np.random.default_rng(2)
    positions = generator.uniform(-12, 12, size=(20, 3))
    there = truth.apply(positions)
    begun = there + generator.uniform(-0.8, 0.8, size=there.shape)
    # Nothing is known of the stretching: it has to be found along with the place.
    linear = np.broadcast_to(np.eye(3), (20, 3, 3))
    found = align_neighbourhoods(fixed, moving, positions, begun, linear, limit_mm=3.0).positions
    error = np.linalg.norm(found - there, axis=1)
    # Waves of 15 mm on voxels of 2 to 3 mm: linear interpolation itself is off by some hundredths of a millimetre.
    assert np.median(error) < 0.05
    assert error.max() < 0.25
    assert np.linalg.norm(begun - there, axis=1).min() > 0.2


def test_what_is_right_already_stays_and_noise_moves_it_little():
    function, grid = waves(3), GRIDS[0]
    level = level_of(function, grid)
    generator = np.random.default_rng(4)
    positions = generator.uniform(-15, 15, size=(30, 3))
    linear = np.broadcast_to(np.eye(3), (30, 3, 3))
    same = align_neighbourhoods(level, level, positions, positions, linear, limit_mm=2.0).positions
    np.testing.assert_allclose(same, positions, atol=1e-4)
    # As noisy as descriptors are: smooth from voxel to voxel, of a fifteenth of the signal.
    noise = ndimage.gaussian_filter(generator.normal(size=level.features.shape), (0.8, 0.8, 0.8, 0))
    values = level.features + noise / noise.std() * level.features.std() / 15
    spoiled = Level("waves", values.astype(np.float32), grid)
    found = align_neighbourhoods(level, spoiled, positions, positions, linear, limit_mm=2.0).positions
    assert np.linalg.norm(found - positions, axis=1).max() < 0.3
    assert np.linalg.norm((found - positions).mean(axis=0)) < 0.1


def test_a_neighbourhood_that_is_partly_different_is_aligned_by_the_rest():
    function, other, grid = waves(5), waves(6), GRIDS[0]
    centres = grid.voxel_centers()
    values = np.where((centres[..., 0] > 4.0)[..., None], other(centres), function(centres)).astype(np.float32)
    fixed, moving = level_of(function, grid), Level("waves", values, grid)
    positions = np.random.default_rng(7).uniform([-8, -10, -10], [-2, 10, 10], size=(30, 3))
    linear = np.broadcast_to(np.eye(3), (30, 3, 3))
    found = align_neighbourhoods(fixed, moving, positions, positions + 0.5, linear, limit_mm=2.0).positions
    assert np.linalg.norm(found - positions, axis=1).max() < 0.2


def test_what_lies_beyond_the_neighbourhood_or_the_scan_does_not_decide_which_differences_are_large():
    """At a corner of the scan most of the ball has no counterpart: what is read there repeats the border."""
    grid = oblique_grid((2.0, 2.0, 2.0), shape=(24, 24, 24))
    fixed = level_of(waves(1), grid)
    moving = level_of(lambda x: waves(1)(x - 0.6), grid)
    corner = grid.index_to_world([[1.3, 1.2, 1.4], [22.1, 21.8, 1.2]])
    linear = np.broadcast_to(np.eye(3), (2, 3, 3))
    found = align_neighbourhoods(fixed, moving, corner, corner, linear, limit_mm=3.0).positions
    assert np.linalg.norm(found - corner - 0.6, axis=1).max() < 0.15


def test_the_linear_part_is_held_where_descriptors_leave_it_open(monkeypatch):
    """All texture lies 8 mm beside the points, the rest is noise: a linear part found in that carries points away."""
    grid, generator = GRIDS[0], np.random.default_rng(3)
    centres = grid.voxel_centers()
    blob = np.exp(-0.5 * (np.linalg.norm(centres - [8, 0, 0], axis=-1) / 5) ** 2)[..., None]
    even = np.zeros((*grid.shape, CHANNELS))
    even[..., 0] = 2.0
    clean = even + blob * waves(4)(centres) / 3

    def noisy():
        noise = ndimage.gaussian_filter(generator.normal(size=clean.shape), (0.8, 0.8, 0.8, 0))
        return Level("blob", (clean + noise / noise.std() * 0.05).astype(np.float32), grid)

    scans = [(noisy(), noisy()) for _ in range(8)]
    positions = generator.uniform(-2, 2, size=(6, 3))
    linear = np.broadcast_to(np.eye(3), (6, 3, 3))

    def error():
        found = [align_neighbourhoods(*pair, positions, positions, linear, limit_mm=10.0).positions for pair in scans]
        return np.median(np.linalg.norm(np.concatenate(found) - np.tile(positions, (8, 1)), axis=1))

    held = error()
    monkeypatch.setattr("meddift.matching.align.STIFFNESS", 0.0)
    assert held < 0.87 * error()


def test_even_tissue_and_places_beyond_the_scan_stay_where_they_were():
    grid = GRIDS[0]
    even = Level("even", np.ones((*grid.shape, 4), dtype=np.float32), grid)
    positions = np.array([[0.0, 0.0, 0.0], [200.0, 0.0, 0.0], [0.0, 0.0, -300.0]])
    linear = np.broadcast_to(np.eye(3), (3, 3, 3))
    aligned = align_neighbourhoods(even, even, positions, positions + 1.0, linear, limit_mm=2.0)
    np.testing.assert_allclose(aligned.positions, positions + 1.0, atol=1e-6)
    assert aligned.standard_deviation_mm.min() > 100
    textured = level_of(waves(8), grid)
    found = align_neighbourhoods(textured, textured, positions, positions + 1.0, linear, limit_mm=2.0).positions
    np.testing.assert_allclose(found[1:], positions[1:] + 1.0, atol=1e-6)


def test_a_prior_that_turns_things_inside_out_or_flattens_them_does_no_harm():
    level = level_of(waves(4), GRIDS[0])
    positions = np.random.default_rng(2).uniform(-10, 10, size=(2, 3))
    linear = np.stack([-np.eye(3), np.diag([1.0, 1.0, 0.05])])
    aligned = align_neighbourhoods(level, level, positions, positions, linear, limit_mm=2.0)
    assert np.isfinite(aligned.positions).all()
    assert np.isfinite(aligned.standard_deviation_mm).all()
    assert aligned.misfit[0] > 0.15


@given(st.integers(0, 10_000), st.floats(0.1, 3.0))
@settings(max_examples=25, deadline=None)
def test_no_place_moves_farther_than_it_may(seed, limit):
    grid = oblique_grid((2.0, 2.0, 2.0), shape=(16, 14, 12))
    fixed, moving = level_of(waves(seed), grid), level_of(waves(seed + 1), grid)
    positions = np.random.default_rng(seed).uniform(-14, 14, size=(5, 3))
    linear = np.broadcast_to(np.eye(3), (5, 3, 3))
    found = align_neighbourhoods(fixed, moving, positions, positions, linear, limit_mm=limit).positions
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - positions, axis=1).max() <= limit + 1e-9


def test_matching_back_ends_where_it_began_because_both_directions_count_alike():
    grid = GRIDS[0]
    fixed, generator = level_of(waves(1), grid), np.random.default_rng(6)
    noise = ndimage.gaussian_filter(generator.normal(size=fixed.features.shape), (0.8, 0.8, 0.8, 0))
    values = waves(1)(grid.voxel_centers() - 0.7) + noise / noise.std() * fixed.features.std() / 3
    moving = Level("waves", values.astype(np.float32), grid)
    positions = generator.uniform(-15, 15, size=(30, 3))
    linear = np.broadcast_to(np.eye(3), (30, 3, 3))
    there = align_neighbourhoods(fixed, moving, positions, positions + 0.7, linear, limit_mm=2.0).positions
    back = align_neighbourhoods(moving, fixed, there, positions, linear, limit_mm=2.0).positions
    moved_by_noise = np.linalg.norm(there - positions - 0.7, axis=1)
    assert np.linalg.norm(back - positions, axis=1).max() < np.median(moved_by_noise) / 3


def test_an_answer_does_not_depend_on_what_else_is_asked():
    grid = GRIDS[0]
    fixed, moving = level_of(waves(1), grid), level_of(lambda x: waves(1)(x - 0.7), grid)
    positions = np.random.default_rng(3).uniform(-15, 15, size=(37, 3))
    linear = np.broadcast_to(np.eye(3), (37, 3, 3))
    together = align_neighbourhoods(fixed, moving, positions, positions, linear, limit_mm=2.0).positions
    some = positions[::6, None]
    alone = [align_neighbourhoods(fixed, moving, p, p, linear[:1], limit_mm=2.0).positions[0] for p in some]
    np.testing.assert_allclose(together[::6], alone, atol=1e-5)


@pytest.mark.parametrize("shape", [(30, 30, 1), (1, 20, 20), (2, 2, 2)])
def test_thin_scans_are_read_as_far_as_they_go(shape):
    grid = oblique_grid((2.0, 2.0, 2.0), shape=shape)
    level = level_of(waves(2), grid)
    positions = np.zeros((1, 3))
    found = align_neighbourhoods(level, level, positions, positions, np.eye(3)[None], limit_mm=2.0).positions
    np.testing.assert_allclose(found, positions, atol=1e-3)


def test_misfit_is_the_mean_squared_difference_and_the_standard_deviation_says_where_there_is_nothing_to_see():
    grid = GRIDS[0]
    centres = grid.voxel_centers()
    # Texture on the left, and on the right stripes that vary along x only: free to slide along y and z.
    striped = np.cos(centres[..., :1] * np.array([0.2, 0.3, 0.45])) + 2.0
    striped = np.concatenate([striped, np.zeros((*grid.shape, CHANNELS - 3))], axis=-1)
    values = np.where((centres[..., 0] > 0)[..., None], striped, waves(9)(centres)).astype(np.float32)
    level = Level("waves", values, grid)
    positions = np.array([[-20.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    generator = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(generator.normal(size=values.shape), (0.8, 0.8, 0.8, 0)).astype(np.float32)
    spoiled = Level("waves", values + noise, grid)
    linear = np.broadcast_to(np.eye(3), (2, 3, 3))
    same = align_neighbourhoods(level, level, positions, positions, linear, limit_mm=2.0)
    assert same.misfit.max() < 1e-6
    other = align_neighbourhoods(level, spoiled, positions, positions, linear, limit_mm=2.0)
    assert other.standard_deviation_mm[1] > 3 * other.standard_deviation_mm[0]
    # Opposite descriptors differ by two in length, four in the square.
    turned = align_neighbourhoods(level, Level("waves", -values, grid), positions, positions, linear, limit_mm=0.01)
    np.testing.assert_allclose(turned.misfit, 4.0, atol=0.05)


def test_a_held_place_follows_what_is_seen_and_stays_where_nothing_is():
    """Sheets: descriptors vary along x alone, under noise. Along y and z only what was known before can decide."""
    generator = np.random.default_rng(3)
    grid = oblique_grid((2.0, 2.0, 2.0))

    def sheets() -> Level:
        away = grid.voxel_centers()[..., 0, None]
        clean = np.cos(away * 2 * np.pi / np.linspace(14, 40, CHANNELS) + np.arange(CHANNELS))
        return Level("sheets", (clean + generator.normal(0, 0.15, (*grid.shape, CHANNELS))).astype(np.float32), grid)

    fixed, moving = sheets(), sheets()
    points = generator.uniform(-12, 12, (40, 3))
    start = points + np.array([1.5, 1.0, -1.0])
    still = np.broadcast_to(np.eye(3), (40, 3, 3)).copy()
    free, held, stuck = (
        align_neighbourhoods(fixed, moving, points, start, still, limit_mm=4.0, hold=hold).positions
        for hold in (0.0, 4.0, 1e6)
    )
    assert np.abs(held[:, 0] - points[:, 0]).mean() < 0.4  # it was 1.5
    assert np.abs(held[:, 1:] - start[:, 1:]).mean() < 0.15
    assert np.abs(free[:, 1:] - start[:, 1:]).mean() > np.abs(held[:, 1:] - start[:, 1:]).mean()
    np.testing.assert_allclose(stuck, start, atol=0.01)
