"""RECIST 1.1 as arithmetic on given sizes: sums, nadir, change, category.

Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1),
Eur J Cancer 2009; 45: 228-247, and the answers of the EORTC to questions (recist.eortc.org). The categories are
calculated from the given masks. RECIST does not apply to lymphoma, GIST under imatinib, hepatocellular carcinoma
(mRECIST), brain (RANO) and pleura.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meddift.errors import OptionsError

Category = Literal["CR", "PR", "SD", "PD", "NE"]
#: How a target was assessed. "too_small": present, but too small to measure, counts 5 mm. "merged": merged with
#: another target, for which the longest diameter of both counts; counts 0 mm, but is not absent.
Seen = Literal["measured", "too_small", "merged", "absent", "not_assessed"]
#: Assessment of all non-target lesions together.
NonTargets = Literal["none", "absent", "present", "progressed", "not_assessed"]

#: Size of a target that is present but too small to measure, mm.
TOO_SMALL_MM = 5.0
#: A lymph node with a short axis below this is not pathological, mm.
NORMAL_NODE_MM = 10.0
#: Smallest longest diameter of a target, and smallest short axis of a node, mm.
MEASURABLE_MM, MEASURABLE_NODE_MM = 10.0, 15.0
#: Partial response: the sum is at most this share of the sum at baseline.
PARTIAL = 0.7
#: Progression: the sum is at least this multiple of the smallest sum on study, and at least this many mm above it.
PROGRESSION, PROGRESSION_MM = 1.2, 5.0
#: Largest number of targets, and of targets in one organ.
MOST_TARGETS, MOST_IN_ORGAN = 5, 2
#: Decimals to which sums in mm are rounded before comparison, so that rounding errors do not decide a category.
_ROUNDING = 6


@dataclass(frozen=True)
class Reading:
    """One target at one time point.

    Attributes:
        lesion: Identity of the lesion.
        size_mm: Longest diameter, for a lymph node the short axis, mm; None unless measured.
        node: Whether the target is a lymph node.
        seen: How the target was assessed.

    Raises:
        OptionsError: if size and assessment contradict each other, or the size is not positive.
    """

    lesion: str
    size_mm: float | None
    node: bool = False
    seen: Seen = "measured"

    def __post_init__(self) -> None:
        """Validate."""
        if (self.seen == "measured") != (self.size_mm is not None):
            raise OptionsError(f"target {self.lesion} is {self.seen} and has the size {self.size_mm}")
        if self.size_mm is not None and not self.size_mm > 0:
            raise OptionsError(f"the size of target {self.lesion} must be above 0 mm, got {self.size_mm}")

    @property
    def counts_mm(self) -> float | None:
        """Contribution to the sum, mm; None if not assessed."""
        if self.seen == "measured":
            return self.size_mm
        return {"too_small": TOO_SMALL_MM, "merged": 0.0, "absent": 0.0, "not_assessed": None}[self.seen]

    @property
    def gone(self) -> bool:
        """Whether it counts as absent for a complete response: absent, or a node below 10 mm."""
        if self.seen == "absent":
            return True
        counts = self.counts_mm
        return self.node and self.seen != "merged" and counts is not None and counts < NORMAL_NODE_MM


@dataclass(frozen=True)
class Visit:
    """The assessment of all lesions at one time point.

    Attributes:
        targets: One reading for each target.
        non_targets: All non-target lesions together; "none" if there were none at baseline.
        new_lesion: Whether there is an unequivocal new lesion.
    """

    targets: tuple[Reading, ...]
    non_targets: NonTargets = "none"
    new_lesion: bool = False


@dataclass(frozen=True)
class Assessment:
    """The response at one time point.

    Attributes:
        sum_mm: Sum of diameters, mm; None if a target was not assessed.
        nadir_mm: Smallest sum of this and all earlier time points including baseline, mm.
        from_baseline: Relative change of the sum since baseline, e.g. -0.3; None if undetermined.
        from_nadir: Relative change since the smallest sum *before* this time point; None if undetermined.
        from_nadir_mm: The same change in mm.
        target: Response of the targets alone; None at baseline.
        overall: Response including non-targets and new lesions; None at baseline.
        reason: Reason for the response in words.
    """

    sum_mm: float | None
    nadir_mm: float | None
    from_baseline: float | None
    from_nadir: float | None
    from_nadir_mm: float | None
    target: Category | None
    overall: Category | None
    reason: str


def assess(visits: Sequence[Visit]) -> list[Assessment]:
    """Assess the response at each time point.

    Args:
        visits: The time points in order, the first one is the baseline; all with the same targets.

    Returns:
        One assessment for each time point.

    Raises:
        OptionsError: if targets differ between time points; they are chosen at baseline.
    """
    names = {tuple(sorted(reading.lesion for reading in visit.targets)) for visit in visits}
    if len(names) > 1:
        raise OptionsError(f"targets are chosen at baseline and kept, but they differ between time points: {names}")
    found: list[Assessment] = []
    nadir: float | None = None
    for number, visit in enumerate(visits):
        total = _sum(visit)
        before = nadir
        if total is not None:
            nadir = total if nadir is None else min(nadir, total)
        if number == 0:
            found.append(Assessment(total, nadir, None, None, None, None, None, "baseline"))
            continue
        start = found[0].sum_mm
        target, why = _target_response(visit, start, before)
        back = _reappeared(visit, found)
        if back and target != "PD":
            target, why = "PD", back
        overall, because = _overall(target, visit)
        found.append(
            Assessment(
                sum_mm=total,
                nadir_mm=nadir,
                from_baseline=_share(total, start),
                from_nadir=_share(total, before),
                from_nadir_mm=None if total is None or before is None else round(total - before, _ROUNDING),
                target=target,
                overall=overall,
                reason="; ".join(part for part in (why, because, _nodes_again(visit, visits[:number])) if part),
            )
        )
    return found


def _sum(visit: Visit) -> float | None:
    """Sum of diameters, mm; None if there are no targets, or one was not assessed."""
    sizes = [reading.counts_mm for reading in visit.targets]
    if not sizes or any(size is None for size in sizes):
        return None
    return round(sum(size for size in sizes if size is not None), _ROUNDING)


def _share(total: float | None, start: float | None) -> float | None:
    return None if total is None or not start else (total - start) / start


def _progressed(total: float, nadir: float) -> bool:
    """Whether a sum is at least 20 % and at least 5 mm above the nadir."""
    return round(total - PROGRESSION * nadir, _ROUNDING) >= 0 and round(total - nadir, _ROUNDING) >= PROGRESSION_MM


def _target_response(visit: Visit, start: float | None, nadir: float | None) -> tuple[Category | None, str]:
    """Response of the targets with its reason; None without targets."""
    if not visit.targets:
        return None, "no targets"
    known = sum(reading.counts_mm or 0.0 for reading in visit.targets)
    missing = [reading.lesion for reading in visit.targets if reading.seen == "not_assessed"]
    if nadir is None or start is None:
        return "NE", "the targets were not all measured at baseline"
    if _progressed(known, nadir):
        also = f", although {_named(missing)} not assessed" if missing else ""
        return "PD", f"the sum grew from {nadir:.1f} to {known:.1f} mm (20 % and 5 mm above the smallest){also}"
    if missing:
        return "NE", f"{_named(missing)} not assessed"
    if all(reading.gone for reading in visit.targets):
        return "CR", "all targets are gone, nodes below 10 mm"
    if round(known - PARTIAL * start, _ROUNDING) <= 0:
        return "PR", f"the sum fell from {start:.1f} mm at baseline to {known:.1f} mm (30 % or more)"
    if start > 0 and nadir > 0 and known >= PROGRESSION * nadir:
        return "SD", f"20 % above the smallest sum, but only {known - nadir:.1f} mm (5 mm are needed)"
    return "SD", "neither 30 % below the baseline nor 20 % above the smallest sum"


def _reappeared(visit: Visit, found: Sequence[Assessment]) -> str:
    """Targets that reappeared after a complete response, in words: progression whatever their size; else ""."""
    complete = any(assessment.target == "CR" for assessment in found)
    there = [reading.lesion for reading in visit.targets if not reading.node and reading.counts_mm]
    return f"target {', '.join(there)} is there again after a complete response" if complete and there else ""


def _nodes_again(visit: Visit, earlier: Sequence[Visit]) -> str:
    """Nodes that had become normal and are enlarged again, in words: a remark, not progression by itself (EORTC)."""
    normal = {r.lesion for past in earlier for r in past.targets if r.node and r.gone}
    again = [r.lesion for r in visit.targets if r.node and r.lesion in normal and not r.gone and r.counts_mm]
    return f"node {', '.join(again)} is 10 mm or more again: look at it" if again else ""


def _overall(target: Category | None, visit: Visit) -> tuple[Category, str]:
    """Overall response with its reason from targets, non-targets and new lesions (tables 1 and 2 of the guideline)."""
    if visit.new_lesion:
        return "PD", "a new lesion"
    if target == "PD":
        return "PD", ""
    if visit.non_targets == "progressed":
        return "PD", "other lesions progressed unequivocally"
    if target is None:
        if visit.non_targets == "absent":
            return "CR", "all lesions are gone"
        if visit.non_targets == "present":
            return "SD", "lesions that are no targets are still there (non-CR/non-PD)"
        return "NE", "other lesions were not assessed" if visit.non_targets == "not_assessed" else ""
    if target == "CR" and visit.non_targets == "present":
        return "PR", "other lesions are still there"
    if target == "CR" and visit.non_targets == "not_assessed":
        return "PR", "other lesions were not assessed"
    return target, ""


def _named(lesions: Sequence[str]) -> str:
    names = ", ".join(lesions)
    return f"target {names} was" if len(lesions) == 1 else f"targets {names} were"


@dataclass(frozen=True)
class Target:
    """A lesion chosen as a target at baseline.

    Attributes:
        lesion: Identity of the lesion.
        long_mm: Longest diameter at baseline, mm.
        short_mm: Short axis at baseline, mm.
        slice_mm: Slice spacing, mm.
        node: Whether it is a lymph node.
        organ: The organ in words; "" if not specified.
    """

    lesion: str
    long_mm: float
    short_mm: float
    slice_mm: float
    node: bool
    organ: str


def doubts_about_targets(targets: Sequence[Target]) -> list[str]:
    """Violations of RECIST 1.1 in a choice of targets, one sentence each; the choice itself is not changed."""
    doubts = []
    for target in targets:
        size = target.short_mm if target.node else target.long_mm
        # The smallest measurable size is at least twice the slice spacing (10 mm at 5 mm).
        needed = max(MEASURABLE_NODE_MM if target.node else MEASURABLE_MM, 2 * target.slice_mm)
        if round(size, 1) < needed:
            axis = "short axis" if target.node else "longest diameter"
            doubts.append(f"target {target.lesion} is not measurable: its {axis} is {size:.1f} mm, not {needed:g} mm")
    if len(targets) > MOST_TARGETS:
        doubts.append(f"there are {len(targets)} targets; at most {MOST_TARGETS} count")
    # All lymph nodes together count as one organ.
    organs = ["lymph nodes" if target.node else target.organ.strip().lower() for target in targets]
    for organ in sorted({organ for organ in organs if organ}):
        if organs.count(organ) > MOST_IN_ORGAN:
            doubts.append(f"there are {organs.count(organ)} targets in {organ}; at most {MOST_IN_ORGAN} count")
    return doubts
