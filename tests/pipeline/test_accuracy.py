"""Errors against the truth, checked on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.errors import PointsError
from meddift.geometry import Grid
from meddift.matching import Matches
from meddift.matching.verdict import Reason
from meddift.pipeline.accuracy import Errors, align_truth, measure_accuracy
from meddift.points import Points

GRID = Grid((100, 100, 100), np.eye(4))  # field of view: -0.5 to 99.5 mm


def matches_at(moving: list[list[float]], verdicts: list[str]) -> Matches:
    n = len(moving)
    fixed = Points(np.zeros((n, 3)))
    return Matches(
        fixed=fixed,
        moving=Points(np.array(moving, dtype=float), fixed.labels),
        similarity=np.full(n, 0.5),
        margin=np.full(n, 0.1),
        inverse_error_mm=np.full(n, 1.0),
        verdict=tuple(verdicts),  # type: ignore[arg-type]
        reasons=tuple(() if v == "ok" else (Reason("rival", "a reason"),) for v in verdicts),
    )


def test_distances_are_summed_up_as_by_hand() -> None:
    # 3-4-5 triangle, exact hit, 5.0001 mm and 12 mm along one axis.
    truth = Points(np.full((4, 3), 50.0))
    found = matches_at([[53, 54, 50], [50, 50, 50], [50, 50, 55.0001], [38, 50, 50]], ["ok", "ok", "ok", "uncertain"])
    result = measure_accuracy(found, truth, GRID)
    assert result.distances == pytest.approx([5, 0, 5.0001, 12])
    assert result.all.mean == pytest.approx((5 + 0 + 5.0001 + 12) / 4)
    assert result.all.median == pytest.approx((5 + 5.0001) / 2)
    # Linear between the third and the fourth of 0, 5, 5.0001, 12: position 0.95 * 3 = 2.85.
    assert result.all.p95 == pytest.approx(5.0001 + 0.85 * (12 - 5.0001))
    assert result.all.max == pytest.approx(12)
    # 5 mm exactly counts as within, 5.0001 does not.
    assert result.all.within_5mm == pytest.approx(0.5)
    assert (result.all.n, result.all.unanswered) == (4, 0)
    assert result.ok.mean == pytest.approx((5 + 0 + 5.0001) / 3)
    assert result.ok.n == 3


def test_a_point_without_an_answer_is_a_failure_and_not_left_out() -> None:
    truth = Points(np.full((2, 3), 50.0))
    nan = float("nan")
    result = measure_accuracy(matches_at([[50, 50, 51], [nan, nan, nan]], ["ok", "outside"]), truth, GRID)
    assert result.all.mean == pytest.approx(1)
    assert result.all.within_5mm == pytest.approx(0.5)
    assert (result.all.n, result.all.unanswered) == (2, 1)


def test_only_truth_inside_the_moving_scan_counts() -> None:
    nan = float("nan")
    truth = Points(np.array([[50, 50, 50], [50, 50, 99.4], [50, 50, 99.6], [50, 50, 150], [nan, nan, nan]]))
    found = matches_at([[50, 50, 52]] * 5, ["ok", "ok", "outside", "ok", "ok"])
    result = measure_accuracy(found, truth, GRID)
    assert result.all.n == 2
    assert result.all.max == pytest.approx(47.4)
    # Two true places lie beyond the field of view; the matcher claimed one of them.
    assert (result.absent, result.absent_called_ok) == (2, 1)


def test_nothing_to_compare_gives_no_numbers() -> None:
    outside = Points(np.full((1, 3), 500.0))
    result = measure_accuracy(matches_at([[1, 1, 1]], ["ok"]), outside, GRID)
    assert result.all == Errors(0, 0, None, None, None, None, ((2.0, None), (5.0, None), (10.0, None)))
    unanswered = Errors.of(np.array([np.nan, np.nan]))
    assert unanswered.within_5mm == 0
    assert unanswered.mean is None


def test_numbers_of_points_must_agree() -> None:
    with pytest.raises(PointsError, match="2 matches cannot be compared with 1"):
        measure_accuracy(matches_at([[1, 1, 1], [2, 2, 2]], ["ok", "ok"]), Points(np.zeros((1, 3))), GRID)


class TestAlignment:
    """Which true point belongs to which point."""

    points = Points(np.zeros((3, 3)), ("carina", "apex", "node"))

    def test_by_label_in_any_order_and_with_extra_points(self) -> None:
        truth = Points(np.arange(12.0).reshape(4, 3), ("node", "other", "carina", "apex"))
        aligned = align_truth(self.points, truth)
        assert aligned.labels == self.points.labels
        assert aligned.positions.tolist() == [[6, 7, 8], [9, 10, 11], [0, 1, 2]]

    def test_by_row_where_no_label_is_shared(self) -> None:
        aligned = align_truth(self.points, Points(np.arange(9.0).reshape(3, 3)))
        assert aligned.labels == self.points.labels
        assert aligned.positions[1].tolist() == [3, 4, 5]

    def test_by_row_where_labels_are_the_same_but_repeated(self) -> None:
        twice = Points(np.zeros((2, 3)), ("F", "F"))
        assert align_truth(twice, Points(np.array([[1.0, 2, 3], [4, 5, 6]]), ("F", "F"))).positions[1, 0] == 4

    def test_a_label_that_is_lacking_is_named(self) -> None:
        with pytest.raises(PointsError, match="none labelled 'apex'"):
            align_truth(self.points, Points(np.zeros((3, 3)), ("carina", "node", "xiphoid")))

    def test_other_numbers_of_points_are_refused(self) -> None:
        with pytest.raises(PointsError, match="the 2 true points do not belong to the 3 points"):
            align_truth(self.points, Points(np.zeros((2, 3))))

    def test_repeated_labels_in_another_order_are_refused(self) -> None:
        with pytest.raises(PointsError, match="not unique"):
            align_truth(Points(np.zeros((3, 3)), ("a", "a", "b")), Points(np.zeros((3, 3)), ("b", "a", "a")))
