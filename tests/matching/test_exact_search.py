"""Exact search against brute force: upsample every level, normalise, take the mean cosine, look at every voxel."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from meddift.features import Level, Pyramid, whiten_pair, whitening_maps
from meddift.geometry import Grid, window_distances, windows_around
from meddift.matching import (
    GlobalSearch,
    SearchIndex,
    search_maps,
    similarity_maps,
    window_similarity,
)


def rotated(spacing, angle=0.3):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = [-31.0, 12.5, 140.0]
    return affine


def make_pyramid(
    generator, *, shape=(22, 19, 17), network=(24, 24, 16), levels=((2, 12), (4, 9), (12, 5)), smooth=False
):
    grid = Grid(shape, rotated((1.7, 2.1, 3.0)))
    built = []
    for position, (factor, channels) in enumerate(levels):
        size = [max(1, n * factor // 24) for n in network]
        features = generator.standard_normal((*size, channels)).astype(np.float32)
        if smooth:
            features += 2.0  # a large common part, as in real networks: cosines near 1, many rivals
        built.append(Level(f"up{position}", features, grid.resized(size), weight=1.0 + 0.5 * position))
    return Pyramid(tuple(built), grid, grid.resized(network), "0" * 64)


def brute_force(pyramid, descriptors):
    """(N, X, Y, Z) float64: torch's own trilinear upsampling (align_corners=False) to the image, voxel by voxel."""
    total, weights = 0.0, 0.0
    for level, query in zip(pyramid.levels, descriptors, strict=True):
        channels_first = torch.from_numpy(level.features).permute(3, 0, 1, 2)[None].double()
        full = F.interpolate(channels_first, size=pyramid.image_grid.shape, mode="trilinear", align_corners=False)[0]
        full = full / full.norm(dim=0, keepdim=True)
        total = total + level.weight * torch.einsum("nc,cxyz->nxyz", query.double(), full)
        weights += level.weight
    return (total / weights).numpy()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("shape", [(22, 19, 17), (24, 24, 16), (5, 40, 1), (13, 1, 9)])
def test_finds_the_voxel_that_brute_force_finds(shape, smooth):
    generator = np.random.default_rng(sum(shape) + smooth)
    pyramid = make_pyramid(generator, shape=shape, smooth=smooth)
    index = SearchIndex(pyramid, pyramid.image_grid)
    positions = pyramid.image_grid.index_to_world(generator.uniform(-0.5, np.array(shape) - 0.5, (40, 3)))
    queries = [
        q + 0.5 * torch.randn(q.shape, generator=torch.Generator().manual_seed(1)) for q in index.describe(positions)
    ]
    queries = [F.normalize(q, dim=1) for q in queries]
    expected = brute_force(pyramid, queries)
    found = GlobalSearch(index, exclusion_mm=6.0)(queries)
    flat = expected.reshape(len(expected), -1)
    np.testing.assert_allclose(found.similarity, flat.max(1), atol=2e-6)
    rows = np.arange(len(flat))
    at_found = expected[rows, *found.voxels.T]
    np.testing.assert_allclose(at_found, flat.max(1), atol=2e-6)
    # Rivals: the best voxel beyond the exclusion radius of the voxel found.
    centers = pyramid.image_grid.voxel_centers().reshape(-1, 3)
    chosen = pyramid.image_grid.index_to_world(found.voxels)
    for row in rows:
        away = np.linalg.norm(centers - chosen[row], axis=1) > 6.0
        assert found.rival[row] == pytest.approx(flat[row][away].max() if away.any() else -np.inf, abs=2e-6)


def test_visits_a_small_part_of_the_blocks_when_one_place_stands_out():
    generator = np.random.default_rng(3)
    # Features of a network vary slowly from voxel to voxel; white noise would not let anything be passed over.
    grid = Grid((64, 64, 48), rotated((2.0, 2.0, 2.0)))
    levels = []
    for name, size in (("up0", (16, 16, 12)), ("up1", (32, 32, 24))):
        coarse = torch.from_numpy(generator.standard_normal((1, 24, 5, 5, 4)).astype(np.float32))
        features = F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0].permute(1, 2, 3, 0)
        levels.append(Level(name, features.numpy(), grid.resized(size)))
    pyramid = Pyramid(tuple(levels), grid, grid, "0" * 64)
    index = SearchIndex(pyramid, pyramid.image_grid)
    positions = pyramid.image_grid.index_to_world(generator.uniform(5, 40, (20, 3)))
    found = GlobalSearch(index)(index.describe(positions), rivals=False)
    assert found.visited < 0.05
    error = np.linalg.norm(pyramid.image_grid.index_to_world(found.voxels) - positions, axis=1)
    assert error.max() < np.linalg.norm(pyramid.image_grid.spacing)


def test_norms_are_those_of_the_interpolated_descriptors():
    pyramid = make_pyramid(np.random.default_rng(4))
    index = SearchIndex(pyramid, pyramid.image_grid)
    for indexed in index.levels:
        channels_first = torch.from_numpy(indexed.level.features).permute(3, 0, 1, 2)[None]
        full = F.interpolate(channels_first, size=pyramid.image_grid.shape, mode="trilinear", align_corners=False)[0]
        np.testing.assert_allclose(indexed.share / indexed.inverse_norms, full.norm(dim=0), rtol=2e-5)


def test_an_empty_descriptor_is_similar_to_nothing():
    grid = Grid((8, 8, 8), np.eye(4))
    features = np.zeros((8, 8, 8, 3), dtype=np.float32)
    features[2, 3, 4] = [1, 2, 3]
    pyramid = Pyramid((Level("up0", features, grid),), grid, grid, "0" * 64)
    index = SearchIndex(pyramid, grid)
    found = GlobalSearch(index)([torch.tensor([[1.0, 2, 3]]) / 14**0.5])
    np.testing.assert_array_equal(found.voxels, [[2, 3, 4]])
    assert found.similarity[0] == pytest.approx(1.0, abs=1e-6)
    assert found.rival[0] <= 0


def test_windows_hold_the_brute_force_values():
    generator = np.random.default_rng(5)
    pyramid = make_pyramid(generator)
    index = SearchIndex(pyramid, pyramid.image_grid)
    positions = pyramid.image_grid.index_to_world(generator.uniform(0, 16, (12, 3)))
    queries = index.describe(positions)
    start, shape = windows_around(index.grid, positions, 9.0)
    values = window_similarity(index, queries, start, shape).numpy()
    places = torch.from_numpy(index.grid.world_to_index(positions) - start)
    away = window_distances(index.grid, places, shape).numpy()
    expected = brute_force(pyramid, queries)
    for row, first in enumerate(start):
        box = tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))
        np.testing.assert_allclose(values[row], expected[row][box], atol=2e-6)
        world = pyramid.image_grid.voxel_centers()[box]
        np.testing.assert_allclose(away[row], np.linalg.norm(world - positions[row], axis=-1), atol=1e-3)
        inside = np.linalg.norm(pyramid.image_grid.voxel_centers() - positions[row], axis=-1) <= 9.0
        assert inside.sum() == (away[row] <= 9.0).sum()


@pytest.mark.parametrize("coarse", [False, True])
def test_whitening_what_is_touched_is_whitening_everything(coarse):
    """An index that whitens on the way against one of features that were whitened before."""
    generator = np.random.default_rng(8)
    scans = [make_pyramid(generator, levels=((4, 9), (24, 5)), smooth=True) for _ in range(2)]
    names = ["up0", "up1"]
    maps, whole = whitening_maps(*scans, levels=names), whiten_pair(*scans, levels=names)
    grid = scans[1].image_grid if not coarse else scans[1].level("up1").grid
    lazy, eager = SearchIndex(scans[1], grid, "cpu", maps), SearchIndex(whole[1], grid)
    positions = scans[1].image_grid.index_to_world(generator.uniform(0, 16, (9, 3)))
    queries = lazy.describe(positions)
    for one, two in zip(queries, eager.describe(positions), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)
    start, shape = windows_around(lazy.grid, positions, 9.0)
    expected = window_similarity(eager, queries, start, shape)
    np.testing.assert_allclose(window_similarity(lazy, queries, start, shape), expected, atol=2e-5)
    np.testing.assert_allclose(similarity_maps(lazy, queries), similarity_maps(eager, queries), atol=2e-5)
    for search in (search_maps, lambda index, asked: GlobalSearch(index)(asked)):
        np.testing.assert_array_equal(search(lazy, queries).voxels, search(eager, queries).voxels)


@pytest.mark.parametrize("whole_maps", [False, True])
def test_windows_of_several_queries_hold_each_query(monkeypatch, whole_maps):
    generator = np.random.default_rng(9)
    pyramid = make_pyramid(generator)
    index = SearchIndex(pyramid, pyramid.image_grid)
    monkeypatch.setitem(index.__dict__, "has_maps", whole_maps)
    positions = pyramid.image_grid.index_to_world(generator.uniform(0, 16, (12, 3)))
    queries = index.describe(positions)
    start, shape = windows_around(index.grid, positions[:4], 7.0)
    expected = brute_force(pyramid, queries).reshape(4, 3, *pyramid.image_grid.shape)
    values = window_similarity(index, [q.reshape(4, 3, -1) for q in queries], start, shape)
    for row, first in enumerate(start):
        box = tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))
        np.testing.assert_allclose(values[row], expected[row][(slice(None), *box)], atol=2e-6)
