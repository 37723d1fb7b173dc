"""Levels held in float16 give the results that the same values in float32 give, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from meddift.features import Level, Pyramid, whiten_pair, whitening_maps
from meddift.geometry import Grid, windows_around
from meddift.matching import GlobalSearch, SearchIndex, search_maps, similarity_maps, window_similarity
from meddift.matching.align import align_neighbourhoods
from meddift.matching.local import _boxes
from meddift.registration.feature_map import FeatureMap, common_basis, on_grid

SIZES = (("up0", 6, 40), ("up1", 11, 16), ("mind", 21, 24))


def pyramid(seed: int, kind: type = np.float16) -> Pyramid:
    random = np.random.default_rng(seed)
    grid = Grid((21, 20, 19), np.diag([2.0, 2.1, 2.2, 1.0]))
    levels = []
    for name, size, channels in SIZES:
        values = random.standard_normal((size, size, size - 1, channels)).astype(np.float16).astype(kind)
        levels.append(Level(name, values, grid.resized((size, size, size - 1))))
    pyramid = Pyramid(tuple(levels), grid, grid, f"{seed:064x}")
    return pyramid.with_moments(pyramid.names)


HALF, SINGLE = (tuple(pyramid(seed, kind) for seed in (0, 1)) for kind in (np.float16, np.float32))


def points(count: int = 12) -> np.ndarray:
    return HALF[0].image_grid.index_to_world(np.random.default_rng(3).uniform(2, 17, (count, 3)))


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_moments_and_whitening():
    for half, single in zip(HALF, SINGLE, strict=True):
        assert half.nbytes == single.nbytes / 2
        for name in half.names:
            np.testing.assert_array_equal(half.moments[name].covariance, single.moments[name].covariance)
            np.testing.assert_array_equal(half.moments[name].mean, single.moments[name].mean)
    for half, single in zip(whiten_pair(*HALF), whiten_pair(*SINGLE), strict=True):
        for level, other in zip(half.levels, single.levels, strict=True):
            assert level.values.dtype == np.float32
            np.testing.assert_array_equal(level.features, other.features)


@pytest.mark.parametrize("whitened", [(), ("mind",), ("up0", "up1", "mind")])
@pytest.mark.parametrize("on_card", [True, False])
def test_searching(whitened, on_card, monkeypatch):
    monkeypatch.setattr("meddift.matching.maps._on_card", lambda _: on_card)
    maps = whitening_maps(*HALF, levels=whitened) if whitened else {}
    half, single = (SearchIndex(each[1], each[1].network_grid, whitening=maps) for each in (HALF, SINGLE))
    queries = half.describe(points())
    assert equal(queries, single.describe(points()))
    start, shape = windows_around(half.grid, points(), 8.0)
    assert torch.equal(
        window_similarity(half, queries, start, shape), window_similarity(single, queries, start, shape)
    )
    assert torch.equal(similarity_maps(half, queries), similarity_maps(single, queries))
    for search in (search_maps, lambda index, asked: GlobalSearch(index)(asked)):
        one, other = search(half, queries), search(single, queries)
        for name in ("voxels", "similarity", "rival"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_boxes():
    values = HALF[0].level("mind").tensor
    corners = np.random.default_rng(1).integers(0, 12, (9, 3))
    assert torch.equal(_boxes(values, corners, [5, 1, 7]).float(), _boxes(values.float(), corners, [5, 1, 7]))


def test_aligning():
    places = points()
    linear = np.tile(np.eye(3), (len(places), 1, 1))
    one, other = (
        align_neighbourhoods(*(each.level("mind") for each in pair), places, places + 0.7, linear, limit_mm=4.0)
        for pair in (HALF, SINGLE)
    )
    for name in ("positions", "misfit", "standard_deviation_mm"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("whiten", [True, False])
def test_maps_for_registration(whiten):
    maps = whitening_maps(*HALF) if whiten else {}
    half, single = (
        [{one.name: FeatureMap(one.tensor, one.grid, maps.get(one.name)) for one in each.levels} for each in pair]
        for pair in (HALF, SINGLE)
    )
    places = [torch.from_numpy(points(60))] * 2
    bases = [common_basis(each, ["up0", "up1"], places, 8) for each in (half, single)]
    assert equal(bases[0].values(), bases[1].values())
    for spacing in (2.0, 4.0):
        for name in ("up1", "mind"):
            one, other = half[0][name], single[0][name]
            grid = one.grid.respaced(spacing)
            assert torch.equal(on_grid(one, grid), on_grid(other, grid))
            assert torch.equal(on_grid(one, one.grid), on_grid(other, one.grid))
            basis = torch.randn(one.channels, 8, generator=torch.Generator().manual_seed(0))
            assert torch.equal(on_grid(one, grid, basis), on_grid(other, grid, basis))
            assert torch.equal(one.at(places[0]), other.at(places[0]))


def test_a_level_of_another_weight_or_place_shares_the_memory():
    level = HALF[0].level("mind")
    assert np.shares_memory(replace(level, weight=2.0).values, level.values)
    assert level.tensor.dtype == torch.float16
