"""Whitening against numpy.cov, scipy's matrix powers, and its own symmetries."""

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from meddift.errors import ModelError, OptionsError
from meddift.features import Level, Pyramid, whiten_pair
from meddift.geometry import Grid, sample
from meddift.volume import Volume

MIX = np.random.default_rng(5).standard_normal((6, 6)) @ np.diag([10, 5, 2, 1, 0.5, 0.3])


def scan(seed: int, shape=(9, 8, 7), *, mix=MIX, padding: int = 2, name: str = "up0") -> Pyramid:
    """A pyramid of one level on a grid that is larger than the scan; the padding holds nonsense."""
    random = np.random.default_rng(seed)
    image_grid = Grid(shape, np.diag([2.0, 3.0, 4.0, 1.0]))
    grid = image_grid.cropped([-padding] * 3, [n + 2 * padding for n in shape])
    features = np.full((*grid.shape, mix.shape[1]), 1e3, dtype=np.float32)
    inner = tuple(slice(padding, padding + n) for n in shape)
    features[inner] = random.standard_normal((*shape, mix.shape[0])) @ mix + 7 + seed
    return Pyramid((Level(name, features, grid),), image_grid, grid, f"{seed:064x}")


def inside(pyramid: Pyramid, padding: int = 2) -> np.ndarray:
    features = pyramid.levels[0].features
    return features[(slice(padding, -padding),) * 3].reshape(-1, features.shape[-1]).astype(np.float64)


def test_both_scans_together_have_zero_mean_and_unit_covariance_in_the_field_of_view():
    fixed, moving = whiten_pair(scan(0), scan(1, (5, 10, 6)), floor=1e-9)
    pooled = np.concatenate([inside(fixed), inside(moving)])
    np.testing.assert_allclose(pooled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(pooled.T, bias=True), np.eye(6), atol=2e-3)


def test_it_is_the_symmetric_inverse_square_root():
    before = scan(0), scan(1)
    after = whiten_pair(*before, floor=1e-9)
    pooled = np.concatenate([inside(one) for one in before])
    root = fractional_matrix_power(np.cov(pooled.T, bias=True), -0.5)
    for one, white in zip(before, after, strict=True):
        np.testing.assert_allclose(inside(white), (inside(one) - pooled.mean(axis=0)) @ root, atol=5e-3)


def test_directions_below_the_floor_are_not_blown_up():
    before = scan(0), scan(1)
    floor = 0.05
    after = whiten_pair(*before, floor=floor)
    values = np.linalg.eigvalsh(np.cov(np.concatenate([inside(one) for one in before]).T, bias=True))
    expected = values / np.maximum(values, floor * values.max())
    assert expected.min() < 0.5  # the floor matters here
    found = np.linalg.eigvalsh(np.cov(np.concatenate([inside(one) for one in after]).T, bias=True))
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-3)


def test_fewer_voxels_than_channels_give_finite_features():
    mix = np.random.default_rng(3).standard_normal((6, 40))
    fixed, moving = whiten_pair(scan(0, (2, 2, 3), mix=mix), scan(1, (2, 2, 2), mix=mix))
    assert np.isfinite(fixed.levels[0].features).all()
    assert np.isfinite(moving.levels[0].features).all()


def test_a_constant_level_becomes_zero():
    grid = Grid((3, 3, 3), np.eye(4))
    flat = Pyramid((Level("up0", np.full((3, 3, 3, 4), 2.5, dtype=np.float32), grid),), grid, grid, "0" * 64)
    for white in whiten_pair(flat, flat):
        assert not white.levels[0].features.any()


def test_a_lattice_without_a_centre_in_the_scan_is_whitened_by_all_its_voxels():
    coarse = Grid((2, 2, 2), np.diag([40.0, 40.0, 40.0, 1.0]))
    tiny = Grid((4, 4, 4), np.array([[1, 0, 0, 18], [0, 1, 0, 18], [0, 0, 1, 18], [0, 0, 0, 1.0]]))
    features = np.random.default_rng(0).standard_normal((2, 2, 2, 3)).astype(np.float32)
    made = Pyramid((Level("up0", features, coarse),), tiny, coarse, "0" * 64)
    white = whiten_pair(made, made)[0].levels[0].matrix.astype(np.float64)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-4)


def test_exchanging_the_scans_exchanges_the_results():
    one, two = scan(0), scan(1)
    first, second = whiten_pair(one, two)
    swapped_second, swapped_first = whiten_pair(two, one)
    np.testing.assert_allclose(first.levels[0].features, swapped_first.levels[0].features, atol=1e-3)
    np.testing.assert_allclose(second.levels[0].features, swapped_second.levels[0].features, atol=1e-3)


def reoriented(pyramid: Pyramid, orientation: str) -> Pyramid:
    old = pyramid.levels[0]
    turned = Volume(np.moveaxis(old.features, -1, 0), old.grid).reoriented(orientation)
    new = Level(old.name, np.moveaxis(turned.data, 0, -1), turned.grid)
    return Pyramid((new,), pyramid.image_grid.reoriented(orientation)[0], turned.grid, pyramid.digest)


@pytest.mark.parametrize("orientation", ["LPS", "SAR", "PIL"])
def test_turning_a_scan_turns_its_result_and_nothing_else(orientation):
    one, two = scan(0), scan(1)
    plain = whiten_pair(one, two)
    turned = whiten_pair(one, reoriented(two, orientation))
    np.testing.assert_allclose(turned[0].levels[0].features, plain[0].levels[0].features, rtol=1e-5, atol=1e-3)
    expected = reoriented(plain[1], orientation).levels[0]
    np.testing.assert_allclose(turned[1].levels[0].features, expected.features, rtol=1e-5, atol=1e-3)


def test_whitening_commutes_with_interpolation():
    one, two = scan(0), scan(1)
    white = whiten_pair(one, two)[0].levels[0]
    positions = np.random.default_rng(2).uniform(2, 8, (50, 3))
    raw = sample(np.moveaxis(one.levels[0].features, -1, 0), positions).T
    known = inside(one), white.features[2:-2, 2:-2, 2:-2].reshape(-1, 6)
    design = np.column_stack([known[0], np.ones(len(known[0]))])
    affine_map = np.linalg.lstsq(design, known[1].astype(np.float64), rcond=None)[0]
    found = sample(np.moveaxis(white.features, -1, 0), positions).T
    np.testing.assert_allclose(found, np.column_stack([raw, np.ones(len(raw))]) @ affine_map, atol=1e-2)


def two_levels(seed: int) -> Pyramid:
    one = scan(seed)
    fine = Level("mind", one.levels[0].features + 1, one.levels[0].grid, 2.0)
    return Pyramid((*one.levels, fine), one.image_grid, one.network_grid, one.digest)


def test_levels_not_asked_for_are_handed_on_untouched():
    before = two_levels(0), two_levels(1)
    after = whiten_pair(*before, levels=["mind"])
    for old, new in zip(before, after, strict=True):
        assert new.level("up0") is old.level("up0")
        assert not np.allclose(new.level("mind").features, old.level("mind").features)
        assert new.level("mind").weight == 2.0
        assert new.digest != old.digest
        assert new.provenance["whitening"]["levels"] == ["mind"]
    untouched = whiten_pair(*before, levels=[])
    assert untouched[0].level("mind") is before[0].level("mind")


def test_the_digest_tells_partners_and_settings_apart():
    digests = {
        whiten_pair(scan(0), scan(partner), floor=floor)[0].digest for partner in (1, 2) for floor in (1e-4, 1e-3)
    }
    assert len(digests) == 4


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ModelError, match="different levels"):
        whiten_pair(scan(0), scan(1, name="up1"))
    with pytest.raises(ModelError, match="6 channels in one scan and 3"):
        whiten_pair(scan(0), scan(1, mix=MIX[:, :3]))
    with pytest.raises(OptionsError, match="up5"):
        whiten_pair(scan(0), scan(1), levels=["up5"])
    for floor in (0.0, -1.0, 2.0, float("nan")):
        with pytest.raises(OptionsError, match="floor"):
            whiten_pair(scan(0), scan(1), floor=floor)
    broken = scan(0)
    broken.levels[0].features[4, 4, 4, 1] = np.nan
    with pytest.raises(ModelError, match="up0"):
        whiten_pair(broken, scan(1))
