"""From what a search has found to a table with a verdict for every point that was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.matching import Matches
from meddift.matching.locate import Located
from meddift.pipeline.confidence import Evidence, Limits, judge
from meddift.points import Points


@dataclass(frozen=True, eq=False)
class Searched:
    """What is known about M points that were looked for, of N that were asked.

    Attributes:
        rows: (M,) int64, which of the points asked they are.
        found: Where they are.
        expected: (M, 3) float64, where matches nearby expect them; NaN where nothing was fitted to matches.
        reachable: (M,) bool, whether the expected place lies in the moving scan, or nothing was expected.
        inverse_error_mm: (M,) float64, how far matching back ends from where it began; NaN where that was not done.
        usual_similarity: Median similarity of the matches behind the prior; NaN where there are none.
        without_prior: Whether no affine could be fitted, although one was wanted.
    """

    rows: NDArray[np.int64]
    found: Located
    expected: NDArray[np.float64]
    reachable: NDArray[np.bool_]
    inverse_error_mm: NDArray[np.float64]
    usual_similarity: float
    without_prior: bool


def answer(asked: Points, inside: NDArray[np.bool_], searched: Searched) -> Matches:
    """Put what was found into a table of all points, and judge each.

    Args:
        asked: N points on the fixed scan.
        inside: (N,) bool, which of them lie in the fixed scan.
        searched: What was found for some of them.
    """
    count, rows, found = len(asked), searched.rows, searched.found

    def spread(values: NDArray[Any], empty: float) -> NDArray[Any]:
        table = np.full((count, *values.shape[1:]), empty, dtype=values.dtype)
        table[rows] = values
        return table

    margin, inverse_error = spread(found.margin, np.nan), spread(searched.inverse_error_mm, np.nan)
    in_body = ~inside
    in_body[rows] = True
    evidence = Evidence(
        inside_fixed=inside,
        in_body=in_body,
        expected_inside=spread(searched.reachable, False),
        at_border=spread(found.at_border, False),
        margin=margin,
        inverse_error_mm=inverse_error,
        deviation_mm=spread(np.linalg.norm(found.positions - searched.expected, axis=1), np.nan),
        relative_similarity=spread(found.first_similarity / searched.usual_similarity, np.nan),
        misfit=spread(found.misfit, np.nan),
        looseness_mm=spread(found.looseness_mm, np.nan),
        without_prior=searched.without_prior,
    )
    verdict, reason = judge(evidence, Limits())
    moving = spread(found.positions, np.nan)
    moving[[v == "outside" for v in verdict]] = np.nan
    reason = tuple(
        "the point has no position" if missing else why for missing, why in zip(asked.missing, reason, strict=True)
    )
    return Matches(
        fixed=asked,
        moving=Points(moving, asked.labels),
        similarity=spread(found.similarity, np.nan),
        margin=margin,
        inverse_error_mm=inverse_error,
        verdict=verdict,
        reason=reason,
    )
