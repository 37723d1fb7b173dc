"""Morphology on any device, against scipy on arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from meddift.geometry import Grid, ball_offsets
from meddift.geometry.masks import _hooked, between_ends, closed, components, filled_slices, largest, opened

GRID = Grid((23, 31, 17), np.diag([2.0, 1.5, 3.0, 1.0]))


def spots(seed: int, share: float, sigma: float = 1.2) -> np.ndarray:
    """Blobs that touch borders and each other, and have holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(GRID.shape), sigma)
    return noise > np.quantile(noise, 1 - share)


def ball(radius: float) -> np.ndarray:
    offsets = ball_offsets(GRID, radius)
    reach = offsets.max(axis=0)
    filled = np.zeros(2 * reach + 1, dtype=bool)
    filled[tuple((offsets + reach).T)] = True
    return filled


@pytest.mark.parametrize("radius", [0.5, 2.0, 4.0, 7.0])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_opening_and_closing_are_those_of_scipy(radius: float, share: float) -> None:
    mask, structure = spots(1, share), ball(radius)
    truth = ndimage.binary_opening(mask, structure=structure)
    np.testing.assert_array_equal(opened(torch.from_numpy(mask), GRID, radius).numpy(), truth)
    pad = 12
    truth = ndimage.binary_closing(np.pad(mask, pad), structure=structure)[pad:-pad, pad:-pad, pad:-pad]
    np.testing.assert_array_equal(closed(torch.from_numpy(mask), GRID, radius).numpy(), truth)


@pytest.mark.parametrize("within_slices", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 0.0, 1.0])
@pytest.mark.parametrize("sigma", [0.0, 1.2])
def test_components_are_the_same_sets_on_a_card_as_on_a_processor(
    within_slices: bool, share: float, sigma: float
) -> None:
    mask = torch.from_numpy(spots(2, share, sigma))
    structure = ndimage.generate_binary_structure(3, 1)
    if within_slices:
        structure[:, :, [0, 2]] = False
    truth, count = ndimage.label(mask.numpy(), structure=structure)
    # What runs on a card, run here.
    for found in (components(mask, within_slices=within_slices), _hooked(mask, 2 if within_slices else 3)):
        np.testing.assert_array_equal(found.numpy() > 0, mask.numpy())
        pairs = np.unique(np.stack([found.numpy().ravel(), truth.ravel()])[:, mask.numpy().ravel()], axis=1)
        assert pairs.shape[1] == len(np.unique(pairs[0])) == count


def test_a_long_coiled_line_is_one_component() -> None:
    mask = np.zeros((41, 41, 2), dtype=bool)
    mask[::2, :, 0] = True
    mask[1::4, -1, 0] = mask[3::4, 0, 0] = True
    assert len(np.unique(_hooked(torch.from_numpy(mask), 3).numpy())) == 2


def test_holes_of_slices_are_those_of_scipy() -> None:
    for share in (0.3, 0.6, 0.8):
        mask = spots(3, share)
        truth = np.stack([ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], axis=2)
        np.testing.assert_array_equal(filled_slices(torch.from_numpy(mask)).numpy(), truth)


def test_only_large_components_are_kept() -> None:
    mask = np.zeros((30, 10, 10), dtype=bool)
    mask[:10], mask[11:14], mask[20, :2, 0], mask[25, 0, 0] = True, True, True, True
    kept = [largest(torch.from_numpy(mask), count, least=least).sum() for count, least in ((1, 1), (4, 1), (4, 400))]
    assert [int(n) for n in kept] == [1000, 1300, 1000]
    assert not largest(torch.from_numpy(np.zeros_like(mask)), 2).any()


def test_between_the_first_and_the_last() -> None:
    line = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]).bool().T
    truth = [[0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(between_ends(line).T.int().numpy(), truth)
