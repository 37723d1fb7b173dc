"""Errors at points and numbers over cases, against cases worked by hand and against SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from meddift.errors import OptionsError, PointsError
from meddift.geometry import Grid
from meddift.pipeline.accuracy import Errors
from meddift.points import Points
from meddift_lab import compare_paired, mean_over_cases, snapped_to_voxels, target_errors, tre30


def test_a_case_worked_by_hand() -> None:
    # 3-4-5 triangles: distances 5, 0, 10 and no answer.
    found = Points(np.array([[3.0, 4, 0], [1, 1, 1], [0, 6, 8], [np.nan] * 3]))
    truth = Points(np.array([[0.0, 0, 0], [1, 1, 1], [0, 0, 0], [9, 9, 9]]))
    distances = target_errors(found, truth)
    np.testing.assert_array_equal(distances, [5, 0, 10, np.nan])
    errors = Errors.of(distances)
    assert (errors.n, errors.unanswered) == (4, 1)
    assert errors.mean == 5
    assert errors.median == 5
    assert errors.max == 10
    # Sorted 0, 5, 10: place 0.95 * 2 = 1.9, so 5 + 0.9 * 5.
    assert errors.p95 == pytest.approx(9.5)
    # No answer is not found: one of four within 2 mm, two within 5 (the limit counts), three within 10.
    assert dict(errors.within) == {2.0: 0.25, 5.0: 0.5, 10.0: 0.75}


def test_without_any_answer_there_is_no_mean() -> None:
    errors = Errors.of(np.full(3, np.nan))
    assert (errors.n, errors.unanswered, errors.mean, errors.max) == (3, 3, None, None)
    assert {share for _, share in errors.within} == {0.0}
    assert {share for _, share in Errors.of(np.zeros(0)).within} == {None}


def test_points_that_do_not_belong_together_are_refused() -> None:
    one, two = Points(np.zeros((1, 3))), Points(np.zeros((2, 3)))
    with pytest.raises(PointsError, match="1 found points cannot be compared with 2"):
        target_errors(one, two)
    with pytest.raises(PointsError, match="true place of point '1' is missing"):
        target_errors(one, Points(np.full((1, 3), np.nan)))


def test_snapping_costs_up_to_half_a_voxel_along_each_axis() -> None:
    grid = Grid((20, 20, 20), np.diag([-2.0, 2.0, 5.0, 1.0]))
    points = Points(grid.index_to_world([[1.4, 2.0, 3.0], [1.6, 2.0, 3.0], [4.0, 4.0, 7.49]]))
    snapped = snapped_to_voxels(points, grid)
    np.testing.assert_allclose(grid.world_to_index(snapped.positions), [[1, 2, 3], [2, 2, 3], [4, 4, 7]])
    # 0.4 and 0.4 voxels of 2 mm, 0.49 voxels of 5 mm.
    np.testing.assert_allclose(target_errors(snapped, points), [0.8, 0.8, 2.45])


def test_rounding_costs_what_the_anchors_say_on_the_lattice_of_lungct() -> None:
    # Learn2Reg's LungCT has voxels of 1.75 x 1.25 x 1.75 mm; rounding one end costs 0.77 mm in the mean.
    grid = Grid((192, 192, 208), np.diag([1.75, 1.25, 1.75, 1.0]))
    places = np.random.default_rng(0).uniform(10, 180, (40_000, 3))
    points = Points(grid.index_to_world(places))
    assert target_errors(snapped_to_voxels(points, grid), points).mean() == pytest.approx(0.77, abs=0.01)


def test_tre30_is_a_quantile_of_case_means() -> None:
    # Eleven cases: place 0.7 * 10 = 7 counted from 0, the eighth smallest, exactly.
    assert tre30([10, 0, 9, 1, 8, 2, 7, 3, 6, 4, 5]) == 7
    # Four cases: place 2.1 between 3 and 10.
    assert tre30([1, 2, 3, 10]) == pytest.approx(3 + 0.1 * 7)
    # Pooling points would give a case with many points more weight: case means do not know how many there were.
    many, few = np.full(1000, 1.0), np.full(10, 9.0)
    assert tre30([many.mean(), few.mean()]) == pytest.approx(1 + 0.7 * 8)
    assert np.quantile(np.concatenate([many, few]), 0.7) == 1


def test_the_interval_is_that_of_all_resamples() -> None:
    # Three cases have 27 equally likely resamples: their quantiles are exact, the bootstrap approaches them.
    values = np.array([1.0, 2.0, 6.0])
    exact = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=3)])
    interval = mean_over_cases(values)
    assert interval.mean == pytest.approx(3.0)
    assert interval.low is not None
    assert interval.high is not None
    assert exact[0] <= interval.low <= exact[2]
    assert exact[-3] <= interval.high <= exact[-1]


def test_the_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, 1.5, 12)
    ours = mean_over_cases(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=5).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.05)
    assert ours.high == pytest.approx(theirs.high, abs=0.05)
    assert mean_over_cases(values) == ours
    assert mean_over_cases(values, seed=1) != ours


def test_one_case_has_no_interval() -> None:
    assert mean_over_cases([2.5]).low is None
    assert compare_paired([1.0], [2.0]).p_value is None


def test_a_paired_comparison_worked_by_hand() -> None:
    # All six differences have one sign: of 2^6 sign patterns two are as extreme, p = 2 / 64.
    first, second = [1.0, 2, 3, 4, 5, 6], [2.0, 4, 6, 8, 10, 12]
    compared = compare_paired(first, second)
    assert compared.p_value == pytest.approx(2 / 64)
    assert compared.mean_difference == -3.5
    assert compared.high is not None
    assert compared.high < 0
    # With five cases nothing can be below 2 / 32.
    assert compare_paired(first[:5], second[:5]).p_value == pytest.approx(2 / 32)
    assert compare_paired(first, first).p_value is None


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_statistics_need_finite_numbers(values: list[float]) -> None:
    for function in (mean_over_cases, tre30):
        with pytest.raises(OptionsError, match="at least one finite number"):
            function(values)


def test_different_cases_cannot_be_paired() -> None:
    with pytest.raises(OptionsError, match="2 and 3 cases"):
        compare_paired([1.0, 2.0], [1.0, 2.0, 3.0])
