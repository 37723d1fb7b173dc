"""The sampler against SciPy, PyTorch, finite differences and its own adjoint, on grids of every orientation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import TURNS, grids
from scipy import ndimage

from meddift.errors import GeometryError
from meddift.geometry import Grid, as_type, nearest, sample, sample_with_gradient
from meddift.geometry.sampling import CHUNK
from meddift.volume import Volume

shapes = st.tuples(*[st.integers(1, 7)] * 3)
seeds = st.integers(0, 2**32 - 1)


def made(shape, seed, *, channels=3, count=40):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(channels, *shape)), generator.uniform(-2, np.array(shape) + 1, (count, 3))


def as_level(data, dtype=torch.float64):
    """Channels last, as tensors are laid out."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, 0, -1))).to(dtype)


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, st.sampled_from([np.float32, np.float64, np.int16, np.uint8]))
def test_values_are_those_of_scipy(shape, seed, dtype):
    data, index = made(shape, seed)
    data = (np.abs(data) * 60).astype(dtype)
    expected = [ndimage.map_coordinates(c.astype(float), index.T, order=1, mode="nearest") for c in data]
    np.testing.assert_allclose(sample(data, index), expected, atol=1e-5)
    np.testing.assert_allclose(sample(data[0], index), expected[0], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, st.sampled_from([torch.float32, torch.float64]))
def test_tensors_and_arrays_are_read_alike_and_as_grid_sample_does(shape, seed, dtype):
    data, index = made(shape, seed)
    found = sample(as_level(data, dtype), torch.from_numpy(index))
    assert found.dtype == dtype
    place = torch.from_numpy(2 * (index + 0.5) / np.array(shape) - 1)[None, :, None, None, [2, 1, 0]]
    expected = F.grid_sample(torch.from_numpy(data)[None], place, padding_mode="border", align_corners=False)
    exact = 1e-5 if dtype == torch.float32 else 1e-9
    np.testing.assert_allclose(found.T, expected[0, :, :, 0, 0], atol=exact)
    np.testing.assert_allclose(found.T, sample(data, index), atol=exact)


@settings(max_examples=40, deadline=None)
@given(grids(largest=6, smallest=2), seeds)
def test_the_gradient_is_that_of_finite_differences(grid, seed):
    data, _ = made(grid.shape, seed)
    generator = np.random.default_rng(seed)
    # Inside a cell, so that a small step does not leave it.
    index = generator.integers(0, np.array(grid.shape) - 1, (20, 3)) + generator.uniform(0.1, 0.9, (20, 3))
    tensors, slopes = sample_with_gradient(as_level(data), torch.from_numpy(index))
    slope = torch.stack(slopes, dim=-1).transpose(0, 1).numpy()
    np.testing.assert_allclose(tensors.T, sample(data, index), atol=1e-12)
    for axis in range(3):
        step = 1e-4 * np.eye(3)[axis]
        expected = (sample(data, index + step) - sample(data, index - step)) / 2e-4
        np.testing.assert_allclose(slope[..., axis], expected, atol=1e-7)
    # By mm: the index turned into the world, whatever way the axes run.
    world = grid.index_to_world(index)
    by_mm = slope @ grid.inverse[:3, :3]
    for axis in range(3):
        step = 1e-4 * np.eye(3)[axis]
        ahead, behind = (Volume(data, grid).at(world + sign * step) for sign in (1, -1))
        np.testing.assert_allclose(by_mm[..., axis], (ahead - behind) / 2e-4, atol=1e-6)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_scan_shows_the_same_at_the_same_place(turn):
    generator = np.random.default_rng(4)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.7, 1.9, 3.1])
    affine[:3, 3] = [-20.0, 400.0, 7.0]
    volume = Volume(generator.normal(size=(5, 6, 7)), Grid((5, 6, 7), affine))
    axes = np.abs(turn).argmax(axis=0)
    flips = [i for i in range(3) if turn[axes[i], i] < 0]
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    for i in flips:
        matrix[axes[i], 3] = volume.grid.shape[axes[i]] - 1
    data = np.flip(volume.data.transpose(axes), flips)
    turned = Volume(data, Grid(data.shape, volume.grid.affine @ matrix))
    world = volume.grid.index_to_world(generator.uniform(-2, 8, (50, 3)))
    np.testing.assert_allclose(turned.at(world), volume.at(world), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(shapes, seeds)
def test_the_fill_begins_at_the_outer_voxel_faces(shape, seed):
    data, index = made(shape, seed, count=60)
    index[0], index[1] = np.nan, [np.inf, 0, 0]
    inside = ((index >= -0.5) & (index <= np.array(shape) - 0.5)).all(axis=1)
    found = sample(data, index, fill=-7.0)
    np.testing.assert_array_equal(found[:, ~inside], -7.0)
    np.testing.assert_allclose(found[:, inside], sample(data, index)[:, inside])
    tensor = sample(as_level(data), torch.from_numpy(index), fill=-7.0)
    np.testing.assert_allclose(tensor.T, found, atol=1e-12)
    voxels = nearest(data, index, fill=-7.0)
    np.testing.assert_array_equal(voxels[:, ~inside], -7.0)
    at = np.clip(np.rint(index[inside]), 0, np.array(shape) - 1).astype(int)
    np.testing.assert_array_equal(voxels[:, inside], data[:, at[:, 0], at[:, 1], at[:, 2]])


def test_what_is_not_known_stays_unknown():
    data, index = made((4, 5, 6), 0)
    index[7], index[9, 1] = np.nan, np.inf
    missing = np.zeros(len(index), dtype=bool)
    missing[[7, 9]] = True
    np.testing.assert_array_equal(np.isnan(sample(data, index)).all(axis=0), missing)
    np.testing.assert_array_equal(sample(as_level(data), torch.from_numpy(index)).isnan().all(dim=1), missing)
    with pytest.raises(GeometryError, match="not finite"):
        nearest(data, index)


def test_nothing_asked_is_nothing_read():
    data, _ = made((4, 5, 6), 0)
    assert sample(data, np.zeros((0, 3))).shape == (3, 0)
    assert sample(as_level(data), torch.zeros(0, 3)).shape == (0, 3)


def test_many_places_are_read_as_each_alone():
    data, _ = made((4, 5, 6), 1)
    # Enough that several processors share them.
    index = torch.from_numpy(np.random.default_rng(2).uniform(0, 4, (4 * CHUNK + 7, 3)))
    level = as_level(data)
    some = slice(CHUNK - 3, CHUNK + 3)
    whole = sample(level, index, fill=5.0)
    np.testing.assert_array_equal(whole[some], sample(level, index[some], fill=5.0))
    np.testing.assert_allclose(whole, sample(data, index.numpy(), fill=5.0).T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_integers_are_rounded_and_clipped_to_their_range(dtype):
    limits = np.iinfo(dtype)
    values = np.array([-1e12, limits.min, 2.4, 2.6, 1e12]) if dtype != np.int64 else np.array([-7.0, -0.4, 2.4, 2.6])
    expected = [min(max(round(v), limits.min), limits.max) for v in values.tolist()]
    assert as_type(values, dtype).tolist() == expected
    with pytest.raises(GeometryError, match="missing"):
        as_type(np.array([np.nan]), dtype)


@pytest.mark.parametrize(("fill", "dtype"), [(-1000, np.uint8), (300, np.uint8), (np.nan, np.int16), (0.5, np.int32)])
def test_a_fill_value_that_the_type_cannot_hold_is_refused(fill, dtype):
    with pytest.raises(GeometryError, match="whole numbers"):
        nearest(np.zeros((2, 2, 2), dtype=dtype), [[9, 9, 9]], fill=fill)
