from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from meddift.body import body_mask
from meddift.errors import OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import rescan
from meddift_lab.synthetic.degrade import (
    add_noise,
    blur,
    change_calibration,
    change_enhancement,
    change_thickness,
    crop_field_of_view,
    replace_table,
    sharpen,
)


def grid(shape=(60, 50, 40), spacing=(2.0, 2.0, 2.5)) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-60.0, -50.0, 17.0]
    return Grid(shape, affine)


def torso(orientation: str = "RAS") -> Volume:
    """An elliptic body with two lungs and a vessel in each, and a plank below it that does not touch."""
    lattice = grid((80, 70, 50), (3.0, 3.0, 3.0))
    x, y, z = np.moveaxis(lattice.voxel_centers() - lattice.center, -1, 0)
    data = np.full(lattice.shape, -1000.0)
    data[(x / 95) ** 2 + (y / 65) ** 2 < 1] = 40
    for side in (-1, 1):
        data[((x - side * 45) / 32) ** 2 + (y / 42) ** 2 + (z / 60) ** 2 < 1] = -850
        data[((x - side * 45) ** 2 + y**2 < 25) & (np.abs(z) < 40)] = 45
    data[(y < -82) & (y > -92)] = 200
    return Volume(data.astype(np.int16), lattice).reoriented(orientation)


@pytest.mark.parametrize(("std", "width"), [(10.0, 0.0), (25.0, 5.0), (40.0, 8.0)])
def test_noise_has_the_spread_asked_for_and_the_width_grows(std, width):
    flat = Volume(np.full((60, 50, 40), 50, np.int16), grid())
    noisy = add_noise(flat, np.random.default_rng(1), std_hu=std, correlation_mm=width).data
    assert abs(noisy.std() / std - 1) < 0.08
    assert abs(noisy.mean() - 50) < std / 15
    neighbours = np.corrcoef(noisy[1:].ravel(), noisy[:-1].ravel())[0, 1]
    # Gaussian smoothing of width s leaves exp(-d^2 / (4 s^2)) between samples at distance d.
    expected = np.exp(-(2.0**2) / (4 * (width / 2.3548) ** 2)) if width else 0.0
    assert abs(neighbours - expected) < 0.08


def test_a_blurred_edge_is_as_wide_as_asked_for():
    data = np.where(np.arange(60)[:, None, None] < 30, -1000.0, 0.0) * np.ones((60, 50, 40))
    profile = np.diff(blur(Volume(data, grid()), fwhm_mm=9.0).data[:, 20, 20])
    place = np.arange(len(profile)) * 2.0
    spread = np.sqrt((profile * (place - (profile * place).sum() / profile.sum()) ** 2).sum() / profile.sum())
    assert abs(spread * 2.3548 - 9.0) < 0.6


def test_sharpening_overshoots_and_leaves_flat_parts():
    data = np.where(np.arange(60)[:, None, None] < 30, -1000.0, 0.0) * np.ones((60, 50, 40))
    sharp = sharpen(Volume(data, grid()), amount=0.5).data
    assert sharp.max() > 30
    assert sharp.min() < -1030
    assert np.allclose(sharp[:20], -1000, atol=0.1)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAL"])
def test_thicker_slices_keep_extent_mean_and_every_world_position(orientation):
    generator = np.random.default_rng(0)
    volume = Volume(generator.normal(0, 100, (60, 50, 40)).astype(np.float32), grid()).reoriented(orientation)
    thick = change_thickness(volume, thickness_mm=5.0)
    axis = next(i for i, letter in enumerate(orientation) if letter in "SI")
    assert np.isclose(thick.grid.spacing[axis], 5.0)
    assert np.allclose(thick.grid.extent, volume.grid.extent)
    assert np.allclose(thick.grid.center, volume.grid.center)
    assert np.isclose(thick.data.mean(), volume.data.mean(), atol=1e-3)
    # Two old slices make a new one.
    pairs = np.moveaxis(volume.data, axis, -1)
    assert np.allclose(np.moveaxis(thick.data, axis, -1)[..., 3], (pairs[..., 6] + pairs[..., 7]) / 2, atol=1e-4)


def test_slices_that_do_not_divide_and_thinner_slices():
    volume = Volume(np.linspace(0, 1, 40, dtype=np.float32) * np.ones((60, 50, 40), np.float32), grid())
    odd = change_thickness(volume, thickness_mm=3.5)
    assert odd.grid.shape[2] == round(100 / 3.5)
    assert np.allclose(odd.grid.extent, volume.grid.extent)
    # A ramp stays a ramp in world coordinates.
    at = np.array([[0.0, 0.0, 40.0], [10.0, -3.0, 90.0]])
    assert np.allclose(odd.at(at), volume.at(at), atol=2e-3)
    assert change_thickness(volume, thickness_mm=1.0).grid == volume.grid


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "IPR"])
def test_cropping_names_sides_of_the_patient(orientation):
    volume = torso(orientation)
    cropped = crop_field_of_view(volume, left=30.0, superior=15.0, posterior=9.0)
    low, high = volume.grid.corners.min(0), volume.grid.corners.max(0)
    assert np.allclose(cropped.grid.corners.min(0), low + np.array([30, 9, 0]))
    assert np.allclose(cropped.grid.corners.max(0), high - [0, 0, 15])
    places = cropped.grid.index_to_world(np.argwhere(np.ones(cropped.grid.shape))[::997])
    assert np.allclose(cropped.at(places), volume.at(places))
    assert min(crop_field_of_view(volume, left=9999.0, right=9999.0).grid.shape) == 1


def test_calibration_moves_water_more_than_air():
    volume = Volume(np.array([-1000.0, 0.0, 1000.0]).reshape(3, 1, 1), grid((3, 1, 1)))
    assert np.allclose(change_calibration(volume, scale=1.02, offset_hu=5).data.ravel(), [-995, 25, 1045])


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA"])
def test_contrast_reaches_vessels_and_not_the_chest_wall(orientation):
    volume = torso(orientation)
    change = Volume(change_enhancement(volume, boost_hu=100.0).data - volume.data, volume.grid)
    middle = volume.grid.center
    vessel, wall, lung, air = change.at(middle + np.array([[45.0, 0, 0], [90.0, 0, 0], [45.0, 24.0, 0], [0, 95.0, 0]]))
    assert vessel > 80
    assert max(abs(wall), abs(lung), abs(air)) < 3


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA"])
def test_the_table_goes_and_another_one_lies_below(orientation):
    volume = torso(orientation)
    other = replace_table(volume, gap_mm=6.0)
    body = body_mask(volume)
    assert np.array_equal(other.data[body.data], volume.data[body.data])
    middle = volume.grid.center
    assert (volume.at(middle + np.array([[0, -87.0, 0]])) > 100).all()
    # The old plank was dense all through; the new table is a thin shell around foam.
    line = other.at(middle + np.array([[0, -y, 0] for y in np.arange(66, 101, 0.5)]))
    assert line.max() > -700
    assert line.max() < 0
    assert other.data.dtype == np.int16


def test_rescanning_repeats_bit_by_bit_and_differs_between_seeds():
    volume = torso()
    before = volume.data.copy()
    first, again, other = rescan(volume, seed=5), rescan(volume, seed=5), rescan(volume, seed=6)
    assert first.digest() == again.digest()
    assert first.digest() != other.digest()
    assert np.array_equal(volume.data, before)
    assert first.data.dtype == np.int16
    assert first.data.min() >= -1024


def test_rescanning_does_what_it_is_told():
    volume = torso()
    scan = rescan(
        volume,
        seed=1,
        noise_std_hu=20.0,
        kernel=0.0,
        thickness_mm=6.0,
        crop_mm=0.0,
        calibration_std_hu=0.0,
        boost_hu=0.0,
    )
    assert scan.grid.spacing[2] == pytest.approx(6.0)
    assert np.allclose(scan.grid.extent, volume.grid.extent)
    wall = ndimage.binary_erosion((volume.data == 40)[:, :, ::2], iterations=3)[:, :, 2:-2]
    assert abs(scan.data[:, :, 2:-2][wall].std() / 20.0 - 1) < 0.15


def test_nonsense_is_refused():
    volume = torso()
    with pytest.raises(OptionsError):
        add_noise(volume, np.random.default_rng(0), std_hu=-1.0)
    with pytest.raises(OptionsError):
        change_thickness(volume, thickness_mm=0.0)
    with pytest.raises(OptionsError):
        crop_field_of_view(volume, left=-1.0)
    with pytest.raises(OptionsError):
        blur(volume, fwhm_mm=float("nan"))
