"""From what a search has found to a table with a verdict for every point that was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.matching import Matches
from meddift.matching.locate import Located
from meddift.matching.verdict import UNDER_FIELD, Evidence, Limits, judge
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
        usual_similarity: Median similarity of right matches of the two scans; NaN where none is known.
        usual_misfit: Likewise, of how neighbourhoods fit.
        supported: (M,) bool, whether neighbours agree with the field there; True where there is no field.
        uncertainty_mm: (M,) float64, how far off the field may be; NaN where there is none.
        under_field: Whether points were aligned under a field; else they were searched for one by one.
        without_prior: Whether no affine could be fitted, although one was wanted.
    """

    rows: NDArray[np.int64]
    found: Located
    expected: NDArray[np.float64]
    reachable: NDArray[np.bool_]
    inverse_error_mm: NDArray[np.float64]
    usual_similarity: float
    usual_misfit: float
    supported: NDArray[np.bool_]
    uncertainty_mm: NDArray[np.float64]
    under_field: bool
    without_prior: bool

    @classmethod
    def of_none(cls) -> Searched:
        """No point was looked for."""
        nothing, none = np.zeros(0), np.zeros(0, dtype=bool)
        located = Located.empty(0)
        return cls(
            np.zeros(0, dtype=np.int64),
            located,
            np.zeros((0, 3)),
            none,
            nothing,
            np.nan,
            np.nan,
            none,
            nothing,
            False,
            False,
        )


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
        missing=asked.missing,
        in_body=in_body,
        expected_inside=spread(searched.reachable, False),
        at_border=spread(found.at_border, False),
        margin=margin,
        inverse_error_mm=inverse_error,
        deviation_mm=spread(np.linalg.norm(found.positions - searched.expected, axis=1), np.nan),
        relative_similarity=spread(found.first_similarity / searched.usual_similarity, np.nan),
        misfit=spread(found.misfit, np.nan),
        looseness_mm=spread(found.looseness_mm, np.nan),
        relative_misfit=spread(found.misfit / searched.usual_misfit, np.nan),
        supported=spread(searched.supported, True),
        uncertainty_mm=spread(searched.uncertainty_mm, np.nan),
        without_prior=searched.without_prior,
    )
    verdict, reasons = judge(evidence, UNDER_FIELD if searched.under_field else Limits())
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
