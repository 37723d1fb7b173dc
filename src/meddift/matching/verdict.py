"""How sure we are of a match, in words and in codes: of points that were matched, and of those that were carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["ok", "uncertain", "outside"]

#: Code of the reason that holds for every point, where the scans as a whole do not agree.
NO_AGREEMENT = "no_agreement"
#: What can speak against a match. Codes stay what they are from version to version; texts may change.
REASONS = {
    # There is no answer: "outside".
    "no_position": "the point has no position",
    "outside_fixed": "the point lies outside the fixed scan",
    "air": "the point lies in the air around the patient",
    "outside_moving": "its counterpart lies outside the field of view of the moving scan",
    # There is an answer, and a doubt: "uncertain".
    NO_AGREEMENT: "the two scans as a whole could not be brought into agreement",
    "inverse_error": "the way back ends elsewhere",
    "rival": "another place is almost as similar",
    "dissimilar": "what is there looks different",
    "misfit": "its surroundings fit badly",
    "loose": "there is too little to see around it to fix the place",
    "deviation": "it lies far from where its neighbours put it",
    "border": "it lies on the border of what was searched, so the true place may be beyond",
    "unsupported": "the moving scan shows no reliable counterpart of its surroundings",
    "affine_only": "nothing but an affine was fitted, which does not say how far off it is",
    "imprecise": "its neighbours differ on its place",
}


@dataclass(frozen=True)
class Reason:
    """Something that speaks against a match.

    Attributes:
        code: One of `REASONS`.
        text: The same in words, with numbers where there are any.
    """

    code: str
    text: str

    @classmethod
    def of(cls, code: str, text: str = "") -> Reason:
        """The reason of a code, in its usual words or in those given."""
        return cls(code, text or REASONS[code])

    def __str__(self) -> str:
        """The words."""
        return self.text


@dataclass(frozen=True)
class Limits:
    """Beyond these a match is called uncertain; docs/verdicts.md has them as a table and says where they come from.

    Attributes:
        inverse_error_mm: Matching back has to end within this distance of where it started.
        margin: By how much the place has to be more similar than the best rival.
        deviation_mm: How far the place may lie from where its neighbours' matches put it.
        similarity: Least share of the similarity that right matches of the two scans have.
        misfit: How much the aligned neighbourhoods may differ, see `Aligned`.
        standard_deviation_mm: Of the place along its least determined direction, see `Aligned`.
        uncertainty_mm: How far off the field may be, as far as neighbours differ on it.
    """

    inverse_error_mm: float = 2.5
    margin: float = 0.02
    deviation_mm: float = 14.0
    similarity: float = 0.8
    misfit: float = 0.15
    standard_deviation_mm: float = 0.95
    uncertainty_mm: float = 2.0


#: Under a field: it holds a place where the neighbourhood leaves it loose, and rivals nearby count only if the network
#: prefers them.
UNDER_FIELD = Limits(margin=0.0, standard_deviation_mm=1.3)

#: Of points that a registration carries: nothing was compared at each, but how far off the transform may be is known.
CARRIED = Limits(uncertainty_mm=3.0)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about N matches. None, or NaN in a row, where something was not measured.

    Attributes:
        inside_fixed: (N,) bool, the fixed point lies in the fixed scan.
        expected_inside: (N,) bool, the expected place lies in the moving scan, or nothing was expected.
        missing: (N,) bool, the fixed point has no position.
        in_body: (N,) bool, the fixed point lies in the patient, not in the air around.
        at_border: (N,) bool, the best place lies on the rim of what was searched.
        margin: (N,) float64.
        inverse_error_mm: (N,) float64.
        deviation_mm: (N,) float64, from the place that the prior expects, where it was fitted to matches.
        relative_similarity: (N,) float64, similarity as a share of the median of the matches behind the prior.
        misfit: (N,) float64, of the aligned neighbourhoods.
        standard_deviation_mm: (N,) float64, likewise.
        supported: (N,) bool, whether neighbours agree with the field between the scans.
        uncertainty_mm: (N,) float64, how far off that field may be.
        affine_only: (N,) bool, there is no field, only an affine.
        without_prior: No affine could be fitted, although one was wanted.
        way_back: What the way back is, in words.
    """

    inside_fixed: NDArray[np.bool_]
    expected_inside: NDArray[np.bool_]
    missing: NDArray[np.bool_] | None = None
    in_body: NDArray[np.bool_] | None = None
    at_border: NDArray[np.bool_] | None = None
    margin: NDArray[np.float64] | None = None
    inverse_error_mm: NDArray[np.float64] | None = None
    deviation_mm: NDArray[np.float64] | None = None
    relative_similarity: NDArray[np.float64] | None = None
    misfit: NDArray[np.float64] | None = None
    standard_deviation_mm: NDArray[np.float64] | None = None
    supported: NDArray[np.bool_] | None = None
    uncertainty_mm: NDArray[np.float64] | None = None
    affine_only: NDArray[np.bool_] | None = None
    without_prior: bool = False
    way_back: str = "matching back"


def judge(
    evidence: Evidence, limits: Limits | None = None
) -> tuple[tuple[Verdict, ...], tuple[tuple[Reason, ...], ...]]:
    """A verdict for each match, and all that speaks against it.

    "outside": the point has no counterpart in the field of view of the moving scan, or is not in the fixed scan.
    "uncertain": a place was found, but something speaks against it; all that does is named. "ok": nothing does.
    """
    limits = Limits() if limits is None else limits
    verdicts: list[Verdict] = []
    reasons: list[tuple[Reason, ...]] = []
    for row in range(len(evidence.inside_fixed)):
        nowhere = _nowhere(evidence, row)
        doubts = () if nowhere else tuple(_doubts(evidence, limits, row))
        verdicts.append("outside" if nowhere else "uncertain" if doubts else "ok")
        reasons.append((Reason.of(nowhere),) if nowhere else doubts)
    return tuple(verdicts), tuple(reasons)


def _nowhere(evidence: Evidence, row: int) -> str:
    """Code of why there is no answer; empty where there is one."""
    if evidence.missing is not None and evidence.missing[row]:
        return "no_position"
    if not evidence.inside_fixed[row]:
        return "outside_fixed"
    if evidence.in_body is not None and not evidence.in_body[row]:
        return "air"
    return "" if evidence.expected_inside[row] else "outside_moving"


def _doubts(evidence: Evidence, limits: Limits, row: int) -> list[Reason]:
    """What speaks against an answer."""

    def value(values: NDArray[np.float64] | None) -> float:
        return float("nan") if values is None else float(values[row])

    back, margin, share = (
        value(values) for values in (evidence.inverse_error_mm, evidence.margin, evidence.relative_similarity)
    )
    misfit, away, off = (value(values) for values in (evidence.misfit, evidence.deviation_mm, evidence.uncertainty_mm))
    doubts = []
    if evidence.without_prior:
        doubts.append(Reason.of(NO_AGREEMENT))
    if back > limits.inverse_error_mm:
        doubts.append(Reason.of("inverse_error", f"{evidence.way_back} ends {back:.1f} mm away"))
    if margin < limits.margin:
        doubts.append(Reason.of("rival", f"{REASONS['rival']} (margin {margin:.3f})"))
    if share < limits.similarity:
        usual = f"{100 * max(share, 0):.0f} % of the usual similarity"
        doubts.append(Reason.of("dissimilar", f"{REASONS['dissimilar']} ({usual})"))
    if evidence.supported is not None and not evidence.supported[row]:
        doubts.append(Reason.of("unsupported"))
    elif evidence.affine_only is not None and evidence.affine_only[row]:
        doubts.append(Reason.of("affine_only"))
    elif off > limits.uncertainty_mm:
        doubts.append(Reason.of("imprecise", f"{REASONS['imprecise']} by some {off:.1f} mm"))
    if misfit > limits.misfit:
        doubts.append(Reason.of("misfit", f"{REASONS['misfit']} (misfit {misfit:.2f})"))
    if value(evidence.standard_deviation_mm) > limits.standard_deviation_mm:
        doubts.append(Reason.of("loose"))
    if away > limits.deviation_mm:
        doubts.append(Reason.of("deviation", f"it lies {away:.0f} mm from where its neighbours put it"))
    if evidence.at_border is not None and evidence.at_border[row]:
        doubts.append(Reason.of("border"))
    return doubts
