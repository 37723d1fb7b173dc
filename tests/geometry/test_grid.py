"""Grids against nibabel, PyTorch and plain arithmetic, over all orientations."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import TURNS, grids, rotation

from meddift.errors import GeometryError
from meddift.geometry import Grid, flip_affine_ras_lps, flip_ras_lps
from meddift.volume import Volume

ALL_ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]
indices = st.lists(st.tuples(*[st.floats(-50, 90)] * 3), min_size=1, max_size=6).map(np.array)


@settings(max_examples=80, deadline=None)
@given(grids(), indices)
def test_points_go_to_the_world_and_back_as_nibabel_takes_them(grid, index):
    world = grid.index_to_world(index)
    np.testing.assert_allclose(world, nibabel.affines.apply_affine(grid.affine, index), atol=1e-9)
    np.testing.assert_allclose(grid.world_to_index(world), index, atol=1e-8)
    np.testing.assert_allclose(grid.spacing, nibabel.affines.voxel_sizes(grid.affine), rtol=1e-12)
    np.testing.assert_allclose(
        grid.obliqueness_degrees, np.degrees(nibabel.affines.obliquity(grid.affine)).max(), atol=1e-5
    )
    np.testing.assert_allclose(grid.index_to_world(index[0]), world[0])
    np.testing.assert_allclose(grid.index_to_world(index[:, None]), world[:, None])


@settings(max_examples=40, deadline=None)
@given(grids())
def test_planes_are_the_centres_one_plane_at_a_time(grid):
    index = np.stack(np.indices(grid.shape), -1)
    np.testing.assert_allclose(np.stack(list(grid.planes())), grid.index_to_world(index), atol=1e-8)


@settings(max_examples=80, deadline=None)
@given(grids())
def test_orientation_is_that_of_nibabel(grid):
    assert grid.orientation == "".join(nibabel.aff2axcodes(grid.affine))


@settings(max_examples=60, deadline=None)
@given(grids(largest=6), st.sampled_from(ALL_ORIENTATIONS))
def test_reoriented_is_that_of_nibabel(grid, wanted):
    data = np.random.default_rng(grid.size).normal(size=grid.shape)
    image = nibabel.Nifti1Image(data, grid.affine)
    target = nibabel.orientations.axcodes2ornt(tuple(wanted))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(grid.affine), target))
    new, axes, flips = grid.reoriented(wanted)
    assert new.orientation == wanted
    assert new.shape == turned.shape
    np.testing.assert_allclose(new.affine, turned.affine, atol=1e-9)
    by_hand = np.flip(data.transpose(axes), [i for i in range(3) if flips[i]])
    np.testing.assert_array_equal(by_hand, turned.get_fdata())
    volume = Volume(data, grid).reoriented(wanted)
    np.testing.assert_array_equal(volume.data, turned.get_fdata())
    assert volume.grid == new
    canonical = nibabel.as_closest_canonical(image)
    np.testing.assert_array_equal(Volume(data, grid).reoriented().data, canonical.get_fdata())
    np.testing.assert_allclose(grid.reoriented()[0].affine, canonical.affine, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(grids(largest=6), st.sampled_from(ALL_ORIENTATIONS))
def test_reorienting_moves_no_voxel_and_can_be_undone(grid, wanted):
    marked = np.moveaxis(grid.voxel_centers(), -1, 0)
    there = Volume(marked, grid).reoriented(wanted)
    np.testing.assert_allclose(np.moveaxis(there.data, 0, -1), there.grid.voxel_centers(), atol=1e-9)
    back = there.reoriented(grid.orientation)
    np.testing.assert_array_equal(back.data, marked)
    assert back.grid.same_as(grid, tolerance_mm=1e-9)


@pytest.mark.parametrize("bad", ["", "RA", "RAR", "RASS", "XYZ", "RLS", "RAs?"])
def test_a_wrong_orientation_is_refused(bad):
    with pytest.raises(GeometryError, match="orientation"):
        Grid((2, 2, 2), np.eye(4)).reoriented(bad)


def test_all_48_orientations_have_their_own_letters():
    affine = np.eye(4)
    seen = set()
    for turn in TURNS:
        affine[:3, :3] = rotation((0.2, -0.3, 0.25)) @ turn
        seen.add(Grid((2, 2, 2), affine).orientation)
    assert seen == set(ALL_ORIENTATIONS)


@settings(max_examples=60, deadline=None)
@given(grids(largest=9, smallest=2), st.tuples(*[st.integers(1, 17)] * 3))
def test_resized_is_the_lattice_of_torch_interpolate(grid, shape):
    """Linear interpolation of world coordinates gives world coordinates, where no border is repeated."""
    centres = np.moveaxis(grid.voxel_centers(), -1, 0)
    resized = F.interpolate(torch.from_numpy(centres)[None], size=shape, mode="trilinear", align_corners=False)[0]
    new = grid.resized(shape)
    assert new.shape == shape
    expected = np.moveaxis(new.voxel_centers(), -1, 0)
    index = grid.world_to_index(new.voxel_centers())
    inside = ((index >= -1e-9) & (index <= np.array(grid.shape) - 1 + 1e-9)).all(axis=-1)
    np.testing.assert_allclose(resized.numpy()[:, inside], expected[:, inside], atol=1e-8)
    np.testing.assert_allclose(new.extent, grid.extent, rtol=1e-12)
    np.testing.assert_allclose(new.center, grid.center, atol=1e-8)
    np.testing.assert_allclose(new.resized(grid.shape).affine, grid.affine, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(grids(largest=5), st.tuples(*[st.integers(1, 4)] * 3))
def test_downsampled_is_the_lattice_of_averaging_blocks(grid, factor):
    fine = grid.resized([n * f for n, f in zip(grid.shape, factor, strict=True)])
    centres = torch.from_numpy(np.moveaxis(fine.voxel_centers(), -1, 0))
    pooled = F.avg_pool3d(centres[None], factor, factor)[0].numpy()
    new = fine.downsampled(factor)
    np.testing.assert_allclose(np.moveaxis(new.voxel_centers(), -1, 0), pooled, atol=1e-8)


def test_downsampling_what_cannot_be_divided_is_refused():
    with pytest.raises(GeometryError, match="divided"):
        Grid((4, 5, 6), np.eye(4)).downsampled(2)


@settings(max_examples=40, deadline=None)
@given(grids(largest=12), st.tuples(*[st.integers(1, 5)] * 3))
def test_strided_is_slicing(grid, step):
    centres = grid.voxel_centers()[:: step[0], :: step[1], :: step[2]]
    new = grid.strided(step)
    assert new.shape == centres.shape[:3]
    np.testing.assert_allclose(new.voxel_centers(), centres, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(grids(largest=7), st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_cropping_keeps_every_voxel_where_it_was(grid, start, shape):
    marked = np.arange(1.0, grid.size + 1).reshape(grid.shape)
    cut = Volume(marked, grid).cropped(start, shape, fill=-5.0)
    assert cut.grid.shape == shape
    index = np.round(grid.world_to_index(cut.grid.voxel_centers())).astype(int)
    np.testing.assert_allclose(grid.index_to_world(index), cut.grid.voxel_centers(), atol=1e-8)
    inside = ((index >= 0) & (index < grid.shape)).all(axis=-1)
    expected = np.full(shape, -5.0)
    expected[inside] = marked[tuple(index[inside].T)]
    np.testing.assert_array_equal(cut.data, expected)


@settings(max_examples=40, deadline=None)
@given(grids(), st.sampled_from([1, 2, 16, 32]))
def test_padding_puts_the_old_lattice_inside_the_new_one(grid, multiple):
    new, before = grid.padded_to_multiple(multiple)
    for n, old, b in zip(new.shape, grid.shape, before, strict=True):
        assert n % multiple == 0
        assert 0 <= n - old < multiple
        assert n - old - 2 * b in (0, 1)  # both sides alike; the odd voxel comes last
    np.testing.assert_allclose(new.index_to_world(before), grid.origin, atol=1e-8)
    assert new.cropped(before, grid.shape).same_as(grid, tolerance_mm=1e-8)


@settings(max_examples=80, deadline=None)
@given(grids(), st.tuples(*[st.floats(0.3, 9.0)] * 3))
def test_respaced_covers_the_same_field_of_view_around_the_same_middle(grid, spacing):
    new = grid.respaced(spacing)
    np.testing.assert_allclose(new.spacing, spacing, rtol=1e-9)
    np.testing.assert_allclose(new.center, grid.center, atol=1e-7)
    np.testing.assert_allclose(new.direction, grid.direction, atol=1e-9)
    slack = 1e-4 * np.array(spacing) + 1e-9
    assert (new.extent >= grid.extent - slack).all()
    # One voxel fewer would not cover it.
    assert ((new.extent - spacing < grid.extent) | (np.array(new.shape) == 1)).all()


def test_respacing_to_the_spacing_it_has_changes_nothing():
    affine = np.diag([1.9999999, 2.0000001, 2.0, 1.0])
    assert Grid((180, 181, 3), affine).respaced(2.0).shape == (180, 181, 3)


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_spacing_is_refused(spacing):
    with pytest.raises(GeometryError, match="positive"):
        Grid((2, 2, 2), np.eye(4)).respaced(spacing)


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, -1, 4)])
def test_an_impossible_size_is_refused(shape):
    grid = Grid((4, 4, 4), np.eye(4))
    with pytest.raises(GeometryError):
        grid.resized(shape)
    with pytest.raises(GeometryError):
        grid.cropped((0, 0, 0), shape)


@settings(max_examples=60, deadline=None)
@given(grids(largest=12), st.data())
def test_the_field_of_view_ends_at_the_outer_faces(grid, data):
    axis = data.draw(st.integers(0, 2))
    last = np.array(grid.shape) - 1
    index = np.array(data.draw(st.tuples(*[st.floats(0, 1)] * 3))) * last
    step = 1e-3 / grid.spacing[axis]
    for face, inward in ((-0.5, step), (last[axis] + 0.5, -step)):
        index[axis] = face
        assert grid.contains(grid.index_to_world(index))
        index[axis] = face + inward
        assert grid.contains(grid.index_to_world(index))
        index[axis] = face - inward
        assert not grid.contains(grid.index_to_world(index))
        assert grid.contains(grid.index_to_world(index), margin_mm=-0.01)
        index[axis] = face + 2 * inward
        assert not grid.contains(grid.index_to_world(index), margin_mm=0.01)


def test_a_point_that_is_nowhere_is_not_inside():
    inside = Grid((3, 3, 3), np.eye(4)).contains([[np.nan] * 3, [1, 1, 1], [1, np.nan, 1]])
    np.testing.assert_array_equal(inside, [False, True, False])


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((4, 4), np.eye(4)),
        ((4, 4, 0), np.eye(4)),
        ((4, 4, 4), np.eye(3)),
        ((4, 4, 4), np.diag([1, 1, 0, 1])),
        ((4, 4, 4), np.diag([1, np.nan, 1, 1])),
        ((4, 4, 4), np.diag([1, 1, 1, 2])),
        ((4, 4, 4), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
    ],
)
def test_impossible_lattices_are_refused(shape, affine):
    with pytest.raises(GeometryError):
        Grid(shape, affine)


def test_a_grid_cannot_be_changed_from_outside():
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 7
    assert grid.origin[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
    grid.origin[0] = 5
    assert grid.origin[0] == 0


@settings(max_examples=40, deadline=None)
@given(grids(), st.floats(0.01, 3.0))
def test_equal_grids_are_equal(grid, shift):
    same = Grid(grid.shape, grid.affine.copy())
    assert grid == same
    assert hash(grid) == hash(same)
    moved = grid.affine.copy()
    moved[1, 3] += shift
    assert grid != Grid(grid.shape, moved)
    assert not grid.same_as(Grid(grid.shape, moved), tolerance_mm=shift * 0.9)
    assert grid.same_as(Grid(grid.shape, moved), tolerance_mm=shift * 1.1)
    assert grid != "grid"


def test_shear_is_the_cosine_between_axes():
    affine = np.eye(4)
    affine[:3, 1] = [np.cos(np.radians(80)), np.sin(np.radians(80)), 0]
    assert Grid((2, 2, 2), affine).shear == pytest.approx(np.cos(np.radians(80)))
    assert Grid((2, 2, 2), np.diag([-1, 2, 3, 1.0])).shear == 0


@settings(max_examples=30, deadline=None)
@given(grids())
def test_lps_is_ras_with_two_signs_turned(grid):
    index = np.random.default_rng(0).uniform(-3, 30, (5, 3))
    in_lps = nibabel.affines.apply_affine(flip_affine_ras_lps(grid.affine), index)
    np.testing.assert_allclose(in_lps, grid.index_to_world(index) * [-1, -1, 1], atol=1e-9)
    np.testing.assert_allclose(flip_ras_lps(in_lps), grid.index_to_world(index), atol=1e-9)


def test_volume_of_a_voxel_is_the_determinant_of_its_edges():
    affine = np.eye(4)
    affine[:3, :3] = [[0.0, -2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.5]]
    assert Grid((4, 5, 6), affine).voxel_volume == pytest.approx(3.0)


def test_its_text_says_geometry_in_words() -> None:
    assert repr(Grid((4, 5, 6), np.diag([-1.0, -2.0, 3.0, 1.0]))) == (
        "Grid(4x5x6, 1 x 2 x 3 mm, origin RAS (0.00, 0.00, 0.00) mm, LPS)"
    )
