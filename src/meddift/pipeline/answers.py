"""Turning the results of a search into a table of matches with a verdict for every point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.matching import Matches
from meddift.matching.locate import Located
from meddift.matching.verdict import Evidence, Limits, judge
from meddift.points import Points


def answer(
    asked: Points,
    inside: NDArray[np.bool_],
    rows: NDArray[np.int64],
    found: Located,
    *,
    usual_similarity: float,
    limits: Limits,
    without_prior: bool,
) -> Matches:
    """Collect results in a table of all points, and give each point a verdict.

    Args:
        asked: N points on the fixed scan, world RAS mm.
        inside: (N,) bool, whether each point lies in the fixed scan.
        rows: (M,) int64, indices of the points that were searched for: those inside the patient.
        found: Results of these M points.
        usual_similarity: Median similarity of correct matches between the two scans; NaN where unknown.
        limits: Thresholds beyond which a match is uncertain.
        without_prior: Whether an affine was required but could not be fitted.

    Returns:
        One match for each of the N points, in the same order.
    """
    count = len(asked)

    def spread(values: NDArray[Any], empty: float) -> NDArray[Any]:
        table = np.full((count, *values.shape[1:]), empty, dtype=values.dtype)
        table[rows] = values
        return table

    margin, inverse_error = spread(found.margin, np.nan), spread(found.inverse_error_mm, np.nan)
    in_body = ~inside
    in_body[rows] = True
    evidence = Evidence(
        inside_fixed=inside,
        missing=asked.missing,
        in_body=in_body,
        expected_inside=spread(found.reachable, False),
        at_border=spread(found.at_border, False),
        margin=margin,
        inverse_error_mm=inverse_error,
        deviation_mm=spread(np.linalg.norm(found.positions - found.expected, axis=1), np.nan),
        relative_similarity=spread(found.first_similarity / usual_similarity, np.nan),
        misfit=spread(found.misfit, np.nan),
        standard_deviation_mm=spread(found.standard_deviation_mm, np.nan),
        supported=spread(found.supported, True),
        uncertainty_mm=spread(found.uncertainty_mm, np.nan),
        without_prior=without_prior,
    )
    verdict, reasons = judge(evidence, limits)
    moving = spread(found.positions, np.nan)
    moving[[v == "outside" for v in verdict]] = np.nan
    return Matches(
        fixed=asked,
        moving=Points(moving, asked.labels),
        similarity=spread(found.similarity, np.nan),
        margin=margin,
        inverse_error_mm=inverse_error,
        verdict=verdict,
        reasons=reasons,
    )
