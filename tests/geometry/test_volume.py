"""Arrays on grids: reading between voxels and from grid to grid, against PyTorch, PIL and ramps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import grids

from meddift.errors import GeometryError
from meddift.geometry import Grid, resample_axes, sample
from meddift.volume import DeviceVolume, Volume


def random_volume(grid, channels=()):
    return Volume(np.random.default_rng(grid.size).normal(size=(*channels, *grid.shape)), grid)


@settings(max_examples=60, deadline=None)
@given(grids(largest=8), st.sampled_from([(), (2,)]))
def test_reading_at_points_is_torch_grid_sample_clamped_at_the_border(grid, channels):
    volume = random_volume(grid, channels)
    index = np.random.default_rng(1).uniform(-2, np.array(grid.shape) + 1, (20, 3))
    place = torch.from_numpy(2 * (index + 0.5) / np.array(grid.shape) - 1)[None, :, None, None, [2, 1, 0]]
    data = torch.from_numpy(volume.data.reshape(1, -1, *grid.shape))
    expected = F.grid_sample(data, place, padding_mode="border", align_corners=False)[0, :, :, 0, 0].numpy()
    np.testing.assert_allclose(volume.at(grid.index_to_world(index)).reshape(-1, 20), expected, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(grids(largest=7, smallest=2))
def test_a_linear_ramp_is_read_exactly(grid):
    slope, offset = np.array([0.3, -1.7, 0.9]), 4.0
    volume = Volume(grid.voxel_centers() @ slope + offset, grid)
    index = np.random.default_rng(2).uniform(0, np.array(grid.shape) - 1, (15, 3))
    world = grid.index_to_world(index)
    np.testing.assert_allclose(volume.at(world), world @ slope + offset, atol=1e-8)


def test_a_missing_point_has_no_value():
    assert np.isnan(sample(np.ones((2, 2, 2)), [[np.nan, 0, 0]])).all()


@settings(max_examples=50, deadline=None)
@given(grids(largest=10, smallest=2), st.tuples(*[st.integers(1, 20)] * 3))
def test_resampling_to_the_same_field_of_view_is_torch_interpolate_with_antialias(grid, shape):
    """Axis by axis against torch's two-dimensional antialiased resize, which PIL's bilinear resize agrees with.

    At the border torch leaves out the part of the widened triangle beyond it and scales the rest up, as is done here.
    """
    volume = random_volume(grid)
    found = volume.resampled_along_axes(grid.resized(shape))
    data = torch.from_numpy(volume.data.astype(np.float32))
    for axis, n in enumerate(shape):
        moved = data.movedim(axis, -1)
        flat = moved.reshape(1, 1, -1, moved.shape[-1])
        flat = F.interpolate(
            flat, size=(flat.shape[2], n), mode="bilinear", align_corners=False, antialias=n < moved.shape[-1]
        )
        data = flat.reshape(*moved.shape[:-1], n).movedim(-1, axis)
    assert found.grid.shape == shape
    assert found.data.dtype == np.float32
    np.testing.assert_allclose(found.data, data.numpy(), atol=3e-5)


def test_antialiasing_is_that_of_pil():
    image = pytest.importorskip("PIL.Image")
    line = np.random.default_rng(3).normal(size=60).astype(np.float32)
    volume = Volume(np.tile(line, (1, 1, 1)).reshape(1, 1, 60), Grid((1, 1, 60), np.diag([1, 1, 1.3, 1])))
    for n in (7, 13, 20, 45):
        expected = np.asarray(image.fromarray(line[None]).resize((n, 1), image.Resampling.BILINEAR))[0]
        found = volume.resampled_along_axes(volume.grid.resized((1, 1, n))).data[0, 0]
        np.testing.assert_allclose(found, expected, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(grids(largest=8), st.tuples(*[st.integers(-3, 3)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_on_coinciding_voxels_values_are_exact(grid, start, shape):
    volume = random_volume(grid)
    found = volume.resampled_along_axes(grid)
    np.testing.assert_array_equal(found.data, volume.data.astype(np.float32))
    cut = volume.resampled_along_axes(grid.cropped(start, shape))
    index = [np.clip(np.arange(s, s + n), 0, m - 1) for s, n, m in zip(start, shape, grid.shape, strict=True)]
    np.testing.assert_allclose(cut.data, volume.data[np.ix_(*index)].astype(np.float32), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(grids(largest=14, smallest=8), st.sampled_from([0.4, 0.7, 1.0, 1.5, 2.0, 2.6]))
def test_resampling_a_ramp_leaves_it_where_it_is(grid, factor):
    """Refining is exact. A triangle widened by a broken number has its middle up to 0.09 voxels off (as in PIL)."""
    volume = Volume(grid.voxel_centers()[..., 1] - grid.center[1], grid)
    new = grid.respaced(grid.spacing * factor)
    found = volume.resampled_along_axes(new)
    index = grid.world_to_index(new.voxel_centers())
    reach = max(1.0, factor)  # where the widened triangle reaches beyond the border, it is cut off
    inner = ((index >= reach) & (index <= np.array(grid.shape) - 1 - reach)).all(axis=-1)
    off = np.abs(found.data - (new.voxel_centers()[..., 1] - grid.center[1]))[inner]
    slope = np.abs(grid.affine[1, :3]).sum()  # along all three axes together, per voxel
    allowed = 0.0 if factor in (0.4, 0.7, 1.0, 2.0) else 0.09
    assert (off <= allowed * slope + 1e-5 * (np.abs(volume.data).max() + 1)).all()


def test_lattices_with_other_axes_are_refused():
    volume = random_volume(Grid((4, 4, 4), np.eye(4)))
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    for affine in (turned, np.diag([-1, 1, 1, 1])):
        with pytest.raises(GeometryError, match="parallel"):
            volume.resampled_along_axes(Grid((4, 4, 4), affine))


def test_data_must_lie_on_its_grid():
    with pytest.raises(GeometryError, match="lie on"):
        Volume(np.zeros((3, 4, 6)), Grid((3, 4, 5), np.eye(4)))


def test_equal_scans_have_equal_digests_and_others_have_others():
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volume = Volume(data, Grid((3, 4, 5), np.diag([1.0, 2, 3, 1])))
    assert volume.digest() == Volume(np.asfortranarray(data), Grid((3, 4, 5), np.diag([1.0, 2, 3, 1]))).digest()
    changed = data.copy()
    changed[1, 2, 3] += 1
    moved = np.diag([1.0, 2, 3, 1])
    moved[0, 3] = 0.01
    others = [
        Volume(changed, volume.grid),
        Volume(data, Grid((3, 4, 5), moved)),
        Volume(data.astype(np.int32), volume.grid),
        Volume(data.reshape(5, 4, 3), Grid((5, 4, 3), volume.grid.affine)),
    ]
    assert len({volume.digest(), *(other.digest() for other in others)}) == 5
    # The same affine written with another sign of zero, or after a trip through a file, is the same scan.
    almost = volume.grid.affine.copy()
    almost[0, 3] = -1e-9
    almost[1, 0] = -0.0
    assert Volume(data, Grid((3, 4, 5), almost)).digest() == volume.digest()


@settings(max_examples=30, deadline=None)
@given(grids(largest=9), st.tuples(*[st.integers(1, 12)] * 3))
def test_tensors_with_channels_last_are_resampled_as_volumes_are(grid, shape):
    volume = random_volume(grid, (3,))
    target = grid.resized(shape)
    values = torch.from_numpy(np.moveaxis(volume.data, 0, -1).astype(np.float32).copy())
    found = resample_axes(values, grid, target)
    assert found.is_contiguous()
    np.testing.assert_allclose(found.movedim(-1, 0), volume.resampled_along_axes(target).data, atol=2e-5)


@pytest.mark.parametrize("orientation", ["RAS", "PIL", "LSA"])
def test_a_volume_on_a_device_does_what_one_in_main_memory_does(orientation: str) -> None:
    data = np.random.default_rng(0).integers(-1000, 1000, (9, 8, 7)).astype(np.int16)
    plain = Volume(data, Grid(data.shape, np.diag([2.0, 3.0, 2.5, 1.0])), modality="CT")
    sent = DeviceVolume.sent(plain, "cpu")
    np.testing.assert_array_equal(sent.data, data)
    assert sent.digest() == plain.digest()
    for one, other in (
        (sent.reoriented(orientation), plain.reoriented(orientation)),
        (sent.cropped((-1, 2, 3), (5, 9, 3), fill=-7), plain.cropped((-1, 2, 3), (5, 9, 3), fill=-7)),
        (sent.cropped((20, 0, 0), (2, 2, 2), fill=-7), plain.cropped((20, 0, 0), (2, 2, 2), fill=-7)),
        (sent.strided((2, 1, 3)), plain.strided((2, 1, 3))),
    ):
        assert one.grid == other.grid
        assert one.modality == "CT"
        np.testing.assert_array_equal(one.data, other.data)
    grid = plain.grid.respaced(4.0)
    np.testing.assert_allclose(sent.resampled_along_axes(grid).data, plain.resampled_along_axes(grid).data, rtol=1e-5)


def test_types_that_no_tensor_has_become_float32() -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    for kind in (">i2", np.uint16, np.longdouble):
        data = np.arange(8).reshape(2, 2, 2).astype(kind)
        sent = DeviceVolume.sent(Volume(data, grid), "cpu")
        assert sent.data.dtype == np.float32
        np.testing.assert_array_equal(sent.data, data.astype(np.float32))
    with pytest.raises(GeometryError):
        DeviceVolume(sent.tensor, Grid((2, 2, 3), np.eye(4)))
