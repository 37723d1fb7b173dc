"""Each doubt alone makes a match uncertain, and what was not measured raises none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meddift.matching.verdict import CARRIED, REASONS, UNDER_FIELD, Evidence, Limits, judge


def evidence(**changes) -> Evidence:
    """One match against which nothing speaks, but for `changes`."""
    good = Evidence(
        inside_fixed=np.array([True]),
        in_body=np.array([True]),
        expected_inside=np.array([True]),
        at_border=np.array([False]),
        margin=np.array([0.3]),
        inverse_error_mm=np.array([0.2]),
        deviation_mm=np.array([1.0]),
        relative_similarity=np.array([1.0]),
        misfit=np.array([0.02]),
        standard_deviation_mm=np.array([0.4]),
        supported=np.array([True]),
        uncertainty_mm=np.array([0.6]),
    )
    return replace(good, **{name: np.array([value]) for name, value in changes.items()})


def test_nothing_speaks_against_a_good_match():
    assert judge(evidence(), Limits()) == (("ok",), ((),))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"inverse_error_mm": 3.0}, "inverse_error", "matching back ends 3.0 mm away"),
        ({"margin": 0.01}, "rival", "almost as similar"),
        ({"relative_similarity": 0.5}, "dissimilar", "50 % of the usual similarity"),
        ({"misfit": 0.3}, "misfit", "surroundings fit badly (misfit 0.30)"),
        ({"standard_deviation_mm": 2.0}, "loose", "too little to see"),
        ({"standard_deviation_mm": np.inf}, "loose", "too little to see"),
        ({"deviation_mm": 20.0}, "deviation", "20 mm from where its neighbours put it"),
        ({"at_border": True}, "border", "border"),
        ({"supported": False}, "unsupported", "no reliable counterpart"),
        ({"uncertainty_mm": 3.4}, "imprecise", "differ on its place by some 3.4 mm"),
        ({"affine_only": True}, "affine_only", "affine"),
    ],
)
def test_one_doubt_is_enough_and_is_named(change, code, words):
    (verdict,), ((reason,),) = judge(evidence(**change), Limits())
    assert verdict == "uncertain"
    assert reason.code == code
    assert reason.code in REASONS
    assert words in str(reason)


@pytest.mark.parametrize(
    "name", ["inverse_error_mm", "deviation_mm", "relative_similarity", "misfit", "standard_deviation_mm"]
)
def test_what_was_not_measured_raises_no_doubt(name):
    assert judge(evidence(**{name: np.nan}), Limits())[0] == ("ok",)


@pytest.mark.parametrize("name", ["inside_fixed", "in_body", "expected_inside"])
def test_what_cannot_be_there_is_outside(name):
    (verdict,), ((reason,),) = judge(evidence(**{name: False}, at_border=True), Limits())
    assert verdict == "outside"
    assert str(reason) == REASONS[reason.code]


def test_what_is_carried_may_be_a_little_farther_off():
    assert judge(evidence(uncertainty_mm=2.5), Limits())[0] == ("uncertain",)
    assert judge(evidence(uncertainty_mm=2.5), CARRIED)[0] == ("ok",)
    assert judge(evidence(uncertainty_mm=3.5), CARRIED)[0] == ("uncertain",)


def test_all_that_speaks_against_a_match_is_named():
    _, ((first, second),) = judge(evidence(margin=0.01, at_border=True))
    assert (first.code, second.code) == ("rival", "border")


def test_the_page_about_verdicts_has_these_limits_and_codes():
    page = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for line in page.splitlines() if len(cells := line.split("|")) == 7}
    measured = {
        "inverse_error": "inverse_error_mm", "rival": "margin", "dissimilar": "similarity", "misfit": "misfit",
        "loose": "standard_deviation_mm", "deviation": "deviation_mm", "imprecise": "uncertainty_mm",
    }  # fmt: skip
    for code, name in measured.items():
        one_by_one, under_field, carried = (cell.strip() for cell in rows[code][3:6])
        assert float(one_by_one.split()[-1]) == getattr(Limits(), name)
        assert float(under_field) == getattr(UNDER_FIELD, name)
        assert not carried or float(carried) == getattr(CARRIED, name)
    assert all(f"`{code}`" in page for code in REASONS)
