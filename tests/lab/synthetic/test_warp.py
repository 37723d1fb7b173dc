from __future__ import annotations

import numpy as np
import pytest

from meddift.errors import ImageError, OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import (
    BreathingDeformation,
    LocalWarps,
    SmallRotation,
    TableShift,
    compose,
    deform_volume,
    random_transform,
)
from meddift_lab.synthetic.warp import InverseField

LOW, HIGH = (-45.0, -45.0, -45.0), (45.0, 45.0, 45.0)
MOTION = compose(
    BreathingDeformation(LOW, HIGH, amplitude_mm=12.0, fade_mm=60.0),
    LocalWarps.random(5, low=LOW, high=HIGH, amplitude_mm=4.0, width_mm=35.0),
    SmallRotation((3.0, -2.0, 4.0)),
    TableShift((4.0, -3.0, 9.0)),
)


def centred(shape, spacing, rotation=None, flips=(1, 1, 1)) -> Grid:
    matrix = (np.eye(3) if rotation is None else rotation) @ np.diag(np.multiply(spacing, flips))
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


OBLIQUE = SmallRotation((12.0, -17.0, 25.0)).matrix
GRIDS = {
    "RAS": centred((60, 60, 60), (2.0, 2.0, 2.0)),
    "LPS": centred((60, 60, 60), (2.0, 2.0, 2.0), flips=(-1, -1, 1)),
    "permuted": centred((60, 60, 60), (2.0, 2.0, 2.0), rotation=np.eye(3)[[2, 0, 1]], flips=(1, -1, 1)),
    "oblique anisotropic": centred((80, 75, 50), (1.5, 1.6, 2.5), rotation=OBLIQUE, flips=(-1, 1, 1)),
}


def blobs(grid: Grid, centers: np.ndarray, sigma: float = 3.5) -> Volume:
    world = grid.voxel_centers()
    data = sum(np.exp(-((world - c) ** 2).sum(-1) / (2 * sigma**2)) for c in centers) * 2000 - 1000
    return Volume(data.astype(np.float32), grid)


def centroid(volume: Volume, near: np.ndarray, radius: float = 13.0) -> np.ndarray:
    world = volume.grid.voxel_centers()
    weight = np.where(((world - near) ** 2).sum(-1) < radius**2, volume.data + 1000.0, 0)
    return (world * weight[..., None]).sum((0, 1, 2)) / weight.sum()


@pytest.mark.parametrize("fixed_name", GRIDS)
@pytest.mark.parametrize("order", [1, 3])
def test_bright_blobs_land_where_the_transform_says_under_rigid_motion(fixed_name, order):
    # A rigid motion keeps blobs round, so their centroid is where their centre went.
    rigid = compose(SmallRotation((5.0, -8.0, 12.0)), TableShift((4.3, -3.1, 7.7)))
    centers = np.array([[0.0, 0.0, 0.0], [22.0, -18.0, 13.0], [-20.0, 15.0, -24.0]])
    fixed = blobs(GRIDS[fixed_name], centers)
    for grid_out in GRIDS.values():
        moving = deform_volume(fixed, rigid, grid_out, order=order)
        assert moving.grid == grid_out
        for goal in rigid.apply(centers):
            assert np.linalg.norm(centroid(moving, goal) - goal) < 0.1


def test_values_are_those_of_the_closed_form_under_a_bent_motion():
    centers = np.array([[0.0, 5.0, 0.0], [20.0, -15.0, 12.0], [-20.0, 15.0, -20.0]])
    fixed = blobs(GRIDS["RAS"], centers)
    for grid in GRIDS.values():
        moving = deform_volume(fixed, MOTION, grid)
        index = np.random.default_rng(0).integers(0, grid.shape, (20000, 3))
        source = MOTION.inverse_apply(grid.index_to_world(index))
        exact = sum(np.exp(-((source - c) ** 2).sum(-1) / (2 * 3.5**2)) for c in centers) * 2000 - 1000
        inside = GRIDS["RAS"].contains(source, margin_mm=6)
        # The blob falls by up to 350 HU a mm: 20 HU are less than 0.06 mm.
        assert np.abs(moving.data[tuple(index.T)] - exact)[inside].max() < 20


def test_the_coarse_lattice_costs_less_than_a_twentieth_of_a_mm():
    # An adult's chest on an oblique grid, breathing deeply.
    motion = random_transform(1, lung_low=(-120, -60, -115), lung_high=(120, 115, 130), amplitude_mm=50, local_mm=8)
    grid = centred((90, 75, 60), (4.0, 4.0, 5.0), rotation=OBLIQUE, flips=(-1, 1, 1))
    index = np.random.default_rng(0).integers(0, grid.shape, (20000, 3))
    found = InverseField(motion, grid, lattice_mm=8.0).slab(0, grid.shape[0])[:, *index.T].T
    assert np.linalg.norm(found - motion.inverse_apply(grid.index_to_world(index)), axis=-1).max() < 0.05


def test_standing_still_keeps_every_voxel():
    grid = GRIDS["RAS"].cropped([0, 0, 0], [21, 18, 25])
    volume = Volume(np.random.default_rng(0).integers(-1000, 2000, grid.shape).astype(np.int16), grid)
    for order in (1, 3):
        still = deform_volume(volume, TableShift((0.0, 0.0, 0.0)), order=order)
        assert still.data.dtype == np.int16
        assert np.abs(still.data.astype(int) - volume.data).max() <= 1


def test_beyond_the_field_of_view_is_air():
    grid = GRIDS["RAS"]
    moving = deform_volume(Volume(np.full(grid.shape, 40, np.int16), grid), TableShift((20.0, 0.0, 0.0)))
    assert (moving.data[:10] == -1000).all()
    assert (moving.data[10:] == 40).all()


def test_slabs_make_no_difference(monkeypatch):
    volume = blobs(GRIDS["LPS"], np.zeros((1, 3)))
    whole = deform_volume(volume, MOTION)
    monkeypatch.setattr("meddift_lab.synthetic.warp.VOXELS_AT_ONCE", 60 * 60 * 7)
    assert np.array_equal(deform_volume(volume, MOTION).data, whole.data)


def test_cubic_interpolation_blurs_less_than_linear():
    # A pattern that can be shifted exactly: sines of 5 voxels' length, and half a voxel.
    grid = GRIDS["RAS"]

    def wave(world):
        return 300 * np.sin(world[..., 0] * 2 * np.pi / 10) * np.cos(world[..., 1] * 2 * np.pi / 10)

    volume = Volume(wave(grid.voxel_centers()).astype(np.float32), grid)
    shift = TableShift((1.0, 1.0, 0.0))
    exact = wave(shift.inverse_apply(grid.voxel_centers()))
    inner = (slice(8, -8),) * 3
    error = {k: np.abs(deform_volume(volume, shift, order=k).data - exact)[inner].max() for k in (1, 3)}
    assert error[3] < 10
    assert error[1] > 5 * error[3]


def test_bad_arguments_are_refused():
    grid = GRIDS["RAS"]
    with pytest.raises(ImageError, match="shape"):
        deform_volume(Volume(np.zeros((2, *grid.shape)), grid), MOTION)
    with pytest.raises(OptionsError, match="order"):
        deform_volume(Volume(np.zeros(grid.shape), grid), MOTION, order=2)
