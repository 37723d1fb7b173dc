"""A prior that was found once is found again on disk, to the bit; anything that decides it makes another."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.errors import NoCorrespondenceError
from meddift.features import FeatureStore, Level, Pyramid
from meddift.geometry import AffineTransform, Grid
from meddift.matching.prior import MatchedPrior
from meddift.pipeline.kept_prior import keep_prior

KEY = "1" * 64


@pytest.fixture
def store(tmp_path):
    grid = Grid((2, 2, 2), np.eye(4))
    made = FeatureStore(tmp_path)
    made.put(Pyramid((Level("up0", np.ones((2, 2, 2, 1)), grid),), grid, grid, KEY))
    return made


def a_prior(seed=0, similarity=0.7):
    random = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3] += random.normal(0, 0.1, (3, 4))
    return MatchedPrior(AffineTransform(matrix), *random.normal(0, 50, (2, 30, 3)), matched=31, similarity=similarity)


@pytest.mark.parametrize("similarity", [1 / 3, float("nan")])
def test_it_comes_back_to_the_bit_and_is_not_found_again(store, similarity):
    calls = []

    def make():
        calls.append(1)
        return a_prior(similarity=similarity)

    first, again = (keep_prior(store, KEY, {"seed": 0}, make) for _ in range(2))
    assert len(calls) == 1
    points = np.random.default_rng(5).normal(0, 80, (20, 3))
    np.testing.assert_array_equal(first.apply(points), again.apply(points))
    np.testing.assert_array_equal(first.inverted().apply(points), again.inverted().apply(points))
    assert again.matched == 31
    np.testing.assert_equal(again.similarity, similarity)
    keep_prior(store, KEY, {"seed": 1}, make)
    assert len(calls) == 2


def test_that_there_is_none_is_kept_too(store):
    def fails():
        raise NoCorrespondenceError("only 3 places agree")

    def never():
        raise AssertionError("asked again")

    for make in (fails, never):
        with pytest.raises(NoCorrespondenceError, match="only 3"):
            keep_prior(store, KEY, {"seed": 0}, make)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"affine": [[1]], "anchors": 3}'])
def test_a_damaged_note_is_made_again(store, text):
    keep_prior(store, KEY, {}, a_prior)
    (note,) = (store.folder / KEY).glob("prior-*.json")
    note.write_text(text)
    assert keep_prior(store, KEY, {}, lambda: a_prior(1)).matched == 31
    points = np.ones((1, 3))
    again = keep_prior(store, KEY, {}, lambda: a_prior(2))
    np.testing.assert_array_equal(again.apply(points), a_prior(1).apply(points))


def test_without_a_store_nothing_is_kept():
    assert keep_prior(None, KEY, {}, a_prior).matched == 31
