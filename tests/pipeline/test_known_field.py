"""A pair that is told a field, the other way or nearly right, against a motion that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from meddift import Matcher
from meddift.geometry import AffineTransform, Grid
from meddift.registration.engine import FieldWork
from meddift.volume import Volume

GRID = Grid((48, 44, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
#: Voxels by which the moving scan is rolled, and mm.
ROLLED = np.array([2, -1, 1])
SHIFT = ROLLED * 2.0


@pytest.fixture(scope="module")
def scans():
    texture = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=GRID.shape), 1.3) * 900
    moved = np.roll(texture, ROLLED, axis=(0, 1, 2))
    return Volume(texture.astype(np.float32), GRID), Volume(moved.astype(np.float32), GRID)


@pytest.fixture
def matcher():
    with Matcher(levels=("mind",), store=False, modality="other") as made:
        yield made


def places() -> np.ndarray:
    return np.random.default_rng(1).uniform(24, 60, (30, 3))


def test_the_way_back_lies_under_the_inverse(scans, matcher, monkeypatch) -> None:
    forward = matcher.pair(*scans)
    assert forward.known_field is None
    there = forward.match(places())
    assert np.linalg.norm(there.moving.positions - places() - SHIFT, axis=1).mean() < 0.3
    monkeypatch.setattr(FieldWork, "fitted", None)  # nothing is matched densely again
    backward = matcher.pair(*scans[::-1], back=forward.known_field)
    found = backward.match(places())
    assert np.linalg.norm(found.moving.positions - places() + SHIFT, axis=1).mean() < 0.3
    assert sum(verdict == "ok" for verdict in found.verdict) >= 25
    # Where the scans do not overlap nothing is supported, the same as on the way there.
    support = backward.field.support
    shares = [float(each.supported.float().mean()) for each in (support, forward.field.support)]
    assert shares[0] == pytest.approx(shares[1], abs=0.1)


def test_a_prior_that_is_nearly_right_need_not_be_refined(scans, matcher, monkeypatch) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = np.add(SHIFT, [5.0, -4.0, 3.0])
    monkeypatch.setattr(FieldWork, "_refined", None)
    pair = matcher.pair(*scans, prior=AffineTransform(matrix), refined=False)
    found = pair.match(places())
    assert np.linalg.norm(found.moving.positions - places() - SHIFT, axis=1).mean() < 0.3
    assert list(pair.field.evidence) == ["start by prior, field by mind"]
