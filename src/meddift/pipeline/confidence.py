"""How sure we are of a match, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.matching import Verdict


@dataclass(frozen=True)
class Limits:
    """Beyond these a match is called uncertain.

    Chosen on deformed scans that the model was not trained on: of the matches that are right to 5 mm, 95 of 100 return
    within 1.4 mm and beat their rivals by more than 0.03; of those that are wrong by more, about a quarter do not
    return within 2.5 mm. Where tissue was replaced by other tissue, similarity fell to 65 to 80 of 100 of the usual;
    right matches have more than 90. How neighbourhoods fit was looked at on deformed scans of two patients and a drawn
    chest, also with twice the noise and slices of 5 mm. Of 32 matches that were wrong by more than 5 mm although
    nothing else spoke against them, the last two limits question 29; of right ones on vessels none but in the noisiest
    scans, of those elsewhere in the body a tenth to a fifth.

    Attributes:
        inverse_error_mm: Matching back has to end within this distance of where it started.
        margin: By how much the place has to be more similar than the best rival.
        deviation_mm: How far the place may lie from where its neighbours' matches put it.
        similarity: Least share of the similarity that right matches of the two scans have.
        misfit: How much the aligned neighbourhoods may differ, see `Aligned`.
        looseness_mm: How far the place may slide before they fit worse, see `Aligned`.
        uncertainty_mm: How far off the field may be, as far as neighbours differ on it.
    """

    inverse_error_mm: float = 2.5
    margin: float = 0.02
    deviation_mm: float = 14.0
    similarity: float = 0.8
    misfit: float = 0.15
    looseness_mm: float = 0.95
    uncertainty_mm: float = 2.0


#: Under a field, which holds a place where its neighbourhood leaves it loose, and where rivals nearby count only if
#: the network prefers them. Chosen on drawn sliding lungs, deformed chests and abdomens, and brains of two contrasts.
UNDER_FIELD = Limits(margin=0.0, looseness_mm=1.3)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about N matches; NaN where something was not measured.

    Attributes:
        inside_fixed: (N,) bool, the fixed point lies in the fixed scan.
        in_body: (N,) bool, there is tissue, not air around the patient, at the fixed point.
        expected_inside: (N,) bool, the expected place lies in the moving scan, or nothing was expected.
        at_border: (N,) bool, the best place lies on the rim of what was searched.
        margin: (N,) float64.
        inverse_error_mm: (N,) float64.
        deviation_mm: (N,) float64, from the place that the prior expects, where it was fitted to matches.
        relative_similarity: (N,) float64, similarity as a share of the median of the matches behind the prior.
        misfit: (N,) float64, of the aligned neighbourhoods.
        looseness_mm: (N,) float64, likewise.
        relative_misfit: (N,) float64, misfit as a multiple of what is usual in the two scans; NaN without a field.
        supported: (N,) bool, whether neighbours agree with the field.
        uncertainty_mm: (N,) float64, how far off the field may be.
        without_prior: No affine could be fitted, although one was wanted.
    """

    inside_fixed: NDArray[np.bool_]
    in_body: NDArray[np.bool_]
    expected_inside: NDArray[np.bool_]
    at_border: NDArray[np.bool_]
    margin: NDArray[np.float64]
    inverse_error_mm: NDArray[np.float64]
    deviation_mm: NDArray[np.float64]
    relative_similarity: NDArray[np.float64]
    misfit: NDArray[np.float64]
    looseness_mm: NDArray[np.float64]
    relative_misfit: NDArray[np.float64]
    supported: NDArray[np.bool_]
    uncertainty_mm: NDArray[np.float64]
    without_prior: bool = False


def judge(evidence: Evidence, limits: Limits) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """A verdict and its reason for each match.

    "outside": the point has no counterpart in the field of view of the moving scan, or is not in the fixed scan.
    "uncertain": a place was found, but something speaks against it; all that does is named. "ok": nothing does.
    """
    verdicts: list[Verdict] = []
    reasons: list[str] = []
    for row in range(len(evidence.inside_fixed)):
        if not evidence.inside_fixed[row]:
            verdicts.append("outside")
            reasons.append("the point lies outside the fixed scan")
            continue
        if not evidence.in_body[row]:
            verdicts.append("outside")
            reasons.append("the point lies in the air around the patient")
            continue
        if not evidence.expected_inside[row]:
            verdicts.append("outside")
            reasons.append("its counterpart lies outside the field of view of the moving scan")
            continue
        doubts = []
        if evidence.without_prior:
            doubts.append("the two scans as a whole could not be brought into agreement")
        if evidence.inverse_error_mm[row] > limits.inverse_error_mm:
            doubts.append(f"matching back ends {evidence.inverse_error_mm[row]:.1f} mm away")
        if evidence.margin[row] < limits.margin:
            doubts.append(f"another place is almost as similar (margin {evidence.margin[row]:.3f})")
        if evidence.relative_similarity[row] < limits.similarity:
            share = evidence.relative_similarity[row]
            doubts.append(f"what is there looks different ({100 * max(share, 0):.0f} % of the usual similarity)")
        if not evidence.supported[row]:
            doubts.append("the moving scan shows no reliable counterpart of its surroundings")
        elif evidence.uncertainty_mm[row] > limits.uncertainty_mm:
            doubts.append(f"its neighbours differ on its place by some {evidence.uncertainty_mm[row]:.1f} mm")
        if evidence.misfit[row] > limits.misfit:
            doubts.append(f"its surroundings fit badly (misfit {evidence.misfit[row]:.2f})")
        if evidence.looseness_mm[row] > limits.looseness_mm:
            doubts.append("there is too little to see around it to fix the place")
        if evidence.deviation_mm[row] > limits.deviation_mm:
            doubts.append(f"it lies {evidence.deviation_mm[row]:.0f} mm from where its neighbours put it")
        if evidence.at_border[row]:
            doubts.append("it lies on the border of what was searched, so the true place may be beyond")
        verdicts.append("uncertain" if doubts else "ok")
        reasons.append("; ".join(doubts))
    return tuple(verdicts), tuple(reasons)
