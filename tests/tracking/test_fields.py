"""What pairs of scans of one patient are told about each other."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from meddift.geometry import AffineTransform
from meddift.tracking.fields import PatientFields


class Pairs:
    """Makes pairs that know a shift between two scans once they were asked, and notes what each was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, object, object]] = []

    def __call__(self, source, target, *, prior, back):
        self.told.append((source, target, prior, back))
        matrix = np.eye(4)
        matrix[:3, 3] = [target - source, target**2 - source**2, 1.0]
        pair = SimpleNamespace(known_field=None)

        def match(places):
            pair.known_field = SimpleNamespace(field=SimpleNamespace(transform=AffineTransform(matrix)))
            return places + matrix[:3, 3]

        pair.match = match
        return pair


def test_the_way_back_is_told_the_field_and_a_longer_way_where_two_fields_lead() -> None:
    pairs = Pairs()
    fields = PatientFields(pairs)
    places = np.random.default_rng(0).uniform(-9, 9, (5, 3))
    for source, target in ((0, 1), (1, 0), (1, 2), (0, 2), (2, 3), (0, 3)):
        fields.between(source, target).match(places)
    told = {(source, target): (prior, back) for source, target, prior, back in pairs.told}
    assert told[0, 1] == told[1, 2] == told[2, 3] == (None, None)
    prior, back = told[1, 0]
    assert prior is None
    np.testing.assert_allclose(back.field.transform.apply(places), np.add(places, [1, 1, 1]))
    # By way of the scan before: both shifts after each other.
    for target in (2, 3):
        prior, back = told[0, target]
        assert back is None
        np.testing.assert_allclose(prior.apply(places), np.add(places, [target, target**2, 2]))


def test_the_same_scans_asked_again_are_one_pair() -> None:
    pairs = Pairs()
    fields = PatientFields(pairs)
    for _ in range(3):
        fields.between(0, 1).match(np.zeros((1, 3)))
    fields.between(1, 2).match(np.zeros((1, 3)))
    assert [(source, target) for source, target, _, _ in pairs.told] == [(0, 1), (1, 2)]


def test_where_no_field_was_found_nothing_is_told() -> None:
    told = []

    def nothing(source, target, *, prior, back):
        told.append((prior, back))
        return SimpleNamespace(known_field=None, match=lambda places: places)

    fields = PatientFields(nothing)
    for source, target in ((0, 1), (1, 2), (0, 2), (1, 0)):
        fields.between(source, target).match(np.zeros((1, 3)))
    assert set(told) == {(None, None)}
