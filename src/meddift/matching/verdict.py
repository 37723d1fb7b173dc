"""Verdicts on points that were matched or mapped by a registration, with reasons as codes and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["ok", "uncertain", "outside"]

#: Code of the reason that is given for every point if the scans as a whole could not be aligned.
NO_AGREEMENT = "no_agreement"
#: Reasons for doubting a match. Codes are stable between versions; texts may change.
REASONS = {
    # Without a position, verdict "outside".
    "no_position": "the point has no position",
    "outside_fixed": "the point lies outside the fixed scan",
    "air": "the point lies in the air around the patient",
    "outside_moving": "its counterpart lies outside the field of view of the moving scan",
    # With a position, verdict "uncertain".
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
    """A reason for doubting a match.

    Attributes:
        code: One of `REASONS`.
        text: The reason in words, with numbers where there are any.
    """

    code: str
    text: str

    @classmethod
    def of(cls, code: str, text: str = "") -> Reason:
        """The reason with a code, in the words of `REASONS` or in those given."""
        return cls(code, text or REASONS[code])

    def __str__(self) -> str:
        """The words."""
        return self.text


@dataclass(frozen=True)
class Limits:
    """Thresholds beyond which a match is uncertain; docs/verdicts.md lists them with their derivation.

    Attributes:
        inverse_error_mm: Largest inverse-consistency error, mm.
        margin: Smallest difference in similarity to the best rival.
        deviation_mm: Largest distance from the position predicted by neighbouring matches, mm.
        similarity: Smallest similarity, relative to the median of correct matches between the two scans.
        misfit: Largest misfit of the aligned neighbourhoods, see `Aligned`.
        standard_deviation_mm: Largest standard deviation along the least determined direction, mm, see `Aligned`.
        uncertainty_mm: Largest expected error of the field, estimated from the disagreement of neighbours, mm.
    """

    inverse_error_mm: float = 2.5
    margin: float = 0.02
    deviation_mm: float = 14.0
    similarity: float = 0.8
    misfit: float = 0.15
    standard_deviation_mm: float = 0.95
    uncertainty_mm: float = 2.0


#: Thresholds under a field: it stabilises positions that the neighbourhood alone does not determine well, and rivals
#: count only if the network prefers them.
UNDER_FIELD = Limits(margin=0.0, standard_deviation_mm=1.3)

#: Thresholds for points mapped by a registration: no match was made, but the expected error of the transform is known.
CARRIED = Limits(uncertainty_mm=3.0)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence about N matches; None, or NaN in a row, where something was not measured.

    Attributes:
        inside_fixed: (N,) bool, whether the fixed point lies in the fixed scan.
        expected_inside: (N,) bool, whether the expected position lies in the moving scan; True without expectation.
        missing: (N,) bool, whether the fixed point has no position.
        in_body: (N,) bool, whether the fixed point lies in the patient and not in the surrounding air.
        at_border: (N,) bool, whether the best position lies on the border of the searched region.
        margin: (N,) float64, difference in similarity to the best rival.
        inverse_error_mm: (N,) float64, inverse-consistency error, mm.
        deviation_mm: (N,) float64, distance from the position predicted by a prior that was fitted to matches, mm.
        relative_similarity: (N,) float64, similarity relative to the median of correct matches.
        misfit: (N,) float64, misfit of the aligned neighbourhoods.
        standard_deviation_mm: (N,) float64, standard deviation along the least determined direction, mm.
        supported: (N,) bool, whether neighbours agree with the field.
        uncertainty_mm: (N,) float64, expected error of the field, mm.
        affine_only: (N,) bool, whether there is only an affine and no field.
        without_prior: Whether an affine was required but could not be fitted.
        way_back: What gives the inverse-consistency error, in words.
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
    """Give each match a verdict with its reasons.

    "outside": the point has no counterpart in the field of view of the moving scan, or does not lie in the fixed scan.
    "uncertain": a position was found, but there are reasons for doubt, all of which are listed. "ok": there are none.

    Args:
        evidence: The evidence about N matches.
        limits: Thresholds; None = the defaults of `Limits`.

    Returns:
        N verdicts, and N tuples of reasons.
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
    """Code of the reason why a point has no counterpart; empty if it may have one."""
    if evidence.missing is not None and evidence.missing[row]:
        return "no_position"
    if not evidence.inside_fixed[row]:
        return "outside_fixed"
    if evidence.in_body is not None and not evidence.in_body[row]:
        return "air"
    return "" if evidence.expected_inside[row] else "outside_moving"


def _doubts(evidence: Evidence, limits: Limits, row: int) -> list[Reason]:
    """The reasons for doubting a match."""

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
