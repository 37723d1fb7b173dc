"""A field that was found once is found again on disk, to the bit; damaged ones are made again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import meddift
from meddift.features import FeatureStore, Level, Pyramid
from meddift.geometry import AffineTransform, DisplacementField, Grid
from meddift.io import write_transform
from meddift.pipeline.kept_field import keep_field
from meddift.registration.fitted import Field
from meddift.registration.support import Support
from meddift.volume import Volume

KEY = "2" * 64


@pytest.fixture
def store(tmp_path):
    grid = Grid((2, 2, 2), np.eye(4))
    made = FeatureStore(tmp_path)
    made.put(Pyramid((Level("up0", np.ones((2, 2, 2, 1)), grid),), grid, grid, KEY))
    return made


def a_field(seed=0):
    random = np.random.default_rng(seed)
    grid, nodes = Grid((9, 8, 7), np.diag([4.0, 4.0, 4.0, 1.0])), Grid((5, 4, 4), np.diag([8.0, 8.0, 8.0, 1.0]))
    field = DisplacementField(random.normal(0, 9, (3, 9, 8, 7)).astype(np.float32), grid)
    disagreement = torch.from_numpy(random.uniform(0, 9, nodes.shape).astype(np.float32))
    support = Support(nodes, disagreement, torch.from_numpy(random.uniform(size=nodes.shape) > 0.4))
    return Field(
        field,
        (field,),
        None,
        AffineTransform(np.diag([1.1, 0.9, 1.0, 1.0])),
        support,
        {"a": 0.7, "b": 1 / 3},
        {"dense": 3.0},
    )


def never():
    raise AssertionError("made again")


def test_it_comes_back_to_the_bit(store):
    first = keep_field(store, KEY, {"seed": 0}, a_field)
    again = keep_field(store, KEY, {"seed": 0}, never)
    points = np.random.default_rng(5).uniform(0, 30, (50, 3))
    np.testing.assert_array_equal(again.transform.apply(points), first.transform.apply(points))
    np.testing.assert_array_equal(again.affine.matrix, first.affine.matrix)
    at = torch.from_numpy(points)
    assert torch.equal(again.support.supported_at(at), first.support.supported_at(at))
    assert torch.equal(again.support.uncertainty_at(at), first.support.uncertainty_at(at))
    assert list(again.evidence.items()) == list(first.evidence.items())
    with pytest.raises(AssertionError, match="made again"):
        keep_field(store, KEY, {"seed": 1}, never)


def test_a_prior_file_that_was_written_anew_makes_another_field(tmp_path, monkeypatch):
    scan = Volume(np.random.default_rng(0).normal(0, 100, (16, 16, 16)).astype(np.int16), Grid((16,) * 3, np.eye(4)))
    monkeypatch.setattr("meddift.pipeline.scan_pair.keep_field", lambda store, key, settings, make: settings)
    told = []
    for shift in (0.0, 1.0):
        matrix = np.eye(4)
        matrix[0, 3] = shift
        write_transform(AffineTransform(matrix), tmp_path / "prior.tfm")
        matcher = meddift.Matcher(levels=("mind",), store=False, prior=tmp_path / "prior.tfm")
        told.append(matcher.pair(scan, scan).field["prior"])
    assert told[0] != told[1]


def test_a_damaged_one_is_made_again(store, tmp_path):
    keep_field(store, KEY, {}, a_field)
    (note,) = [path for path in tmp_path.rglob("*") if path.name.startswith("field-")]
    text = note.read_text()
    note.write_text(
        text.replace('"displacement": "', '"displacement": "AAAA').replace('"displacement":"', '"displacement":"AAAA')
    )
    made = keep_field(store, KEY, {}, lambda: a_field(1))
    np.testing.assert_array_equal(made.transform.displacement, a_field(1).transform.displacement)


def test_both_sides_of_what_slides_come_back(store):
    whole = a_field()
    other = DisplacementField(whole.transform.displacement + np.float32(5), whole.transform.grid)
    left = Volume(whole.transform.grid.voxel_centers()[..., 0] < 14, whole.transform.grid)
    made = Field(whole.transform, (whole.transform, other), left, whole.affine, whole.support, {}, {})
    keep_field(store, KEY, {}, lambda: made)
    again = keep_field(store, KEY, {}, never)
    points = np.random.default_rng(5).uniform(2, 24, (50, 3))
    np.testing.assert_array_equal(again.apply(points), made.apply(points))
    np.testing.assert_array_equal(again.parts[1].apply(points), other.apply(points))
    assert not np.array_equal(again.apply(points), again.transform.apply(points))
