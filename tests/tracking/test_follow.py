"""What becomes of lesions, with a carrier that knows the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from drawn_lesions import GRID, Shift, found
from meddift.points import Points
from meddift.tracking.assignment import LIMIT_MM, assign
from meddift.tracking.candidates import Candidates, candidates_of_points
from meddift.tracking.follow import follow
from meddift.tracking.observations import Decision
from meddift.tracking.summary import new_lesions

STEP = np.array([5.0, -3.0, 2.0])
A, B, C = np.array([40.0, 60.0, 50.0]), np.array([80.0, 60.0, 50.0]), np.array([60.0, 100.0, 60.0])
NAMES = ("T0", "T1", "T2", "T3")


def run(*scans, carrier=None, **more):
    return follow(scans, carrier or Shift(tuple(STEP)), names=NAMES[: len(scans)], **more)


def row(course, lesion, k):
    return course.rows[lesion, k]


def labels(course, scans, lesion, k):
    return [scans[k].items[j].label for j in course.rows[lesion, k].parts]


def test_lesions_are_found_again_whatever_their_labels():
    scans = [found((1, A, 6), (2, B, 8), (3, C, 5)), found((7, C + STEP, 5), (1, B + STEP, 8), (2, A + STEP, 6))]
    course = run(*scans)
    assert [labels(course, scans, name, 1) for name in ("1", "2", "3")] == [["2"], ["1"], ["7"]]
    assert all(row(course, name, 1).state == "matched" for name in ("1", "2", "3"))
    assert all(row(course, name, 0).state == "baseline" for name in ("1", "2", "3"))
    assert all(row(course, name, 1).verdict == "ok" for name in ("1", "2", "3"))


def test_grown_and_shrunken_lesions_are_the_same():
    course = run(found((1, A, 4), (2, B, 14)), found((1, A + STEP, 12), (2, B + STEP, 4)))
    assert {row(course, n, 1).state for n in ("1", "2")} == {"matched"}


def test_what_is_left_of_a_large_lesion_at_its_edge_is_the_same_lesion():
    course = run(found((1, A, 15)), found((1, A + STEP + [11.0, 0, 0], 4)))
    assert row(course, "1", 1).state == "matched"


def test_neighbours_13_mm_apart_are_told_apart():
    near = A + np.array([13.0, 0, 0])
    scans = [found((1, A, 5), (2, near, 5)), found((1, near + STEP, 5), (2, A + STEP, 5))]
    # Even when both are expected 4 mm beside where they are.
    carrier = Shift(tuple(STEP), error={(0, 1, "1"): (4, 0, 0), (0, 1, "2"): (4, 0, 0)})
    course = run(*scans, carrier=carrier)
    assert [labels(course, scans, n, 1) for n in ("1", "2")] == [["2"], ["1"]]


def test_one_of_two_neighbours_disappears_and_the_other_stays():
    near = A + np.array([13.0, 0, 0])
    course = run(found((1, A, 5), (2, near, 5)), found((1, near + STEP, 5)))
    assert row(course, "2", 1).state == "matched"
    gone = row(course, "1", 1)
    assert (gone.state, gone.verdict, gone.parts) == ("disappeared", "ok", ())
    np.testing.assert_allclose(gone.place, A + STEP, atol=0.5)
    assert "no lesion was marked there" in gone.reason


def test_a_new_lesion_is_new_and_gets_a_number_of_its_own():
    course = run(
        found((4, A, 6)), found((1, A + STEP, 6), (2, C + STEP, 5)), found((3, C + 2 * STEP, 5), (9, A + 2 * STEP, 6))
    )
    assert (row(course, "5", 1).state, row(course, "5", 1).verdict) == ("new", "ok")
    assert row(course, "5", 2).state == "matched"
    assert ("5", 0) not in course.rows


def test_a_lesion_beyond_the_field_of_view_is_outside_and_not_gone():
    edge = np.array([156.0, 60.0, 50.0])
    course = run(found((1, A, 6), (2, edge, 4)), found((1, A + STEP, 6)))
    assert (row(course, "2", 1).state, row(course, "2", 1).verdict) == ("outside", "outside")


def test_disappearance_needs_a_place_that_was_found_for_sure():
    course = run(found((1, A, 6)), found((1, C, 6)), carrier=Shift(tuple(STEP), unsure={(0, 1, "1")}))
    assert row(course, "1", 1).state == "uncertain"
    assert row(course, "1", 1).reason == "not sure"


def test_a_lesion_is_not_gone_while_another_without_partner_lies_nearby():
    course = run(found((1, A, 6)), found((1, A + STEP + [17.0, 0, 0], 6)))
    assert row(course, "1", 1).state == "uncertain"
    assert "has no partner either" in row(course, "1", 1).reason


def test_what_lies_where_the_earlier_scan_does_not_reach_is_new_and_that_is_said():
    start = np.array([3.0, 60.0, 50.0])
    course = run(found((1, A, 6)), found((1, A + STEP, 6), (2, start, 3)))
    assert (row(course, "2", 1).state, row(course, "2", 1).verdict) == ("new", "outside")


def test_what_cannot_be_looked_for_for_sure_is_new_only_if_it_can_be_no_earlier_lesion():
    # Another one without partner lies 22 mm from where it may be.
    carrier = Shift(tuple(STEP), unsure={(1, 0, "2"), (0, 1, "2")})
    missing = C + np.array([22.0, 0, 0])
    course = run(found((1, A, 6), (2, missing, 5)), found((1, A + STEP, 6), (2, C + STEP, 5)), carrier=carrier)
    assert row(course, "3", 1).state == "uncertain"
    # None does.
    course = run(found((1, A, 6)), found((1, A + STEP, 6), (2, C + STEP, 5)), carrier=carrier)
    assert (row(course, "2", 1).state, row(course, "2", 1).verdict) == ("new", "uncertain")
    assert "no lesion without partner lies anywhere near" in row(course, "2", 1).reason


def test_a_lesion_splits_and_stays_one():
    pieces = (A + STEP - [6.0, 0, 0], A + STEP + [6.0, 0, 0])
    scans = [
        found((1, A, 11), (2, C, 5)),
        found((5, pieces[0], 4), (3, pieces[1], 4), (2, C + STEP, 5)),
        found((1, pieces[1] + STEP, 3), (2, pieces[0] + STEP, 3), (3, C + 2 * STEP, 5)),
    ]
    course = run(*scans)
    assert row(course, "1", 1).state == "split"
    assert sorted(labels(course, scans, "1", 1)) == ["3", "5"]
    assert row(course, "1", 2).state == "split"
    assert sorted(labels(course, scans, "1", 2)) == ["1", "2"]
    assert course.order == ["1", "2"]


def test_two_lesions_merge_and_part_again():
    near = A + np.array([14.0, 0, 0])
    middle = (A + near) / 2
    scans = [
        found((1, A, 5), (2, near, 5)),
        found((8, middle + STEP, 13)),
        found((1, near + 2 * STEP, 5), (2, A + 2 * STEP, 5)),
    ]
    course = run(*scans)
    assert [row(course, n, 1).state for n in ("1", "2")] == ["merged", "merged"]
    assert row(course, "1", 1).parts == row(course, "2", 1).parts
    # Sizes of the one mass count once.
    assert [row(course, n, 1).carries_sizes for n in ("1", "2")] == [True, False]
    assert [row(course, n, 2).state for n in ("1", "2")] == ["matched", "matched"]
    assert [labels(course, scans, n, 2) for n in ("1", "2")] == [["2"], ["1"]]


def test_both_ways_are_asked_and_their_disagreement_is_said():
    near = A + np.array([14.0, 0, 0])
    scans = [found((1, A, 5)), found((1, A + STEP, 5)), found((1, A + 2 * STEP, 5), (2, near + 2 * STEP, 5))]
    carrier = Shift(tuple(STEP), error={(1, 2, "1"): (14.0, 0, 0)})
    course = run(*scans, carrier=carrier)
    assert {(s, t) for s, t, _ in carrier.asked if t == 2} == {(0, 2), (1, 2)}
    assert row(course, "1", 2).verdict == "uncertain"
    assert "the two ways disagree: T0 leads to 1 and T1 leads to 2" in row(course, "1", 2).reason
    assert {link.route for link in row(course, "1", 2).links} == {"baseline", "previous"}


def test_one_way_that_errs_does_not_lose_the_lesion():
    scans = [found((1, A, 5)), found((1, A + STEP, 5)), found((1, A + 2 * STEP, 5))]
    for pair in ((0, 2), (1, 2)):
        course = run(*scans, carrier=Shift(tuple(STEP), error={(*pair, "1"): (25.0, 0, 0)}))
        assert row(course, "1", 2).state == "matched"


def test_a_lesion_that_comes_back_is_the_same():
    course = run(
        found((1, A, 5), (2, C, 5)), found((1, C + STEP, 5)), found((1, A + 2 * STEP, 5), (2, C + 2 * STEP, 5))
    )
    assert [row(course, "1", k).state for k in (0, 1, 2)] == ["baseline", "disappeared", "matched"]
    assert "there again after T1" in row(course, "1", 2).reason


def test_a_lesion_found_only_from_the_later_scan_back_is_doubted():
    carrier = Shift(tuple(STEP), error={(0, 1, "1"): (60.0, 0, 0)})
    course = run(found((1, A, 6)), found((1, A + STEP, 6)), carrier=carrier)
    assert (row(course, "1", 1).state, row(course, "1", 1).verdict) == ("matched", "uncertain")
    assert "looking from T1 back" in row(course, "1", 1).reason


def test_a_scan_that_cannot_be_read_costs_its_own_time_point():
    course = run(found((1, A, 6)), "damaged.nii.gz is cut off", found((1, A + 2 * STEP, 6)))
    assert row(course, "1", 1).state == "uncertain"
    assert "cut off" in row(course, "1", 1).reason
    assert row(course, "1", 2).state == "matched"


def test_without_lesions_given_the_places_are_told_and_nothing_disappears():
    course = run(found((1, A, 6)), Candidates(given=False), found((1, A + 2 * STEP, 6)))
    only = row(course, "1", 1)
    assert (only.state, only.parts) == ("matched", ())
    np.testing.assert_allclose(only.place, A + STEP, atol=0.5)
    assert row(course, "1", 2).state == "matched"


def test_an_empty_mask_means_that_all_are_gone():
    course = run(found((1, A, 6), (2, B, 6)), Candidates())
    assert {row(course, n, 1).state for n in ("1", "2")} == {"disappeared"}


def test_points_are_followed_too():
    def points(*places):
        return candidates_of_points(Points(np.array(places), tuple("xyz"[: len(places)])), found_scan)

    found_scan = type("Scan", (), {"grid": GRID})
    course = run(points(A, B), points(B + STEP, A + STEP))
    assert [row(course, n, 1).parts for n in ("1", "2")] == [(1,), (0,)]


def test_a_word_of_a_person_is_kept_and_a_rejected_link_is_not_made_again():
    scans = [found((1, A, 6), (2, B, 6)), found((1, A + STEP, 6), (2, B + STEP, 6))]
    swapped = [Decision("1", 1, ("2",), "matched", "corrected"), Decision("2", 1, ("1",), "matched", "confirmed")]
    course = run(*scans, decisions=swapped)
    assert [labels(course, scans, n, 1) for n in ("1", "2")] == [["2"], ["1"]]
    assert row(course, "1", 1).review == "corrected"
    course = run(*scans, decisions=[Decision("1", 1, ("1",), "matched", "rejected")])
    assert labels(course, scans, "2", 1) == ["2"]
    assert row(course, "1", 1).parts == ()
    gone = run(*scans, decisions=[Decision("1", 1, (), "disappeared", "confirmed")])
    assert row(gone, "1", 1).state == "disappeared"


def test_numbers_of_an_edited_table_stay_and_what_was_rejected_stays_rejected():
    scans = [found((1, A, 6)), found((1, A + STEP, 6), (2, C + STEP, 5)), found((1, C + 2 * STEP, 5))]
    table = [
        Decision("7", 1, ("2",), "new", "proposed"),  # a person has renumbered it
        Decision("7", 2, ("1",), "matched", "confirmed"),
    ]
    course = run(*scans, decisions=table)
    assert course.order == ["1", "7"]
    assert (row(course, "7", 1).state, row(course, "7", 2).review) == ("new", "confirmed")
    # It is no lesion at all: it is not counted as new, however often it is found.
    course = run(*scans[:2], decisions=[Decision("2", 1, ("2",), "new", "rejected")])
    assert (row(course, "2", 1).state, row(course, "2", 1).review) == ("new", "rejected")
    assert new_lesions(course, 1) == []
    assert new_lesions(run(*scans[:2]), 1) == ["2"]


def test_assignment_has_the_least_sum_of_all():
    generator = np.random.default_rng(0)
    for _ in range(60):
        rows, columns = generator.integers(1, 5, 2)
        costs = generator.uniform(0, 2 * LIMIT_MM, (rows, columns))
        got = assign(costs)
        total = sum(costs[r, c] for r, c in got) + LIMIT_MM / 2 * (rows + columns - 2 * len(got))
        best = np.inf
        for size in range(min(rows, columns) + 1):
            for chosen in itertools.combinations(range(rows), size):
                for order in itertools.permutations(range(columns), size):
                    each = [costs[r, c] for r, c in zip(chosen, order, strict=True)]
                    if all(cost < LIMIT_MM for cost in each):
                        best = min(best, sum(each) + LIMIT_MM / 2 * (rows + columns - 2 * size))
        assert total == pytest.approx(best)
