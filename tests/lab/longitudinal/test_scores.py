"""Scores of lesions over time, on answers whose faults are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from drawn_lesions import GRID, SCAN, Shift, balls
from meddift.tracking.candidates import candidates_of_mask
from meddift.tracking.follow import follow
from meddift.tracking.observations import Decision
from meddift.tracking.result import FollowUp, SeenTimePoint
from meddift_lab.longitudinal.patient import LongitudinalPatient
from meddift_lab.longitudinal.scores import Scores, score

STEP = np.array([5.0, -3.0, 2.0])
#: Lesion -> centre on the first scan, radius, labels in the two scans.
LESIONS = (
    ((40.0, 60.0, 50.0), 6.0, ((1,), (4,))),
    ((80.0, 60.0, 50.0), 8.0, ((2,), (1,))),
    ((60.0, 100.0, 60.0), 5.0, ((3,), ())),
    ((110.0, 110.0, 60.0), 5.0, ((), (2,))),
)
STATES = {
    (0, 0): "baseline", (0, 1): "matched", (1, 0): "baseline", (1, 1): "matched", (2, 0): "baseline",
    (2, 1): "disappeared", (3, 1): "new",
}  # fmt: skip


def patient() -> LongitudinalPatient:
    masks = [
        balls(*[(own[k][0], np.array(place) + k * STEP, r) for place, r, own in LESIONS if own[k]]) for k in (0, 1)
    ]
    return LongitudinalPatient(
        name="small",
        scans=(SCAN, SCAN),
        masks=tuple(masks),
        dates=(datetime(2024, 1, 1), datetime(2024, 4, 1)),
        labels=tuple(own for _, _, own in LESIONS),
        states=STATES,
        centers={(i, k): np.array(LESIONS[i][0]) + k * STEP for i in range(4) for k in (0, 1)},
        fates=("stable", "stable", "gone", "new"),
    )


def answer(one: LongitudinalPatient, *decisions: Decision) -> FollowUp:
    found = [candidates_of_mask(mask, SCAN) for mask in one.masks]
    course = follow(found, Shift(tuple(STEP)), names=("T0", "T1"), decisions=decisions)
    seen = [SeenTimePoint(f"T{k}", one.dates[k], "", "", "", found[k], GRID) for k in (0, 1)]
    return FollowUp("small", tuple(seen), course)


def test_a_right_answer_has_all_points():
    scores, wrong = score(patient(), answer(patient()))
    assert wrong == []
    assert scores == Scores(
        present=2, partners=2, links_true=2, links_found=2, links_right=2, existing=2, called_gone=0, gone=1, states=4,
        states_right=4, joined=0, joined_found=0, sizes=2, sizes_mm=0.0, categories=1, categories_right=1,
    )  # fmt: skip
    shares = scores.as_dict()
    assert (shares["correct_partner"], shares["links_f1"], shares["wrong_disappeared"]) == (1.0, 1.0, 0.0)
    assert shares["splits_and_merges_found"] is None


def test_exchanged_partners_are_wrong_links():
    swapped = answer(
        patient(),
        Decision("1", 1, ("1",), "matched", "corrected"),
        Decision("2", 1, ("4",), "matched", "corrected"),
    )
    scores, wrong = score(patient(), swapped)
    assert (scores.partners, scores.links_found, scores.links_right) == (0, 2, 0)
    assert len(wrong) >= 2
    # States are right all the same.
    assert scores.states_right == 4


def test_a_lesion_called_gone_although_it_is_there_is_counted():
    scores, wrong = score(patient(), answer(patient(), Decision("1", 1, (), "disappeared", "confirmed")))
    assert (scores.existing, scores.called_gone, scores.partners, scores.gone) == (2, 1, 1, 2)
    assert scores.as_dict()["wrong_disappeared"] == pytest.approx(0.5)
    assert scores.categories_right == 1  # a new lesion is progression in both
    assert any("lesion 0" in sentence for sentence in wrong)


def test_a_lesion_outside_the_field_of_view_that_is_called_gone_is_counted_too():
    truth = replace(patient(), states={**STATES, (2, 1): "outside"})
    scores, wrong = score(truth, answer(patient()))
    assert (scores.present, scores.existing, scores.called_gone) == (2, 3, 1)
    assert scores.as_dict()["wrong_disappeared"] == pytest.approx(1 / 3)
    assert any("lesion 2" in sentence for sentence in wrong)


def test_counts_add_up_over_patients():
    one, _ = score(patient(), answer(patient()))
    both = one + one
    assert (both.present, both.partners) == (4, 4)
    assert both.as_dict()["correct_partner"] == 1.0
