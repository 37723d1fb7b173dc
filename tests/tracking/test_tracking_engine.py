"""Lesions carried by matching places around them, with an engine whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from drawn_lesions import GRID, found
from meddift.geometry import Grid
from meddift.points import Points
from meddift.tracking.engine import MatchedCarrier
from meddift.tracking.kept import Answers, Kept

CENTER = np.array([80.0, 80.0, 60.0])
#: A displacement that changes from place to place as with breathing.
LINEAR = np.array([[0.0, 0.0, 0.05], [0.0, 0.0, 0.0], [0.0, 0.1, 0.25]])
SHIFT = np.array([4.0, -6.0, 9.0])


def truth(places):
    return places + SHIFT + (places - CENTER) @ LINEAR.T


@dataclass
class Engine:
    """Answers truly, but for places within `blind` of the lesion, which are anywhere and not sure."""

    blind: float = 0.0
    noise: float = 0.0
    unsure: bool = False
    questions: list = field(default_factory=list)

    def match(self, places):
        self.questions.append(np.asarray(places))
        generator = np.random.default_rng(len(places))
        answers = truth(places) + generator.normal(0, self.noise, places.shape)
        near = np.linalg.norm(places - CENTER, axis=1) < self.blind
        answers[near] += generator.uniform(-15, 15, (near.sum(), 3))
        inside = GRID.contains(answers)
        answers[~inside] = np.nan
        verdicts = np.where(near | self.unsure, "uncertain", "ok")
        verdicts[~inside] = "outside"
        return type(
            "Matches", (), {"moving": Points(answers), "verdict": tuple(verdicts), "reason": ("why",) * len(places)}
        )


def carry(engine, *lesions, kept=None):
    carrier = MatchedCarrier(lambda source, target: engine, lambda k: GRID, kept)
    return carrier.carry(0, 1, found(*lesions).items)


def test_place_and_voxels_follow_a_displacement_that_changes_from_place_to_place():
    (one,) = carry(Engine(noise=0.3), (1, CENTER, 8.0))
    assert one.verdict == "ok"
    np.testing.assert_allclose(one.center, truth(CENTER[None])[0], atol=0.5)
    cloud = found((1, CENTER, 8.0)).items[0].cloud
    assert np.linalg.norm(one.cloud - truth(cloud), axis=1).max() < 1.5


def test_a_third_of_wild_answers_does_no_harm():
    engine = Engine(blind=13.0)  # the middle and the diagonal places are wrong, the other six are right
    (one,) = carry(engine, (1, CENTER, 8.0))
    assert one.verdict == "ok"
    np.testing.assert_allclose(one.center, truth(CENTER[None])[0], atol=1.5)
    assert len(engine.questions) == 1


def test_farther_places_are_asked_where_the_near_ones_do_not_tell():
    engine = Engine(blind=18.0)
    near, other = carry(engine, (1, CENTER, 8.0), (2, CENTER - [55.0, 0, 0], 5.0))
    assert [len(places) for places in engine.questions] == [30, 15]
    assert (near.verdict, other.verdict) == ("ok", "ok")
    np.testing.assert_allclose(near.center, truth(CENTER[None])[0], atol=1.5)


def test_where_nothing_tells_the_place_it_is_not_sure():
    (one,) = carry(Engine(blind=60.0), (1, CENTER, 8.0))
    assert one.verdict == "uncertain"
    assert "places around it" in one.reason


def test_many_answers_that_agree_closely_are_sure_together():
    (one,) = carry(Engine(noise=0.3, unsure=True), (1, CENTER, 8.0))
    assert one.verdict == "ok"
    (one,) = carry(Engine(noise=4.0, unsure=True), (1, CENTER, 8.0))
    assert one.verdict == "uncertain"


@pytest.mark.parametrize("radius", [4.0, 9.0])
def test_beyond_the_field_of_view(radius):
    (one,) = carry(Engine(), (1, [40.0, 80.0, 109.0], radius))
    assert one.verdict == "outside"
    assert np.isnan(one.center).all()


def test_what_may_lie_just_beyond_the_field_of_view_is_not_said_to_be_outside():
    class Vague(Engine):
        def match(self, places):
            answers = truth(places) + np.random.default_rng(len(places)).normal(0, 5.0, places.shape)
            return type(
                "Matches",
                (),
                {"moving": Points(answers), "verdict": ("uncertain",) * len(places), "reason": ("",) * len(places)},
            )

    top = GRID.corners[:, 2].max()
    (one,) = carry(Vague(), (1, [80.0, 80.0, top - 6.0], 5.0))  # some 15 mm beyond it, give or take 8
    assert one.verdict == "uncertain"


def test_kept_answers_are_those_of_the_same_question_only(tmp_path):
    places = np.random.default_rng(0).normal(size=(4, 3))
    answers = Answers(np.array([[1.0, 2, 3], [np.nan] * 3, [4, 5, 6], [7, 8, 9]]), ("ok",) * 4, ("",) * 4)
    kept = Kept(tmp_path / "kept", ["a", "b", "c"], {"model": "x"})
    assert kept.get(0, 1, places) is None
    kept.put(0, 1, places, answers)
    same = kept.get(0, 1, places)
    assert same is not None
    np.testing.assert_array_equal(same.positions, answers.positions)
    assert kept.get(1, 0, places) is None
    assert kept.get(0, 2, places) is None
    assert kept.get(0, 1, places + 0.01) is None
    assert Kept(tmp_path / "kept", ["a", "b", "c"], {"model": "y"}).get(0, 1, places) is None
    assert Kept(tmp_path / "kept", ["a", "z", "c"], {"model": "x"}).get(0, 1, places) is None


def test_agreement_alone_is_not_trusted_at_the_border_of_the_field_of_view() -> None:
    from meddift.tracking.candidates import Candidate
    from meddift.tracking.engine import _together, places_around
    from meddift.tracking.kept import Answers

    grid = Grid((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    said = {}
    for depth in (2.0, 30.0):
        lesion = Candidate("1", np.array([40.0, 40.0, depth]))
        places = places_around(lesion, (4.0, 8.0))
        answers = Answers(places.copy(), ("uncertain",) * len(places), ("",) * len(places))
        said[depth] = _together(lesion, places, answers, grid).verdict
    assert said == {2.0: "uncertain", 30.0: "ok"}
