"""Statistics over cases: means with bootstrap intervals, TRE30 of Learn2Reg, and paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import OptionsError

Floats = NDArray[np.float64]

#: Number of bootstrap resamples, and confidence level of the interval.
RESAMPLES, CONFIDENCE = 10_000, 0.95
#: Quantile of the case means that TRE30 is.
TRE30_QUANTILE = 0.7


@dataclass(frozen=True)
class Interval:
    """A mean over cases with its confidence interval.

    Attributes:
        mean: Mean of the values of the cases.
        low: Lower end of the 95 % interval; None with fewer than two cases.
        high: Upper end.
        n: Number of cases.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_over_cases(values: ArrayLike, *, seed: int = 0) -> Interval:
    """Mean over cases with the percentile interval of a bootstrap over cases (Efron 1979).

    Cases are resampled, not points, because the points of one case are not independent. With few cases the
    percentile interval is somewhat too narrow.

    Args:
        values: (N,) one finite number for each case.
        seed: Seed of the resampling; equal seeds give equal intervals.

    Raises:
        OptionsError: if there is no case, or a value is not finite.
    """
    cases = _checked(values)
    if len(cases) < 2:
        return Interval(float(cases.mean()), None, None, len(cases))
    generator = np.random.default_rng(seed)
    means = cases[generator.integers(0, len(cases), (RESAMPLES, len(cases)))].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(cases.mean()), float(low), float(high), len(cases))


def tre30(case_means: ArrayLike) -> float:
    """Learn2Reg's "TRE30": the 0.7 quantile of the case means, linear between neighbours.

    It is not the mean of the worst 30 %, and not a quantile of points.

    Args:
        case_means: (N,) mean TRE of each case, mm.

    Raises:
        OptionsError: if there is no case, or a value is not finite.
    """
    return float(np.quantile(_checked(case_means), TRE30_QUANTILE))


@dataclass(frozen=True)
class PairedComparison:
    """Comparison of two methods on the same cases.

    Attributes:
        n: Number of cases with a result of both.
        mean_difference: First minus second; below 0 the first has smaller values.
        low: Lower end of the 95 % bootstrap interval of the difference; None with fewer than two cases.
        high: Upper end.
        p_value: p value of the two-sided Wilcoxon signed-rank test over cases; None with fewer than two cases that
            differ.
    """

    n: int
    mean_difference: float
    low: float | None
    high: float | None
    p_value: float | None


def compare_paired(first: Sequence[float], second: Sequence[float]) -> PairedComparison:
    """Compare two methods case by case (Wilcoxon 1945; exact for up to 50 cases without ties).

    With five cases the smallest possible p value is 0.0625.

    Args:
        first: One finite number for each case.
        second: Values for the same cases in the same order.

    Raises:
        OptionsError: if the numbers of cases differ, there is none, or a value is not finite.
    """
    a, b = _checked(first), _checked(second)
    if len(a) != len(b):
        raise OptionsError(f"{len(a)} and {len(b)} cases cannot be compared in pairs")
    difference = mean_over_cases(a - b)
    p_value = None
    if int(((a - b) != 0).sum()) >= 2:
        from scipy.stats import wilcoxon

        p_value = float(wilcoxon(a, b).pvalue)
    return PairedComparison(len(a), difference.mean, difference.low, difference.high, p_value)


def _checked(values: ArrayLike) -> Floats:
    cases = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(cases) == 0 or not np.isfinite(cases).all():
        raise OptionsError(f"statistics over cases need at least one finite number, got {cases.tolist()}")
    return cases
