from __future__ import annotations

import functools

import numpy as np
import pytest

from meddift.body import lung_mask
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import BreathingDeformation, TableShift, chest_phantom, phantom_pair, scan_pair
from meddift_lab.synthetic.deformation import KnownTransform
from meddift_lab.synthetic.density import follow_volume
from meddift_lab.synthetic.warp import deform_volume

GRID = Grid((60, 50, 70), np.array([[2.0, 0, 0, -60], [0, 2, 0, -50], [0, 0, 2, -70], [0, 0, 0, 1]]))


class Stretch(KnownTransform):
    """A uniform stretch about the origin, along each axis."""

    def __init__(self, *factors: float) -> None:
        self.factors = np.asarray(factors)

    def displacement(self, positions):
        return positions * (self.factors - 1)

    def gradient(self, positions):
        return np.broadcast_to(np.diag(self.factors - 1), (len(positions), 3, 3)).copy()


def parenchyma() -> tuple[Volume, Volume]:
    """An ellipsoid of lung in muscle, and its mask."""
    world = GRID.voxel_centers()
    inside = ((world / [35.0, 30.0, 42.0]) ** 2).sum(-1) < 1
    texture = np.random.default_rng(0).uniform(-25, 25, GRID.shape)
    return Volume(np.where(inside, -850 + texture, 40).astype(np.float32), GRID), Volume(inside, GRID)


@pytest.mark.parametrize("factors", [(1.1, 1.0, 1.25), (0.95, 0.9, 0.85)])
def test_the_mass_of_the_lungs_stays(factors):
    volume, lungs = parenchyma()
    stretch = Stretch(*factors)
    moving = deform_volume(follow_volume(volume, stretch, lungs=lungs), stretch)
    plain = deform_volume(volume, stretch)
    # Well inside, where neither scan mixes lung with muscle: mean density times volume, which is known.
    world = GRID.voxel_centers()
    inside, stretched = (((w / [35.0, 30.0, 42.0]) ** 2).sum(-1) < 0.7 for w in (world, world / factors))
    before, after = (volume.data[inside] + 1000).mean(), (moving.data[stretched] + 1000).mean()
    assert after * np.prod(factors) == pytest.approx(before, rel=0.01)
    # Otherwise mass would grow with the lung.
    assert (plain.data[stretched] + 1000).mean() == pytest.approx(before, rel=0.01)


def test_blood_bone_airways_and_what_is_no_lung_stay():
    volume, lungs = parenchyma()
    volume.data[28:32, 23:27, :] = 60.0  # a vessel through the lung
    volume.data[20:22, 20:22, 30:40] = -1000.0  # an airway
    dense = follow_volume(volume, Stretch(1.1, 1.1, 1.2), lungs=lungs).data
    solid = volume.data > 0
    assert np.array_equal(dense[solid], volume.data[solid])
    assert np.array_equal(dense[~lungs.data], volume.data[~lungs.data])
    assert np.abs(dense[20:22, 20:22, 30:40] + 1000).max() < 1e-3


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.4, 3.0])
def test_shades_of_grey_keep_their_order(factor):
    ramp = np.linspace(-1000, 200, GRID.shape[2])
    volume = Volume(np.broadcast_to(ramp, GRID.shape).astype(np.float32), GRID)
    everywhere = Volume(np.ones(GRID.shape, dtype=bool), GRID)
    dense = follow_volume(volume, Stretch(factor, 1.0, 1.0), lungs=everywhere).data
    assert (np.diff(dense[30, 25]) > 0).all()


def test_nothing_changes_without_lungs_or_without_a_change_of_volume():
    volume, lungs = parenchyma()
    none = Volume(np.zeros(GRID.shape, dtype=bool), GRID)
    assert np.array_equal(follow_volume(volume, Stretch(1.2, 1.2, 1.2), lungs=none).data, volume.data)
    shifted = follow_volume(volume, TableShift((10.0, 0.0, 30.0)), lungs=lungs)
    assert np.allclose(shifted.data, volume.data, atol=1e-3)


@pytest.mark.parametrize("kind", ["scan", pytest.param("phantom", marks=pytest.mark.slow)])
def test_breathing_in_makes_the_lungs_of_a_pair_lighter(kind):
    options = {"thickness_mm": 4.0, "crop_mm": 0.0, "n_points": 5}
    if kind == "scan":
        make = functools.partial(scan_pair, chest_phantom(5, spacing_mm=4.0).volume, 3, **options)
    else:
        make = functools.partial(phantom_pair, 3, spacing_mm=4.0, **options)
    heavy, light = (_lung_hounsfield(make(preserve_mass=keep)) for keep in (False, True))
    assert light < heavy - 10


def _lung_hounsfield(pair) -> float:
    return float(np.mean(pair.moving.data[lung_mask(pair.moving).data & (pair.moving.data < -600)]))


def test_breathing_changes_density_as_its_determinant_says():
    volume, lungs = parenchyma()
    breathing = BreathingDeformation((-35.0, -30.0, -42.0), (35.0, 30.0, 42.0), amplitude_mm=8.0)
    dense = follow_volume(volume, breathing, lungs=lungs)
    rows = np.argwhere(lungs.data & (volume.data < -700))[::50]
    factor = breathing.jacobian_determinant(GRID.index_to_world(rows))
    expected = (volume.data[tuple(rows.T)] + 1000) / factor - 1000
    assert np.abs(dense.data[tuple(rows.T)] - expected).max() < 3
