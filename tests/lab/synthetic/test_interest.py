from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from meddift.body import body_mask, lung_mask
from meddift.errors import NoCorrespondenceError, OptionsError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import SmallRotation, distinctiveness, pick_points
from meddift_lab.synthetic.interest import thin


def oblique_grid() -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = SmallRotation((8.0, -6.0, 10.0)).matrix @ np.diag([-2.5, -2.5, 3.0])
    affine[:3, 3] = -affine[:3, :3] @ np.array([44.5, 39.5, 29.5])
    return Grid((90, 80, 60), affine)


def upright_grid() -> Grid:
    affine = np.diag([2.5, 2.5, 3.0, 1.0])
    affine[:3, 3] = [-111.25, -98.75, -88.5]
    return Grid((90, 80, 60), affine)


def torso(grid: Grid) -> tuple[Volume, np.ndarray, np.ndarray]:
    """CT, body and lungs of a simple chest: the truth of the masks is how it was made."""
    x, y, z = np.moveaxis(grid.voxel_centers(), -1, 0)
    body = (x / 95) ** 2 + (y / 65) ** 2 < 1
    lungs = np.zeros_like(body)
    data = np.full(grid.shape, -1000.0)
    data[body] = 40
    for side in (-1, 1):
        lobe = ((x - side * 45) / 32) ** 2 + (y / 42) ** 2 + (z / 60) ** 2 < 1
        lungs |= lobe
        data[lobe] = -850
    for x0, y0, z0 in [(45, 0, 0), (50, 15, 20), (-45, -10, -20), (-40, 10, 25), (-50, 0, 0)]:
        data[(x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2 < 30] = 45
    data[(y < -75) & (y > -85)] = 200
    return Volume(data.astype(np.int16), grid), body, lungs


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("grid", [upright_grid(), upright_grid().reoriented("LPS")[0], oblique_grid()])
def test_masks_on_any_grid(grid):
    volume, body, lungs = torso(grid)
    found = body_mask(volume)
    assert found.grid == grid
    assert overlap(found.data, body) > 0.97
    assert overlap(lung_mask(volume).data, lungs) > 0.95


def test_masks_do_not_depend_on_voxel_order():
    volume, _, _ = torso(upright_grid())
    for orientation in ("LPS", "SAR", "IPL"):
        turned = volume.reoriented(orientation)
        assert np.array_equal(lung_mask(turned).reoriented("RAS").data, lung_mask(volume).data)
        assert np.array_equal(body_mask(turned).reoriented("RAS").data, body_mask(volume).data)


def test_fine_grids_are_thinned_out_and_come_back_in_place():
    coarse, _, _ = torso(upright_grid())
    fine = Volume(np.repeat(np.repeat(coarse.data, 3, 0), 3, 1), coarse.grid.resized((270, 240, 60)))
    found, plain = lung_mask(fine), lung_mask(coarse)
    assert overlap(found.data, np.repeat(np.repeat(plain.data, 3, 0), 3, 1)) > 0.97
    centre = [v.grid.index_to_world(np.argwhere(v.data)).mean(0) for v in (found, plain)]
    assert np.linalg.norm(centre[0] - centre[1]) < 0.6


def test_the_operator_prefers_corners_to_edges_to_planes():
    grid = Grid((40, 40, 40), np.eye(4))
    data = np.full(grid.shape, -800.0)
    data[15:, 15:, 15:] = 0
    score = distinctiveness(Volume(data, grid)).data
    corner, edge, plane, flat = score[15, 15, 15], score[15, 15, 30], score[15, 30, 30], score[5, 5, 5]
    assert corner > 20 * edge
    assert corner > 100 * plane
    assert flat < 1e-3 * corner


def test_the_operator_agrees_with_a_matrix_inverse_and_with_a_rotated_grid():
    generator = np.random.default_rng(0)
    upright = upright_grid().cropped([20, 20, 20], [30, 30, 20])
    centers = generator.uniform(-15, 15, (12, 3)) + upright.center

    def scan(grid: Grid) -> Volume:
        world = grid.voxel_centers()
        total = sum(np.exp(-((world - c) ** 2).sum(-1) / (2 * 7.0**2)) for c in centers)
        return Volume((total * 100 - 500).astype(np.float32), grid)

    turned = Grid((60, 60, 60), oblique_grid().affine @ np.diag([0.7, 0.7, 0.6, 1.0]))
    turned = Grid(turned.shape, turned.affine + np.pad((upright.center - turned.center)[:, None], ((0, 1), (3, 0))))
    here = distinctiveness(scan(upright), sigma_mm=4.0)
    there = distinctiveness(scan(turned), sigma_mm=4.0)
    places = upright.center + generator.uniform(-10, 10, (200, 3))
    assert np.corrcoef(here.at(places), there.at(places))[0, 1] > 0.99
    assert np.abs(np.log(here.at(places) / there.at(places))).mean() < 0.1


def test_vessel_points_sit_on_vessels_inside_the_lungs():
    volume, _, lungs = torso(upright_grid())
    points = pick_points(volume, 5, kind="vessels", min_distance_mm=20)
    balls = np.array([(45, 0, 0), (50, 15, 20), (-45, -10, -20), (-40, 10, 25), (-50, 0, 0)])
    away = np.linalg.norm(points.positions[:, None] - balls[None], axis=-1).min(1)
    assert len(points) == 5
    assert away.max() < 9
    assert Volume(lungs.astype(float), volume.grid).at(points.positions).min() > 0.5


@pytest.mark.parametrize("kind", ["vessels", "body", "lattice"])
def test_points_keep_their_distance_and_repeat(kind):
    volume, body, _ = torso(upright_grid())
    points = pick_points(volume, 30, kind=kind, seed=3, min_distance_mm=12.0)
    again = pick_points(volume, 30, kind=kind, seed=3, min_distance_mm=12.0)
    assert np.array_equal(points.positions, again.positions)
    assert points.labels[0] == f"{kind}-1"
    assert 1 < len(points) <= 30
    assert pdist(points.positions).min() >= 12.0 - 1e-6
    assert Volume(body.astype(float), volume.grid).at(points.positions).min() > 0.99


@pytest.mark.parametrize("kind", ["body", "lattice"])
def test_as_many_points_as_asked_for(kind):
    volume, _, _ = torso(oblique_grid())
    assert len(pick_points(volume, 200, kind=kind, seed=1)) == 200
    first, second = (pick_points(volume, 50, kind=kind, seed=s).positions for s in (1, 2))
    assert np.abs(first - second).max() > 1


def test_thinning_agrees_with_brute_force():
    positions = np.random.default_rng(0).uniform(0, 50, (300, 3))
    kept: list[int] = []
    for row, position in enumerate(positions):
        if all(np.linalg.norm(position - positions[k]) >= 9 for k in kept):
            kept.append(row)
    assert thin(positions, 1000, 9.0).tolist() == kept
    assert thin(positions, 4, 9.0).tolist() == kept[:4]
    assert thin(np.zeros((0, 3)), 4, 9.0).tolist() == []


def test_scans_without_lungs_are_said_to_have_none():
    grid = upright_grid()
    water = Volume(np.where(torso(grid)[1], 40, -1000).astype(np.int16), grid)
    assert not lung_mask(water).data.any()
    with pytest.raises(NoCorrespondenceError, match="lungs"):
        pick_points(water, 10)
    assert len(pick_points(water, 10, kind="body")) == 10
    with pytest.raises(NoCorrespondenceError, match="body"):
        pick_points(Volume(np.full(grid.shape, -1000, np.int16), grid), 10, kind="body")
    with pytest.raises(OptionsError, match="kind"):
        pick_points(water, 10, kind="bones")
    with pytest.raises(OptionsError, match="at least one"):
        pick_points(water, 0)
