from __future__ import annotations

import math
from datetime import datetime

import pytest

from meddift.tracking.growth import VOLUME_PARTIAL, VOLUME_PROGRESSION, Size, growth, volume_doubling_days

JANUARY, JULY, NEXT_MARCH = datetime(2024, 1, 1), datetime(2024, 7, 1), datetime(2025, 3, 1)


def size(date, mean, volume=100.0, **more):
    return Size(date, mean, volume, more.pop("slice_mm", 1.0), **more)


@pytest.mark.parametrize(
    ("later", "date", "lung_rads", "fleischner"),
    [
        (7.5, JULY, False, False),  # exactly 1.5 mm is not more than 1.5 mm
        (7.6, JULY, True, False),
        (7.9, JULY, True, False),
        (8.0, JULY, True, True),  # 2 mm
        (7.64, JULY, True, False),  # rounded to 0.1 mm: 7.6
        (7.54, JULY, False, False),  # 7.5
        (4.0, JULY, False, False),
        (8.0, NEXT_MARCH, None, True),  # 14 months: not known when it grew
        (7.0, NEXT_MARCH, False, False),
    ],
)
def test_growth_of_the_mean_diameter(later, date, lung_rads, fleischner):
    found = growth(size(JANUARY, 6.0), size(date, later))
    assert (found.lung_rads, found.fleischner) == (lung_rads, fleischner)


def test_doubling_time_by_its_definition():
    assert volume_doubling_days(100.0, 200.0, 90.0) == pytest.approx(90.0)
    assert volume_doubling_days(100.0, 400.0, 90.0) == pytest.approx(45.0)
    assert volume_doubling_days(100.0, 50.0, 90.0) == pytest.approx(-90.0)
    assert math.isinf(volume_doubling_days(100.0, 100.0, 90.0))


def test_doubling_time_is_told_only_from_a_quarter_on():
    assert growth(size(JANUARY, 6.0, 100.0), size(JULY, 6.1, 124.0)).doubling_days is None
    found = growth(size(JANUARY, 6.0, 100.0), size(JULY, 6.4, 125.0))
    assert found.doubling_days == pytest.approx(182 * math.log(2) / math.log(1.25))
    assert growth(size(None, 6.0, 100.0), size(JULY, 9.0, 300.0)).doubling_days is None


@pytest.mark.parametrize(
    ("earlier", "later", "words"),
    [
        ({"slice_mm": 1.25}, {"slice_mm": 5.0}, "slices of 1.25 and 5 mm"),
        ({"phase": "portal"}, {"phase": "arterial"}, "contrast phase"),
        ({}, {"at_border": True}, "border"),
    ],
)
def test_growth_that_may_not_be_said_is_not_said(earlier, later, words):
    found = growth(size(JANUARY, 6.0, **earlier), size(JULY, 12.0, **later))
    assert found.lung_rads is None
    assert found.fleischner is None
    assert any(words in doubt for doubt in found.doubts)


def test_similar_slices_and_the_same_phase_raise_no_doubt():
    assert growth(size(JANUARY, 6.0, slice_mm=0.7), size(JULY, 9.0, slice_mm=1.25)).doubts == ()
    assert growth(size(JANUARY, 6.0, phase="Portal"), size(JULY, 9.0, phase="portal")).doubts == ()


def test_volumes_are_the_sphere_equivalents_of_diameters():
    def ball(d):
        return math.pi / 6 * d**3

    assert pytest.approx(ball(7) / ball(10) - 1) == VOLUME_PARTIAL
    assert pytest.approx(ball(12) / ball(10) - 1) == VOLUME_PROGRESSION
