"""Drawn lesions and patients: shapes against closed forms, truth against the scans themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.longitudinal.fates import CLOSE_MM, FATES, random_courses
from meddift_lab.longitudinal.patient import LongitudinalPatient, drawn_patient
from meddift_lab.longitudinal.shapes import Lump, draw, label_map

GRID = Grid((40, 40, 40), np.diag([1.0, 1.0, 1.0, 1.0]))


def test_a_lump_has_about_the_volume_of_a_ball_and_soft_edges():
    for seed in range(4):
        lump = Lump((20.0, 20.0, 20.0), 9.0, seed)
        inside = label_map(GRID, [(lump, 5)]).data
        assert set(np.unique(inside)) == {0, 5}
        assert (inside == 5).sum() == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.35)
        drawn = draw(Volume(np.full(GRID.shape, -800, np.int16), GRID), [(lump, 40.0)]).data
        assert np.array_equal(drawn > -380, inside == 5)  # half way between both
        assert ((drawn > -790) & (drawn < 30)).any()


def test_a_lump_keeps_its_form_when_it_grows():
    places = GRID.voxel_centers().reshape(-1, 3)
    small, large = Lump((20.0, 20.0, 20.0), 5.0, 3), Lump((20.0, 20.0, 20.0), 10.0, 3)
    scaled = np.array([20.0, 20.0, 20.0]) + (places - 20.0) / 2
    assert np.array_equal(large.depth(places) > 0, small.depth(scaled) > 0)


def test_courses_hold_every_fate_and_stay_within_the_radii():
    for seed in range(20):
        courses = random_courses(np.random.default_rng(seed), times=3)
        assert {course.fate for course in courses} == set(FATES)
        radii = [r for course in courses for r in course.radii_mm if r is not None]
        assert min(radii) >= 4.0
        assert max(radii) <= 15.0
        for number, course in enumerate(courses):
            if course.neighbour is not None:
                assert courses[course.neighbour].neighbour == number


@pytest.fixture(scope="module")
def patient() -> LongitudinalPatient:
    return drawn_patient(5, spacing_mm=4.0, more=0)


def test_labels_say_where_lesions_are(patient: LongitudinalPatient) -> None:
    for k, (scan, mask) in enumerate(zip(patient.scans, patient.masks, strict=True)):
        assert mask.grid.same_as(scan.grid)
        named = {label for own in patient.labels for label in own[k]}
        assert named == set(np.unique(mask.data)) - {0}
        for i, own in enumerate(patient.labels):
            if len(own[k]) == 1 and patient.states[i, k] != "merged":
                middle = mask.grid.index_to_world(np.argwhere(mask.data == own[k][0])).mean(axis=0)
                assert np.linalg.norm(middle - patient.centers[i, k]) < 4.0


def test_states_agree_with_labels(patient: LongitudinalPatient) -> None:
    states = set(patient.states.values())
    assert {"baseline", "matched", "new", "disappeared", "split", "merged", "outside"} <= states
    for (i, k), state in patient.states.items():
        labels = patient.labels[i][k]
        assert bool(labels) == (state not in ("disappeared", "outside"))
        if state == "split":
            assert len(labels) == 2
            parts = np.isin(patient.masks[k].data, labels)
            assert ndimage.label(parts, structure=np.ones((3, 3, 3)))[1] == 2
        if state == "merged":
            assert any(other[k] == labels for n, other in enumerate(patient.labels) if n != i)
        if state == "outside":
            assert not patient.scans[k].grid.contains(patient.centers[i, k])


def test_neighbours_are_as_far_apart_as_said(patient: LongitudinalPatient) -> None:
    places = np.array([patient.centers[i, 0] for i in range(len(patient.labels))])
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert np.isclose(distance, CLOSE_MM, atol=1e-6).sum() == 6  # three pairs, both ways


def test_equal_seeds_are_equal_patients(patient: LongitudinalPatient) -> None:
    again = drawn_patient(5, spacing_mm=4.0, more=0)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(patient.scans, again.scans, strict=True))
    assert again.labels == patient.labels
