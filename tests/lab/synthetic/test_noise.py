from __future__ import annotations

import numpy as np
import pytest

from meddift.body import lung_mask
from meddift.errors import OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import chest_phantom, scan_pair
from meddift_lab.synthetic.degrade import add_noise
from meddift_lab.synthetic.noise import noise_level, remove_noise


@pytest.fixture(scope="module")
def phantom():
    return chest_phantom(3, spacing_mm=2.5, noise_std_hu=0, table=False)


def noisy(volume: Volume, std_hu: float) -> Volume:
    return add_noise(volume, np.random.default_rng(0), std_hu=std_hu, correlation_mm=2.5)


def share_left(residual: np.ndarray, noise: np.ndarray) -> float:
    """Which multiple of the noise is in a residual: its projection."""
    return float((residual * noise).sum() / (noise * noise).sum())


@pytest.mark.parametrize("std_hu", [12.0, 25.0, 45.0])
def test_the_level_of_noise_is_found_within_a_fifth(phantom, std_hu):
    assert noise_level(noisy(phantom.volume, std_hu)) == pytest.approx(std_hu, rel=0.2)


def test_more_noise_is_a_higher_level_in_any_orientation(phantom):
    levels = [noise_level(noisy(phantom.volume, std)) for std in (5.0, 10.0, 20.0, 40.0)]
    assert levels == sorted(levels)
    turned = noisy(phantom.volume, 20.0).reoriented("LIP")
    assert noise_level(turned) == pytest.approx(levels[2], rel=1e-3)


def test_nothing_but_air_has_no_level():
    air = Volume(np.full((20, 20, 20), -1000, np.int16), Grid((20, 20, 20), np.diag([2.0, 2, 2, 1])))
    assert noise_level(air) == 0
    assert np.array_equal(remove_noise(air, std_hu=0).data, air.data)


def test_noise_goes_where_tissue_is_flat_and_vessels_stay(phantom):
    clean, lungs = phantom.volume.data.astype(np.float32), lung_mask(phantom.volume).data
    scan = noisy(phantom.volume, 20.0)
    smoothed = remove_noise(scan, std_hu=20.0).data
    noise = scan.data - clean
    liver = phantom.structures["liver"].data
    flat = (lungs & (clean < -750)), (liver & (abs(clean - np.median(clean[liver])) < 15))
    for region in flat:
        assert share_left((smoothed - clean)[region], noise[region]) < 0.25
    # Contrast of vessels to the lung around them: what a fit of the clean scan leaves of it.
    vessels = lungs & (clean > -400)
    inside = clean[vessels] - np.median(clean[flat[0]]), smoothed[vessels] - np.median(smoothed[flat[0]])
    assert float((inside[0] * inside[1]).sum() / (inside[0] ** 2).sum()) > 0.95


def test_voxels_never_leave_the_range_of_their_neighbours():
    generator = np.random.default_rng(1)
    wild = Volume(generator.normal(0, 300, (12, 13, 14)).astype(np.float32), Grid((12, 13, 14), np.eye(4)))
    smoothed = remove_noise(wild, std_hu=100.0, steps=30).data
    assert smoothed.min() >= wild.data.min()
    assert smoothed.max() <= wild.data.max()
    # What one voxel loses its neighbours gain.
    assert smoothed.mean(dtype=np.float64) == pytest.approx(wild.data.mean(dtype=np.float64), abs=1e-2)


@pytest.mark.parametrize("options", [{"std_hu": -1.0}, {"std_hu": np.nan}, {"std_hu": 5.0, "steps": -1}])
def test_bad_options_are_named(phantom, options):
    with pytest.raises(OptionsError, match="std_hu"):
        remove_noise(phantom.volume, **options)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_two_scans_of_a_pair_share_no_noise(seed):
    # An even body: all that varies inside is noise.
    grid = Grid((90, 80, 70), np.array([[2.0, 0, 0, -90], [0, 2, 0, -80], [0, 0, 2, -70], [0, 0, 0, 1]]))
    reach = np.sqrt(((grid.voxel_centers() / [75.0, 65.0, 200.0]) ** 2).sum(-1))
    scan = noisy(Volume(np.where(reach < 1, 40.0, -1000.0).astype(np.float32), grid), 25.0)
    pair = scan_pair(scan, seed, kind="body", n_points=5, thickness_mm=2.0, crop_mm=0, noise_std_hu=15.0)
    deep = np.argwhere(reach < 0.75)
    world = grid.index_to_world(deep)
    moved = pair.moving.at(pair.transform.apply(world))  # un-warped by the truth
    seen = np.isfinite(moved) & pair.moving.grid.contains(pair.transform.apply(world))
    fixed, own = (part[tuple(deep[seen].T)].astype(np.float64) for part in (pair.fixed.data, scan.data))
    # With the scan's own noise deformed along, this would be above 0.7.
    assert abs(np.corrcoef(fixed, moved[seen])[0, 1]) < 0.1
    assert abs(share_left(fixed - fixed.mean(), own - own.mean())) < 0.2
    assert abs(share_left(moved[seen] - moved[seen].mean(), own - own.mean())) < 0.2
    # The fixed scan is as noisy as the scan was.
    assert fixed.std() == pytest.approx(own.std(), rel=0.15)
