"""Tensors of float16 are read as the same values in float32 are: not nearly, but bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import grids

from meddift.geometry import Grid, nearest, resample_axes, sample, sample_with_gradient

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def level(shape, channels: int, seed: int) -> torch.Tensor:
    """(X, Y, Z, C) float16, from values that are nearly zero to large ones."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, channels, generator=generator) * 10 ** (
        4 * torch.rand(channels, generator=generator) - 3
    )
    return values.half()


@settings(max_examples=60, deadline=None)
@given(
    shapes, st.integers(1, 30), seeds, st.sampled_from([torch.float32, torch.float64]), st.sampled_from([None, -7.0])
)
def test_sampling(shape, channels, seed, kind, fill):
    half = level(shape, channels, seed)
    index = torch.from_numpy(np.random.default_rng(seed).uniform(-2, np.array(shape) + 1, (40, 3))).to(kind)
    index[3] = torch.nan
    found, expected = sample(half, index, fill=fill), sample(half.float(), index, fill=fill)
    assert found.dtype == torch.float32
    assert torch.equal(found.nan_to_num(99.0), expected.nan_to_num(99.0))
    assert torch.equal(found.isnan(), expected.isnan())
    value, slopes = sample_with_gradient(half, index[:3])
    assert value.dtype == torch.float32
    expected, steep = sample_with_gradient(half.float(), index[:3])
    assert torch.equal(value, expected)
    assert all(torch.equal(one, other) for one, other in zip(slopes, steep, strict=True))


def test_no_places_and_the_nearest_voxel():
    half = level((4, 5, 6), 3, 0)
    assert sample(half, torch.zeros(0, 3)).dtype == torch.float32
    found = nearest(half, torch.tensor([[1.2, 2.6, 9.0]]))
    assert found.dtype == torch.float16
    assert torch.equal(found[0], half[1, 3, 5])


@settings(max_examples=60, deadline=None)
@given(grids(largest=9), shapes, st.integers(1, 5), seeds, st.integers(1, 5000))
def test_resampling_along_axes_a_few_planes_at_a_time(grid, shape, channels, seed, at_once):
    half, target = level(grid.shape, channels, seed), grid.resized(shape)
    whole = resample_axes(half.float().numpy(), grid, target)  # arrays are multiplied at once
    exact = 1e-6 * float(half.abs().max())
    first = half.movedim(-1, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meddift.geometry.axes.SLAB_VALUES", at_once)
        found = resample_axes(half, grid, target)
        channels_first = resample_axes(first.contiguous(), grid, target, first_axis=1)
        assert torch.equal(found, resample_axes(half.float(), grid, target))
    assert found.dtype == channels_first.dtype == torch.float32
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), whole, rtol=0, atol=exact)
    np.testing.assert_allclose(channels_first.movedim(0, -1).numpy(), whole, rtol=0, atol=exact)


@pytest.mark.parametrize("shape", [(90, 40, 60), (40, 90, 60), (40, 60, 90), (5, 50, 7), (300, 2, 3)])
@pytest.mark.parametrize("spacing", [1.0, 1.3, 2.0, 3.0, 4.0])
def test_resampling_whole_levels_along_axes(shape, spacing):
    """The sizes at which products are computed in bands and in parts."""
    half, grid = level(shape, 24, 1), Grid(shape, np.diag([2.0, 1.9, 2.1, 1.0]))
    target = grid.respaced(spacing)
    found = resample_axes(half, grid, target)
    assert torch.equal(found, resample_axes(half.float(), grid, target))
    whole = resample_axes(half.float().numpy(), grid, target)
    np.testing.assert_allclose(found.numpy(), whole, rtol=0, atol=2e-6 * float(half.abs().max()))


def test_selecting_samples_and_a_grid_that_is_the_same():
    half, grid = level((3000, 1, 2), 2, 2), Grid((3000, 1, 2), np.eye(4))
    assert torch.equal(resample_axes(half, grid, grid.cropped((2050, 0, 0), (900, 1, 2))), half[2050:2950].float())
    assert torch.equal(resample_axes(half, grid, grid), half.float())
