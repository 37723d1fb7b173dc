"""Courses worked out by hand. Sources: Eisenhauer et al., Eur J Cancer 2009; 45: 228-247 (RECIST 1.1), and the EORTC's
answers to questions (recist.eortc.org)."""

from __future__ import annotations

import pytest

from meddift.errors import OptionsError
from meddift.tracking.recist import Reading, Target, Visit, assess, doubts_about_targets


def course(*sums, **last):
    """Visits with a single target of these sizes; what is given besides belongs to the last one."""
    visits = [Visit((Reading("1", size),)) for size in sums]
    visits[-1] = Visit(visits[-1].targets, **last)
    return assess(visits)


# Section 4.3.1: at least 30 % below the *baseline* sum is PR; at least 20 % above the *smallest sum on study* and at
# least 5 mm above it is PD; baseline counts as a smallest sum.
@pytest.mark.parametrize(
    ("sums", "category", "from_baseline", "from_nadir_mm"),
    [
        ((100.0, 70.0), "PR", -0.30, -30.0),  # exactly 30 %
        ((100.0, 70.1), "SD", -0.299, -29.9),
        ((100.0, 120.0), "PD", 0.20, 20.0),  # exactly 20 %, and 20 mm
        ((100.0, 119.9), "SD", 0.199, 19.9),
        ((100.0, 50.0, 60.0), "PD", -0.40, 10.0),  # 40 % below baseline and yet PD: 20 % above the nadir
        ((100.0, 50.0, 59.9), "PR", -0.401, 9.9),
        ((20.0, 24.0), "SD", 0.20, 4.0),  # 20 %, but 4 mm only
        ((20.0, 10.0, 14.0), "PR", -0.30, 4.0),  # 40 % above the nadir, 4 mm: not PD; still 30 % below baseline
        ((20.0, 10.0, 14.9), "SD", -0.255, 4.9),
        ((20.0, 10.0, 15.0), "PD", -0.25, 5.0),  # exactly 5 mm
        ((100.0, 125.0, 126.0), "PD", 0.26, 26.0),  # nadir remains the baseline
        ((50.0, 40.0, 30.0, 33.0), "PR", -0.34, 3.0),
    ],
)
def test_category_of_the_last_time_point(sums, category, from_baseline, from_nadir_mm):
    last = course(*sums)[-1]
    assert last.overall == category
    assert last.from_baseline == pytest.approx(from_baseline)
    assert last.from_nadir_mm == pytest.approx(from_nadir_mm)
    assert last.nadir_mm == min(sums)


def test_the_baseline_has_a_sum_and_no_category():
    first = course(30.0, 30.0)[0]
    assert (first.sum_mm, first.nadir_mm, first.overall) == (30.0, 30.0, None)


def test_sums_of_decimals_are_exact():
    # 0.1 + 0.2 > 0.3 in floating point: ten targets of 0.7 against one of 7.
    visits = [
        Visit(tuple(Reading(str(i), 2.0) for i in range(5))),
        Visit(tuple(Reading(str(i), 1.4) for i in range(5))),
    ]
    assert assess(visits)[1].overall == "PR"


def test_nodes_keep_their_short_axis_in_the_sum_and_complete_response_needs_less_than_ten():
    # Section 4.3.1 and appendix II: nodes that became normal are still measured; the sum of a CR need not be 0.
    def visit(mass, node):
        seen = "absent" if mass is None else "measured"
        return Visit((Reading("mass", mass, seen=seen), Reading("node", node, node=True)))

    found = assess([visit(30.0, 20.0), visit(None, 9.9), visit(None, 10.0)])
    assert (found[1].sum_mm, found[1].overall) == (9.9, "CR")
    assert assess([visit(30.0, 20.0), visit(None, 10.0)])[1].overall == "PR"


def test_a_node_of_9_that_becomes_11_is_pointed_out_and_not_progression():
    def visit(node):
        return Visit((Reading("mass", 30.0), Reading("node", node, node=True)))

    last = assess([visit(16.0), visit(9.0), visit(11.0)])[-1]
    assert last.overall == "SD"
    assert "node is 10 mm or more again" in last.reason


def test_a_target_too_small_to_measure_counts_five_mm():
    # Section 4.3.2: "present, but too small to measure": 5 mm.
    visits = [Visit((Reading("1", 12.0),)), Visit((Reading("1", None, seen="too_small"),))]
    found = assess(visits)[1]
    assert (found.sum_mm, found.overall) == (5.0, "PR")


def test_a_target_that_was_not_assessed_makes_the_time_point_not_evaluable_unless_the_rest_progressed():
    # Table 1 and section 4.4: NE, unless what was seen is enough for PD.
    def visit(first, second):
        missing = Reading("2", None, seen="not_assessed")
        return Visit((Reading("1", first), missing if second is None else Reading("2", second)))

    found = assess([visit(20.0, 10.0), visit(15.0, None), visit(36.0, None), visit(20.0, 10.0)])
    assert [a.overall for a in found] == [None, "NE", "PD", "SD"]
    assert found[1].sum_mm is None
    # What was not assessed is no smallest sum.
    assert found[3].nadir_mm == 30.0


@pytest.mark.parametrize(
    ("size", "non_targets", "new", "category"),
    [
        # Table 1 of the guideline, row by row.
        (None, "absent", False, "CR"),
        (None, "present", False, "PR"),
        (None, "not_assessed", False, "PR"),
        (60.0, "present", False, "PR"),
        (60.0, "not_assessed", False, "PR"),
        (95.0, "present", False, "SD"),
        (95.0, "not_assessed", False, "SD"),
        (130.0, "absent", False, "PD"),
        (60.0, "progressed", False, "PD"),
        (60.0, "present", True, "PD"),
        (None, "absent", True, "PD"),
    ],
)
def test_overall_response(size, non_targets, new, category):
    reading = Reading("1", size, seen="measured" if size else "absent")
    found = assess([Visit((Reading("1", 100.0),), "present"), Visit((reading,), non_targets, new)])
    assert found[1].overall == category


@pytest.mark.parametrize(
    ("non_targets", "new", "category"),
    [
        # Table 2: patients without targets; SD stands for non-CR/non-PD.
        ("absent", False, "CR"),
        ("present", False, "SD"),
        ("not_assessed", False, "NE"),
        ("progressed", False, "PD"),
        ("present", True, "PD"),
    ],
)
def test_without_targets(non_targets, new, category):
    assert assess([Visit((), "present"), Visit((), non_targets, new)])[1].overall == category


def test_a_target_that_comes_back_after_a_complete_response_is_progression():
    # EORTC: a lesion that reappears counts in the sum; after CR it is PD.
    def visit(*sizes):
        return Visit(tuple(Reading(str(i), s, seen="measured" if s else "absent") for i, s in enumerate(sizes)))

    assert assess([visit(20.0), visit(None), visit(3.0)])[-1].overall == "PD"
    # Without a complete response in between it only adds to the sum.
    found = assess([visit(20.0, 60.0), visit(None, 58.0), visit(4.0, 58.0)])[-1]
    assert (found.overall, found.sum_mm) == ("SD", 62.0)


def test_targets_cannot_change():
    with pytest.raises(OptionsError, match="chosen at baseline and kept"):
        assess([Visit((Reading("1", 10.0),)), Visit((Reading("2", 10.0),))])


def test_a_reading_says_its_size_exactly_when_it_was_measured():
    with pytest.raises(OptionsError):
        Reading("1", None)
    with pytest.raises(OptionsError):
        Reading("1", 4.0, seen="absent")
    with pytest.raises(OptionsError, match="above 0"):
        Reading("1", 0.0)


def test_choices_of_targets_that_the_guideline_does_not_allow_are_pointed_out():
    # Sections 3.1 and 4.2.1: 10 mm, nodes 15 mm; thick slices: twice their distance; 5 in all, 2 an organ;
    # all nodes are one organ.
    def target(name, long, short=9.0, *, slice_mm=1.0, node=False, organ="liver"):
        return Target(name, long, short, slice_mm, node, organ)

    assert doubts_about_targets([target("a", 10.0), target("b", 30.0)]) == []
    assert "longest diameter is 9.9 mm, not 10 mm" in doubts_about_targets([target("a", 9.9)])[0]
    assert "short axis is 14.0 mm, not 15 mm" in doubts_about_targets([target("a", 30, 14.0, node=True)])[0]
    assert "not 15 mm" in doubts_about_targets([target("a", 14.0, slice_mm=7.5)])[0]
    three = [target(name, 20.0) for name in "abc"]
    assert doubts_about_targets(three) == ["there are 3 targets in liver; at most 2 count"]
    nodes = [target(name, 20.0, 16.0, node=True, organ=name) for name in "abc"]
    assert doubts_about_targets(nodes) == ["there are 3 targets in lymph nodes; at most 2 count"]
    six = [target(str(i), 20.0, organ=f"organ {i}") for i in range(6)]
    assert doubts_about_targets(six) == ["there are 6 targets; at most 5 count"]


def test_targets_that_have_become_one_count_once_and_are_not_gone():
    # Section 4.3.2 on coalescence: the longest diameter of the merged lesion.
    apart = Visit((Reading("1", 20.0), Reading("2", 15.0)))
    merged = Visit((Reading("1", 34.0), Reading("2", None, seen="merged")))
    found = assess([apart, merged])[1]
    assert (found.sum_mm, found.overall) == (34.0, "SD")
    nodes = Visit((Reading("1", 9.0, node=True), Reading("2", None, node=True, seen="merged")))
    assert assess([Visit((Reading("1", 20.0, node=True), Reading("2", 20.0, node=True))), nodes])[1].target == "PR"
