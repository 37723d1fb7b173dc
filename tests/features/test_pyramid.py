"""Pyramids hold feature maps channels last, each on its own grid."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.errors import GeometryError, OptionsError
from meddift.features import Level, Pyramid
from meddift.features.pyramid import voxels_inside
from meddift.geometry import Grid


def level(name: str, spacing: float, shape=(3, 4, 5), channels: int = 2) -> Level:
    features = np.random.default_rng(0).standard_normal((*shape, channels)).astype(np.float32)
    return Level(name, features, Grid(shape, np.diag([spacing, spacing, spacing, 1.0])))


def pyramid(*levels: Level) -> Pyramid:
    grid = Grid((20, 20, 20), np.eye(4))
    return Pyramid(levels, grid, grid, "0" * 64, {"model": "none"})


def test_features_given_channels_first_become_contiguous_with_channels_last():
    channels_first = np.arange(2 * 3 * 4 * 5, dtype=np.float64).reshape(2, 3, 4, 5)
    made = Level("up0", np.moveaxis(channels_first, 0, -1), Grid((3, 4, 5), np.eye(4)))
    assert made.features.flags.c_contiguous
    assert made.features.dtype == np.float32
    for voxel in np.ndindex(3, 4, 5):
        np.testing.assert_array_equal(made.features[voxel], channels_first[(slice(None), *voxel)])
        row = np.ravel_multi_index(voxel, (3, 4, 5))
        np.testing.assert_array_equal(made.matrix[row], made.features[voxel])
    assert np.shares_memory(made.matrix, made.features)


def test_an_array_that_already_fits_is_not_copied():
    features = np.zeros((3, 4, 5, 2), dtype=np.float32)
    assert np.shares_memory(Level("up0", features, Grid((3, 4, 5), np.eye(4))).features, features)


def test_float16_stays_float16_and_is_shown_as_float32():
    given = np.random.default_rng(0).standard_normal((3, 4, 5, 2)).astype(np.float16)
    for values in (given, torch.from_numpy(given)):
        made = Level("up0", values, Grid((3, 4, 5), np.eye(4)))
        assert made.nbytes == given.nbytes
        assert np.shares_memory(made.array, given)
        assert np.shares_memory(made.tensor.numpy(), given)
        assert made.features.dtype == np.float32
        np.testing.assert_array_equal(made.features, given)
        np.testing.assert_array_equal(made.matrix, given.reshape(-1, 2))
        kept = pyramid(made).in_main_memory().level("up0")
        assert np.shares_memory(kept.array, given)
    for other in (np.float64, np.int16, ">f2"):
        assert Level("up0", given.astype(other), Grid((3, 4, 5), np.eye(4))).values.dtype == np.float32
    assert Level("up0", torch.from_numpy(given).bfloat16(), Grid((3, 4, 5), np.eye(4))).tensor.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (3, 4, 5, 0)])
def test_features_that_do_not_lie_on_their_grid_are_refused(shape):
    with pytest.raises(GeometryError, match="up7"):
        Level("up7", np.zeros(shape, dtype=np.float32), Grid((3, 4, 5), np.eye(4)))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(OptionsError, match="weight"):
        Level("up0", np.zeros((1, 1, 1, 1), dtype=np.float32), Grid((1, 1, 1), np.eye(4)), weight)


def test_levels_must_exist_differ_and_go_from_coarse_to_fine():
    with pytest.raises(OptionsError, match="at least one"):
        pyramid()
    with pytest.raises(OptionsError, match="different names"):
        pyramid(level("up0", 4), level("up0", 2))
    with pytest.raises(GeometryError, match="coarse to fine"):
        pyramid(level("up1", 2), level("up0", 4))
    assert pyramid(level("up0", 4), level("up1", 4), level("mind", 2)).names == ("up0", "up1", "mind")


def test_select_keeps_the_order_and_shares_the_arrays():
    whole = pyramid(level("up0", 8), level("up1", 4), level("mind", 2))
    part = whole.select(["mind", "up0"])
    assert part.names == ("up0", "mind")
    assert part.level("mind") is whole.level("mind")
    assert part.nbytes == 2 * 3 * 4 * 5 * 2 * 4
    for wrong in (["up9"], []):
        with pytest.raises(OptionsError):
            whole.select(wrong)


def test_weights_are_replaced_and_nothing_is_copied():
    whole = pyramid(level("up0", 8), level("mind", 2))
    other = whole.weighted({"mind": 3.0, "elsewhere": 9.0})
    assert [one.weight for one in other.levels] == [1.0, 3.0]
    assert np.shares_memory(other.level("mind").features, whole.level("mind").features)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_voxels_inside_agrees_with_asking_for_each_voxel(seed):
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.standard_normal((3, 3)))[0]
    scan = Grid((6, 7, 5), np.block([[turn * [1.0, 1.5, 2.5], random.normal(0, 20, (3, 1))], [np.zeros((1, 3)), 1.0]]))
    padded = scan.reoriented("RAS")[0].respaced(2.0).padded_to_multiple(4)[0]
    mask = voxels_inside(padded, scan)
    for voxel in np.ndindex(*padded.shape):
        index = np.linalg.solve(scan.affine, [*padded.index_to_world(voxel), 1.0])[:3]
        distance_to_face = np.min(np.concatenate([index + 0.5, np.array(scan.shape) - 0.5 - index]))
        if abs(distance_to_face) > 1e-6:  # on the face itself rounding decides
            assert mask[voxel] == (distance_to_face > 0)


def test_importing_the_package_and_its_light_names_does_not_load_torch():
    code = (
        "import sys, meddift.features as features;"
        "[getattr(features, name) for name in features.__all__];"
        "sys.exit(' '.join(sorted({'torch', 'monai', 'scipy', 'SimpleITK'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
