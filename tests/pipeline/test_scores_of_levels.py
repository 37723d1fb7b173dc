"""Levels of the network that mislead on the pair at hand count neither for the start nor for the field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from meddift import Matcher
from meddift.errors import NoCorrespondenceError
from meddift.geometry import Grid
from meddift.matching.prior import match_prior
from meddift.pipeline.level_scores import counted
from meddift.pipeline.scan import EncodedScan
from meddift.volume import Volume

#: Along y, in whole voxels of 2 mm: the truth is exact, and a right level sees the very same values.
SHIFTED = 12


def misled(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Levels that read where they are from the border of the field of view: they match every voxel to itself."""
    original = EncodedScan.tensors

    def tensors(self: EncodedScan) -> dict[str, torch.Tensor]:
        found = dict(original.__get__(self, EncodedScan))
        for number, name in enumerate(names):
            generator = torch.Generator().manual_seed(number)
            found[name] = torch.randn(found[name].shape, generator=generator)
        return found

    monkeypatch.setattr(EncodedScan, "tensors", property(tensors))


def without_start_by_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    """MIND alone finds no start, as on scans full of similar structures."""

    def match(fixed, *others, **named):
        if fixed.pyramid.names == ("mind",):
            raise NoCorrespondenceError("not today")
        return match_prior(fixed, *others, **named)

    monkeypatch.setattr("meddift.pipeline.starts.match_prior", match)


def pair_of(matcher: Matcher):
    """A texture that resembles tissue, and the same further on."""
    grid = Grid((64, 64, 64), np.diag([2.0, 2.0, 2.0, 1.0]))
    texture = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=grid.shape), 2.0, mode="wrap")
    texture = (400 * texture / texture.std()).astype(np.float32)
    return matcher.pair(Volume(texture, grid), Volume(np.roll(texture, SHIFTED, axis=1), grid))


@pytest.fixture
def matcher(monkeypatch, tmp_path):
    monkeypatch.setattr("meddift.pipeline.starts.PRIOR_POINTS", 120)
    with Matcher(levels=("up1", "up2", "up3", "mind"), store=tmp_path, modality="ct") as made:
        yield made


def errors(pair) -> np.ndarray:
    places = pair.fixed.grid.index_to_world(np.random.default_rng(1).uniform(12, 40, (30, 3)))
    return np.linalg.norm(pair.match(places).moving.positions - places - [0, 2.0 * SHIFTED, 0], axis=1)


@pytest.mark.parametrize("wrong", [("up1", "up2"), ("up2", "up3")])
def test_levels_that_agree_with_each_other_and_mislead_lose_their_say(monkeypatch, matcher, wrong) -> None:
    misled(monkeypatch, *wrong)
    without_start_by_mind(monkeypatch)
    pair = pair_of(matcher)
    assert errors(pair).max() < 0.5
    (right,) = {"up1", "up2", "up3"} - set(wrong)
    evidence = pair.evidence
    for scale in ("place_levels", "field_levels"):
        assert evidence[scale][right] > 0.7
        assert max(evidence[scale][name] for name in wrong) < 0.2
    for described in pair.described:
        assert list(described.levels) == [right, "mind"]
    (start,) = pair.starts
    np.testing.assert_allclose(start.affine.matrix[:3, 3], [0, 2.0 * SHIFTED, 0], atol=4.0)


def test_levels_that_are_right_all_count(matcher) -> None:
    pair = pair_of(matcher)
    assert errors(pair).max() < 0.5
    assert min(pair.evidence["place_levels"].values()) > 0.7
    assert list(pair.described[0].levels) == ["up1", "up2", "up3", "mind"]


def test_scores_come_back_from_the_store(monkeypatch, matcher) -> None:
    misled(monkeypatch, "up2")
    first = pair_of(matcher)
    first.match([[50.0, 50.0, 50.0]])

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("meddift.pipeline.level_scores.search_maps", never)
    monkeypatch.setattr("meddift.pipeline.level_scores.locate_nearby", never)
    again = pair_of(matcher)
    again.match([[50.0, 50.0, 50.0]])
    assert again.evidence == first.evidence
    assert {"place_levels", "field_levels"} <= set(first.evidence)


def test_a_prior_that_is_given_leaves_nothing_to_find_in_the_whole_scan(matcher) -> None:
    pair = pair_of(matcher)
    from meddift.geometry import AffineTransform

    shift = np.eye(4)
    shift[1, 3] = 2.0 * SHIFTED
    near = matcher.pair(pair.fixed, pair.moving, prior=AffineTransform(shift))
    near.match([[50.0, 50.0, 50.0]])
    assert not {"place_levels", "field_levels"} & set(near.evidence)


@pytest.mark.parametrize("weak", ["mind", "network"])
def test_the_start_with_most_agreement_comes_first(monkeypatch, matcher, weak) -> None:
    def match(fixed, *others, **named):
        found = match_prior(fixed, *others, **named)
        if (fixed.pyramid.names == ("mind",)) == (weak == "mind"):
            return replace(found, anchors=found.anchors[:20], residuals=found.residuals[:20])
        return found

    monkeypatch.setattr("meddift.pipeline.starts.match_prior", match)
    first, second = pair_of(matcher).starts
    assert second.name == weak
    assert first.transform.share > second.transform.share


@pytest.mark.parametrize(("count", "of_network"), [(140, 70), (120, 120)])
def test_the_network_matches_every_second_landmark_unless_they_are_few(
    monkeypatch, matcher, count, of_network
) -> None:
    monkeypatch.setattr("meddift.pipeline.starts.PRIOR_POINTS", count)
    asked = {}

    def match(fixed, moving, positions, **named):
        asked[fixed.pyramid.names[-1]] = len(positions)
        return match_prior(fixed, moving, positions, **named)

    monkeypatch.setattr("meddift.pipeline.starts.match_prior", match)
    pair = pair_of(matcher)
    assert len(pair.landmarks) == count
    assert len(pair.starts) == 2
    assert asked == {"up3": of_network, "mind": count}


def test_a_handful_of_landmarks_does_not_tell_levels_apart(monkeypatch, matcher) -> None:
    monkeypatch.setattr("meddift.pipeline.starts.PRIOR_POINTS", 15)
    misled(monkeypatch, "up2")
    pair = pair_of(matcher)
    pair.match([[50.0, 50.0, 50.0]])
    assert not {"place_levels", "field_levels"} & set(pair.evidence)


@pytest.mark.parametrize(
    ("shares", "names"),
    [
        ({"up0": 0.9, "up1": 0.45, "up2": 0.44}, ("up0", "up1")),
        ({"up0": 0.1, "up1": 0.08}, ("up0", "up1")),  # nothing tells them apart
        ({"up0": 0.0, "up1": 0.0}, ("up0", "up1")),
        ({}, ()),
    ],
)
def test_half_of_what_the_best_level_finds_is_enough(shares, names) -> None:
    assert counted(shares) == names
