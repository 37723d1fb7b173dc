"""Diameters and volumes against closed forms of spheres and ellipsoids."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from meddift.geometry import Grid
from meddift.tracking.calipers import convex_hull, diameters_of
from meddift.tracking.measures import measure, slice_axis
from meddift.volume import Volume


def oblique(spacing, seed=0, degrees=20.0, reach=17.0):
    """A grid around the origin, turned about a random axis."""
    generator = np.random.default_rng(seed)
    axis = generator.normal(size=3)
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    shape = tuple(int(2 * np.ceil(reach / s)) + 1 for s in spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2) + generator.uniform(-0.5, 0.5, 3) * spacing
    return Grid(shape, affine)


def ellipsoid(grid, half_axes, directions):
    """Voxels whose centres lie in an ellipsoid about the origin; `directions` holds its axes as columns."""
    places = grid.voxel_centers() @ directions / half_axes
    return np.argwhere((places**2).sum(-1) <= 1)


@pytest.mark.parametrize("diameter", [3.0, 6.0, 10.0, 18.0, 30.0])
@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (0.7, 0.7, 2.5), (1.0, 1.0, 5.0), (2.0, 2.0, 2.0)])
def test_sphere(diameter, spacing):
    if diameter < 2 * min(spacing):
        pytest.skip("a ball of one voxel")
    errors, short, volumes = [], [], []
    for seed in range(5):
        grid = oblique(spacing, seed, reach=diameter / 2 + 2)
        voxels = ellipsoid(grid, np.full(3, diameter / 2), np.eye(3))
        if len(voxels) == 0:
            continue  # it fell between two slices
        found = measure(voxels, grid)
        # The slice nearest to the middle cuts a disc, whose diameter is known.
        height = np.abs(grid.index_to_world(voxels) @ grid.direction[:, 2]).min()
        cut = 2 * np.sqrt((diameter / 2) ** 2 - height**2)
        errors.append(found.long_mm - cut)
        short.append(found.short_mm - cut)
        volumes.append(found.volume_mm3)
    half_a_voxel = np.hypot(spacing[0], spacing[1]) / 2
    assert np.abs(errors).max() <= half_a_voxel
    assert np.abs(np.mean(short)) <= half_a_voxel
    if diameter > spacing[2]:
        # Balls that fell between two slices count as nothing.
        volume = sum(volumes) / 5
        assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.3 if diameter < 8 else 0.08)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.25), (0.8, 0.8, 5.0)])
@pytest.mark.parametrize(("long", "short"), [(12.0, 7.0), (30.0, 20.0)])
def test_ellipsoid_in_the_plane_of_acquisition(spacing, long, short):
    errors = []
    for seed in range(10):
        grid = oblique(spacing, seed)
        angle = np.random.default_rng(seed).uniform(0, np.pi)
        c, s = np.cos(angle), np.sin(angle)
        in_plane = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        # Very long along the normal: every slice cuts nearly the same ellipse.
        voxels = ellipsoid(grid, np.array([long / 2, short / 2, 18.0]), grid.direction @ in_plane)
        found = measure(voxels, grid)
        errors.append((found.long_mm - long, found.short_mm - short))
    assert np.abs(np.mean(errors, axis=0)).max() <= spacing[0] / 2
    # One lesion in one position: the voxels at its two ends may each be off by half of one.
    assert np.abs(errors).max() <= spacing[0] * np.sqrt(2)


def test_the_same_in_all_48_orders_of_the_axes():
    grid = oblique((0.7, 0.7, 2.5), 3, reach=11)
    directions = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    voxels = ellipsoid(grid, np.array([9.0, 6.0, 4.0]), directions)
    mask = np.zeros(grid.shape, bool)
    mask[tuple(voxels.T)] = True
    reference = measure(voxels, grid)
    count = 0
    for letters in itertools.permutations(["RL", "AP", "SI"]):
        for picks in itertools.product((0, 1), repeat=3):
            turned = Volume(mask, grid).reoriented("".join(pair[i] for pair, i in zip(letters, picks, strict=True)))
            found = measure(np.argwhere(turned.data), turned.grid)
            for name in ("long_mm", "short_mm", "volume_mm3", "slice_mm"):
                assert getattr(found, name) == pytest.approx(getattr(reference, name), abs=1e-9)
            np.testing.assert_allclose(found.center, reference.center, atol=1e-9)
            count += 1
    assert count == 48


def test_ends_of_the_diameters_lie_where_the_lesion_is():
    grid = oblique((0.8, 0.8, 2.0), 5, reach=12)
    voxels = ellipsoid(grid, np.array([10.0, 5.0, 5.0]), grid.direction)
    found = measure(voxels, grid)
    assert np.linalg.norm(found.long_ends[0] - found.long_ends[1]) == pytest.approx(found.long_mm)
    assert np.linalg.norm(found.short_ends[0] - found.short_ends[1]) == pytest.approx(found.short_mm)
    along = (found.long_ends[1] - found.long_ends[0]) / found.long_mm
    across = (found.short_ends[1] - found.short_ends[0]) / found.short_mm
    assert abs(along @ across) < 1e-9
    assert abs(along @ grid.direction[:, 0]) > 0.98
    index = grid.world_to_index(np.concatenate([found.long_ends, found.short_ends]))
    assert np.abs(index - np.round(index))[:, 2].max() < 1e-9  # in one slice
    assert np.linalg.norm(found.long_ends.mean(axis=0) - found.center) < 2.0


def test_longest_diameter_against_all_pairs_of_corners():
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = generator.integers(0, 12, size=(generator.integers(3, 40), 2)).astype(float)
        points = np.concatenate([points, points + np.array([0.3, 0.9])])  # never all on one line
        hull = convex_hull(points)
        assert diameters_of(hull).long == pytest.approx(pdist(points).max())


def test_short_axis_is_the_longest_chord_across():
    # A right triangle: the longest side is 5; the chord across it is longest at the right angle: 3 * 4 / 5.
    found = diameters_of(np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]]))
    assert (found.long, found.short) == (pytest.approx(5.0), pytest.approx(2.4))
    # A square: along its diagonal, so the other diagonal.
    found = diameters_of(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
    assert (found.long, found.short) == (pytest.approx(2**0.5), pytest.approx(2**0.5))


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((0.7, 0.7, 5.0), 2), ((5.0, 0.7, 0.7), 0), ((0.98, 0.8, 0.98), 1), ((1.0, 1.0, 1.0), 2), ((0.5, 0.6, 3.0), 2)],
)
def test_which_axis_runs_from_slice_to_slice(spacing, axis):
    assert slice_axis(Grid((9, 9, 9), np.diag([*spacing, 1.0]))) == axis


def test_equal_spacings_are_cut_across_the_body():
    affine = np.eye(4)[:, [2, 0, 1, 3]]  # the first index axis runs along S
    assert slice_axis(Grid((9, 9, 9), affine)) == 0


def test_a_single_voxel_and_mean_hu_and_the_border():
    grid = Grid((10, 10, 10), np.diag([2.0, 2.0, 3.0, 1.0]))
    scan = Volume(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), grid)
    inner = measure(np.array([[4, 5, 6]]), grid, scan=scan)
    assert inner.hu_mean == 456
    assert inner.volume_mm3 == pytest.approx(12.0)
    assert inner.slice_mm == 3.0
    assert inner.one_slice
    assert not inner.at_border
    assert 0 < inner.short_mm <= inner.long_mm < 2.9  # within the diagonal of the pixel
    assert measure(np.array([[4, 5, 9]]), grid, scan=scan).at_border


def test_a_mask_on_finer_voxels_is_measured_in_the_slices_of_the_scan():
    scan = Volume(np.zeros((20, 20, 20), np.int16), Grid((20, 20, 20), np.diag([1.0, 2.0, 1.0, 1.0])))
    fine = Grid((40, 80, 40), np.diag([0.5, 0.5, 0.5, 1.0]))
    voxels = np.argwhere(np.ones((12, 30, 4), bool)) + 5
    found = measure(voxels, fine, scan=scan)
    # Slices run along y in the scan: the plane is x, z; 6 by 2 mm.
    assert found.long_mm == pytest.approx(np.hypot(6.0, 2.0), abs=0.5)
    assert found.slice_mm == 2.0
