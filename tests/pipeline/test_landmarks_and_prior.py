"""Places worth matching, and the prior that is made of matches."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.features import Level, Pyramid
from meddift.geometry import AffineTransform, Grid
from meddift.matching import SearchIndex
from meddift.matching.locate import local_linear
from meddift.matching.prior import MatchedPrior, match_prior
from meddift.pipeline.landmarks import textured_points
from meddift.volume import Volume
from texture import lattice, scan


def two_halves():
    """Texture where x > 0, nothing elsewhere."""
    grid = lattice((60, 50, 40))
    volume = scan(grid)
    data = np.where(grid.voxel_centers()[..., 0] > 0, volume.data / 1000, 0.0)
    return Volume(data.astype(np.float32), grid)


@pytest.mark.parametrize("count", [1, 20, 60])
def test_landmarks_are_where_texture_is_and_nowhere_else(count):
    volume = two_halves()
    points = textured_points(volume, count)
    assert 0 < len(points) <= count
    assert volume.grid.contains(points).all()
    assert (points[:, 0] > -6).all()  # texture is judged on 4 mm voxels, over three of them
    np.testing.assert_array_equal(points, textured_points(volume, count))


def test_landmarks_reach_all_of_the_texture():
    volume = two_halves()
    points = textured_points(volume, 40)
    probes = np.random.default_rng(0).uniform([14, -36, -26], [46, 36, 26], (200, 3))
    nearest = np.linalg.norm(probes[:, None] - points[None], axis=-1).min(axis=1)
    assert np.percentile(nearest, 95) < 25
    assert len(np.unique(points, axis=0)) == len(points)


def test_a_constant_scan_has_no_landmarks():
    grid = lattice((30, 30, 30))
    assert len(textured_points(Volume(np.full(grid.shape, 0.4, dtype=np.float32), grid), 20)) == 0


def test_landmarks_turn_with_the_scan():
    volume = two_halves()
    matrix = np.eye(4)
    matrix[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    matrix[:3, 3] = [300, -20, 70]
    turned = Volume(volume.data, type(volume.grid)(volume.grid.shape, matrix @ volume.grid.affine))
    expected = AffineTransform(matrix).apply(textured_points(volume, 30))
    np.testing.assert_allclose(textured_points(turned, 30), expected, atol=1e-6)


def bent_prior(seed=0):
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] += generator.normal(0, 0.05, (3, 3))
    matrix[:3, 3] = [30, -50, 400]
    anchors = generator.uniform(-120, 120, (80, 3))
    residuals = 4 * np.sin(anchors[:, [1, 2, 0]] / 60)
    return MatchedPrior(AffineTransform(matrix), anchors, residuals, matched=80)


def test_there_and_back_ends_where_it_began():
    prior = bent_prior()
    points = np.random.default_rng(1).uniform(-100, 100, (50, 3))
    back = prior.inverted()
    np.testing.assert_allclose(back.apply(prior.apply(points)), points, atol=2e-3)
    np.testing.assert_allclose(
        prior.apply(back.apply(prior.affine.apply(points))), prior.affine.apply(points), atol=2e-3
    )
    assert np.linalg.norm(prior.apply(points) - prior.affine.apply(points), axis=1).max() > 2.0
    assert back.inverted() is prior


def test_where_a_point_goes_does_not_depend_on_how_many_are_asked(monkeypatch):
    prior = bent_prior()
    points = np.random.default_rng(1).uniform(-100, 100, (50, 3))
    whole = prior.apply(points)
    monkeypatch.setattr("meddift.matching.prior.WEIGHTS_AT_ONCE", 7 * len(prior.anchors))
    np.testing.assert_allclose(prior.apply(points), whole, atol=1e-9)
    np.testing.assert_allclose(prior.apply(points.reshape(5, 10, 3)), whole.reshape(5, 10, 3), atol=1e-9)


def test_a_million_points_take_little_more_memory_than_themselves():
    """8 kB a point would be 2 GB here."""
    import tracemalloc

    prior = bent_prior()
    points = np.random.default_rng(1).uniform(-100, 100, (250_000, 3))
    tracemalloc.start()
    prior.apply(points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * points.nbytes + 4 * 8_000_000


def index_of(grid: Grid, shift_mm: np.ndarray) -> SearchIndex:
    """A scan whose descriptors are waves in the world, moved by a shift."""
    generator = np.random.default_rng(7)
    waves, phases = generator.normal(0, 0.12, (3, 24)), generator.uniform(0, 6.28, 24)
    values = np.cos((grid.voxel_centers() - shift_mm) @ waves + phases).astype(np.float32)
    return SearchIndex(Pyramid((Level("up0", values, grid),), grid, grid, "0" * 64), grid)


def test_matches_that_agree_are_found_at_nearly_all_points_and_their_share_is_told():
    grid, shift = lattice((34, 32, 30), spacing=(4.0, 4.0, 4.0)), np.array([11.0, -7.0, 5.0])
    positions = np.random.default_rng(3).uniform(-40, 40, (100, 3)) + grid.center
    found = match_prior(index_of(grid, np.zeros(3)), index_of(grid, shift), positions)
    assert found.share == len(found.anchors) / 100 > 0.9
    assert np.linalg.norm(found.apply(positions) - positions - shift, axis=1).max() < 1.0


def test_far_from_any_match_the_prior_is_the_affine():
    prior = bent_prior()
    far = np.array([[500.0, 0, 0], [0, -700, 100]])
    np.testing.assert_allclose(prior.apply(far), prior.affine.apply(far), atol=1e-6)


def test_without_bending_the_linear_part_is_the_affine():
    prior = bent_prior()
    points = np.random.default_rng(2).uniform(-100, 100, (7, 3))
    expected = np.broadcast_to(prior.affine.matrix[:3, :3], (7, 3, 3))
    np.testing.assert_allclose(local_linear(prior.affine, points), expected, atol=1e-9)
    flat = AffineTransform(np.diag([1.0, 1.0, 0.01, 1.0]))
    np.testing.assert_array_equal(local_linear(flat, points), np.broadcast_to(np.eye(3), (7, 3, 3)))
