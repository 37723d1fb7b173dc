"""How a grid reads a level, against PyTorch; maps against exact search; where a grid lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.errors import GeometryError, OptionsError
from meddift.features import Level, Pyramid
from meddift.geometry import Grid, read_axes
from meddift.matching import GlobalSearch, SearchIndex, search_grid, search_maps, similarity_maps


def turned(spacing, angle=0.3):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] *= spacing
    affine[:3, 3] = [-300.0, 120.5, 940.0]
    return affine


sizes = st.tuples(*[st.integers(1, 13)] * 3)
spacings = st.tuples(*[st.floats(0.5, 5.0)] * 3)


def read(values, readings):
    """Apply the three readings to (X, Y, Z) values through their matrices."""
    for axis, reading in enumerate(readings):
        first, weights = reading.windows(np.arange(len(reading.low))[None])
        part = np.take(values, first[0] + np.arange(weights.shape[2]), axis=axis)
        along = reading.read(torch.from_numpy(values), axis).numpy()
        values = np.moveaxis(np.moveaxis(part, axis, -1) @ weights[0].T.astype(np.float64), -1, axis)
        np.testing.assert_allclose(along, values, atol=1e-5)
    return values


@settings(max_examples=80, deadline=None)
@given(sizes, sizes, spacings)
def test_reading_over_the_same_field_of_view_is_torch_interpolate(shape, level_shape, spacing):
    lattice = Grid(shape, turned(spacing))
    values = np.random.default_rng(0).normal(size=level_shape)
    expected = F.interpolate(torch.from_numpy(values)[None, None], size=shape, mode="trilinear", align_corners=False)[
        0, 0
    ].numpy()
    np.testing.assert_allclose(read(values, read_axes(lattice, lattice.resized(level_shape))), expected, atol=2e-5)


@settings(max_examples=80, deadline=None)
@given(sizes, sizes, spacings, spacings, st.tuples(*[st.floats(-20, 20)] * 3))
def test_reading_anywhere_is_torch_grid_sample_clamped_at_the_border(shape, level_shape, spacing, other, shift):
    lattice = Grid(shape, turned(spacing))
    affine = turned(other)
    affine[:3, 3] += shift
    level = Grid(level_shape, affine)
    values = np.random.default_rng(1).normal(size=level_shape)
    index = level.world_to_index(lattice.voxel_centers())
    place = torch.from_numpy(2 * (index + 0.5) / np.array(level_shape) - 1)[None][..., [2, 1, 0]]
    expected = F.grid_sample(torch.from_numpy(values)[None, None], place, padding_mode="border", align_corners=False)[
        0, 0
    ].numpy()
    np.testing.assert_allclose(read(values, read_axes(lattice, level)), expected, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, spacings, st.data())
def test_windows_read_what_the_whole_lattice_reads(shape, level_shape, spacing, data):
    lattice = Grid(shape, turned(spacing))
    reading = read_axes(lattice, lattice.resized(level_shape))[0]
    length = data.draw(st.integers(1, shape[0]))
    start = np.arange(shape[0] - length + 1)
    first, weights = reading.windows(start[:, None] + np.arange(length))
    np.testing.assert_allclose(weights.sum(axis=2), 1, atol=1e-6)
    assert (first >= 0).all()
    assert (first + weights.shape[2] <= level_shape[0]).all()
    line = np.random.default_rng(2).normal(size=level_shape[0])
    everything = reading.read(torch.from_numpy(line), 0).numpy()
    for begin, low, weight in zip(start, first, weights, strict=True):
        read_there = weight @ line[low : low + weights.shape[2]]
        np.testing.assert_allclose(read_there, everything[begin : begin + length], atol=1e-5)


@pytest.mark.parametrize("affine", [turned((2, 2, 2), 0.31), np.diag([-1, 1, 1, 1.0])])
def test_other_axes_are_refused(affine):
    with pytest.raises(GeometryError, match="axes"):
        read_axes(Grid((50, 50, 50), turned((2.0, 2.0, 2.0))), Grid((20, 20, 20), affine))


def random_pyramid(generator, image_shape=(21, 18, 15), sizes=((3, 3, 2), (6, 5, 4), (21, 18, 15))):
    grid = Grid(image_shape, turned((1.6, 2.2, 3.0)))
    levels = [
        Level(f"up{i}", generator.standard_normal((*size, 6 + i)).astype(np.float32), grid.resized(size), 1.0 + i)
        for i, size in enumerate(sizes)
    ]
    return Pyramid(tuple(levels), grid, grid, "0" * 64)


@pytest.mark.parametrize("on_card", [True, False])
@pytest.mark.parametrize("kind", ["image", "network", "up0", "up1", "up2"])
def test_looking_everywhere_finds_what_exact_search_finds(kind, on_card, monkeypatch):
    """As a processor does it, and as a graphics card."""
    monkeypatch.setattr("meddift.matching.maps._on_card", lambda _: on_card)
    generator = np.random.default_rng(6)
    pyramid = random_pyramid(generator)
    index = SearchIndex(pyramid, search_grid(pyramid, kind=kind))
    positions = pyramid.image_grid.index_to_world(generator.uniform(0, 14, (30, 3)))
    queries = index.describe(positions)
    everywhere, exact = search_maps(index, queries, exclusion_mm=7.0), GlobalSearch(index, exclusion_mm=7.0)(queries)
    np.testing.assert_array_equal(everywhere.voxels, exact.voxels)
    np.testing.assert_allclose(everywhere.similarity, exact.similarity, atol=2e-6)
    np.testing.assert_allclose(everywhere.rival, exact.rival, atol=2e-6)
    maps = similarity_maps(index, queries)
    assert maps.shape == (30, *index.grid.shape)
    assert maps.max() <= 1 + 1e-5
    # A point at a voxel of the grid is like itself, and like nothing else.
    own = similarity_maps(index, index.describe(index.grid.index_to_world([[1, 1, 1]])))[0]
    assert own[1, 1, 1] == pytest.approx(1.0, abs=1e-5)
    assert own.argmax() == np.ravel_multi_index((1, 1, 1), own.shape)


def test_batches_do_not_change_a_map(monkeypatch):
    from meddift.matching import maps

    generator = np.random.default_rng(7)
    pyramid = random_pyramid(generator)
    index = SearchIndex(pyramid, pyramid.image_grid)
    queries = index.describe(pyramid.image_grid.index_to_world(generator.uniform(0, 14, (9, 3))))
    whole = search_maps(index, queries)
    monkeypatch.setattr(maps, "BATCH_BYTES", 1)
    parts = search_maps(index, queries)
    np.testing.assert_array_equal(whole.voxels, parts.voxels)
    np.testing.assert_allclose(whole.rival, parts.rival, atol=1e-6)


def test_the_padding_of_the_network_is_not_searched():
    image = Grid((30, 20, 17), turned((2.0, 2.0, 2.0)))
    network, before = image.respaced(2.0).padded_to_multiple(16)
    features = np.zeros((*network.shape, 2), dtype=np.float32)
    pyramid = Pyramid((Level("mind", features, network),), image, network, "0" * 64)
    for kind in ("network", "mind"):
        lattice = search_grid(pyramid, kind=kind)
        assert lattice.shape == (30, 20, 17)
        np.testing.assert_allclose(lattice.origin, network.index_to_world(before), atol=1e-9)
    with pytest.raises(OptionsError, match="no level"):
        search_grid(pyramid, kind="up7")


def test_levels_that_all_weigh_nothing_cannot_be_compared():
    grid = Grid((3, 3, 3), np.eye(4))
    level = Level("up0", np.ones((3, 3, 3, 2), dtype=np.float32), grid, 0.0)
    with pytest.raises(OptionsError, match="weight"):
        _ = SearchIndex(Pyramid((level,), grid, grid, "0" * 64), grid).levels
