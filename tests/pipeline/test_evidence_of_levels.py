"""Each level of the network earns its say in verdicts on the pair at hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from meddift import Matcher
from meddift.geometry import Grid
from meddift.pipeline.direction import Side
from meddift.pipeline.under_field import LEAST_SHARE, semantic_margin
from meddift.volume import Volume

#: Along y, in whole voxels of 2 mm: the truth is exact, and a right level sees the very same values.
SHIFTED = 2


def pair_of(matcher: Matcher):
    """A texture that resembles tissue, and the same two voxels further on."""
    from scipy import ndimage

    grid = Grid((64, 64, 64), np.diag([2.0, 2.0, 2.0, 1.0]))
    texture = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=grid.shape), 2.0, mode="wrap")
    texture = (400 * texture / texture.std()).astype(np.float32)
    return matcher.pair(Volume(texture, grid), Volume(np.roll(texture, SHIFTED, axis=1), grid))


@pytest.fixture(scope="module")
def spoiled():
    """A pair of which the level up2 describes each scan by noise of its own."""
    original = Side.of_levels

    def of_levels(self: Side, names):
        index = original(self, names)
        if "up2" not in names:
            return index
        generator = torch.Generator().manual_seed(int(self.scan.digest[:8], 16))
        tensors = {
            name: torch.randn(tensor.shape, generator=generator) if name == "up2" else tensor
            for name, tensor in index.tensors.items()
        }
        return dataclasses.replace(index, tensors=tensors)

    with (
        pytest.MonkeyPatch.context() as patch,
        Matcher(levels=("up1", "up2", "up3", "mind"), store=False, modality="ct") as matcher,
    ):
        patch.setattr(Side, "of_levels", of_levels)
        patch.setattr("meddift.pipeline.starts.PRIOR_POINTS", 100)
        pair = pair_of(matcher)
        places = pair.fixed.grid.index_to_world(np.random.default_rng(1).uniform(20, 40, (30, 3)))
        matches = pair.match(places)
        yield pair, places, matches


def test_the_share_of_every_level_is_told_and_one_that_sees_noise_agrees_with_nothing(spoiled) -> None:
    pair, _, _ = spoiled
    shares = pair.evidence["verdict"]
    assert list(shares) == ["up1", "up2", "up3"]
    # By chance the best of some hundred places within 20 mm lies within 10 mm in one of eight cases.
    assert shares["up2"] < 0.3
    assert min(shares["up1"], shares["up3"]) >= LEAST_SHARE


def test_it_has_no_say_in_verdicts_and_the_others_have(spoiled) -> None:
    pair, places, matches = spoiled
    assert pair.usual.earned == ("up1", "up3")
    np.testing.assert_allclose(matches.moving.positions - places, [[0, 2.0 * SHIFTED, 0]] * len(places), atol=0.3)

    def margin(*names: str) -> np.ndarray:
        indexes = pair.sides[0].of_levels(names), pair.sides[1].of_levels(names)
        return semantic_margin(pair.field, indexes, places, matches.moving.positions)

    of_others = margin("up1", "up3")
    np.testing.assert_allclose(matches.margin, of_others, atol=1e-6)
    assert np.abs(margin("up1", "up2", "up3") - of_others).max() > 0.01
