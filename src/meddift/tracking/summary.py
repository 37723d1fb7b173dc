"""Deriving RECIST visits and growth from observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from meddift.tracking.candidates import Candidates, Measured
from meddift.tracking.growth import Growth, Size, growth
from meddift.tracking.observations import Course, Observation
from meddift.tracking.recist import NonTargets, Reading, Seen, Target, Visit

#: Kinds of lesions for RECIST.
KINDS = ("target", "target_node", "non_target", "non_target_node", "")


@dataclass(frozen=True)
class Sizes:
    """Sizes of one lesion at one time point, summed over its parts.

    Attributes:
        long_mm: Longest diameter, mm; for several parts the sum (RECIST 1.1 on fragmenting lesions).
        short_mm: Short axis, mm.
        volume_mm3: Volume, mm^3; NaN if a person entered diameters only.
        slice_mm: Slice spacing, mm.
        hu_mean: Mean HU, or NaN.
        measured: How the sizes were measured.
        at_border: Whether a part reaches the border of the scan.
    """

    long_mm: float
    short_mm: float
    volume_mm3: float
    slice_mm: float
    hu_mean: float
    measured: Measured
    at_border: bool

    @property
    def mean_mm(self) -> float:
        """Mean of both diameters, mm."""
        return (self.long_mm + self.short_mm) / 2


@dataclass(frozen=True)
class GivenSize:
    """Diameters entered by a person, which replace the measured ones.

    Attributes:
        long_mm: Longest diameter, mm; NaN for the 5 mm rule.
        short_mm: Short axis, mm; NaN for the 5 mm rule.
        measured: "manual" or "5mm_rule".
    """

    long_mm: float
    short_mm: float
    measured: Measured


def sizes_of(row: Observation, scan: Candidates | str, given: GivenSize | None = None) -> Sizes | None:
    """Sizes of an observation; None if there are none, or if they count for another lesion of the same mass."""
    if given is not None and given.measured == "manual":
        return Sizes(given.long_mm, given.short_mm, float("nan"), float("nan"), float("nan"), "manual", False)
    if isinstance(scan, str) or not row.carries_sizes:
        return None
    parts = [scan.items[j] for j in row.parts]
    measures = [part.measures for part in parts if part.measures is not None]
    if len(measures) < len(parts):
        return None
    volume = sum(m.volume_mm3 for m in measures)
    return Sizes(
        long_mm=sum(m.long_mm for m in measures),
        short_mm=sum(m.short_mm for m in measures),
        volume_mm3=volume,
        slice_mm=max(m.slice_mm for m in measures),
        hu_mean=sum(m.hu_mean * m.volume_mm3 for m in measures) / volume,
        measured=parts[0].measured,
        at_border=any(m.at_border for m in measures),
    )


def visits(
    course: Course,
    scans: Sequence[Candidates | str],
    kinds: Mapping[str, tuple[str, str]],
    given: Mapping[tuple[str, int], GivenSize],
) -> list[Visit]:
    """The RECIST visit of every time point.

    Args:
        course: All observations.
        scans: The lesions of each scan, or the reason why it could not be used.
        kinds: Lesion -> (kind, organ) as chosen at baseline.
        given: (lesion, time point) -> sizes entered by a person.
    """
    targets = [name for name in course.order if kinds.get(name, ("", ""))[0].startswith("target")]
    others = [name for name in course.order if kinds.get(name, ("", ""))[0].startswith("non_target")]
    found = []
    for k, scan in enumerate(scans):
        readings = tuple(_reading(course, scan, name, k, kinds[name][0], targets, given) for name in targets)
        fresh = [
            course.rows[name, k] for name in course.order if (name, k) in course.rows and _is_new(course, name, k)
        ]
        found.append(Visit(readings, _non_targets(course, others, kinds, scan, k), bool(fresh)))
    return found


def new_lesions(course: Course, k: int) -> list[str]:
    """Identities of the lesions that count as new at time point `k`."""
    return [name for name in course.order if (name, k) in course.rows and _is_new(course, name, k)]


def _is_new(course: Course, name: str, k: int) -> bool:
    """Whether a lesion is present, and its state was "new" (not "uncertain") when it was first seen."""
    seen = course.seen(name, k + 1)
    return bool(seen and seen[0].state == "new" and seen[0].review != "rejected" and seen[-1].timepoint == k)


def _reading(
    course: Course,
    scan: Candidates | str,
    name: str,
    k: int,
    kind: str,
    targets: Sequence[str],
    given: Mapping[tuple[str, int], GivenSize],
) -> Reading:
    row, node = course.rows[name, k], kind.endswith("node")
    by_person = given.get((name, k))
    if by_person is not None and by_person.measured == "5mm_rule":
        return Reading(name, None, node, "too_small")
    if row.state == "disappeared":
        return Reading(name, None, node, "absent")
    # For merged targets, the size of the whole counts for the first by number.
    shared = [other for other in row.shared_with if other in targets]
    if row.parts and any(int(other) < int(name) for other in shared):
        return Reading(name, None, node, "merged")
    alone = Observation(name, k, row.state, row.parts, row.place, row.verdict, row.reason, row.links, (), row.review)
    sizes = sizes_of(alone, scan, by_person)
    if sizes is None:
        return Reading(name, None, node, "not_assessed")
    return Reading(name, sizes.short_mm if node else sizes.long_mm, node, "measured")


def _non_targets(
    course: Course, others: Sequence[str], kinds: Mapping[str, tuple[str, str]], scan: Candidates | str, k: int
) -> NonTargets:
    if not others:
        return "none"
    seen: list[Seen] = []
    for name in others:
        reading = _reading(course, scan, name, k, kinds[name][0], (), {})
        seen.append("absent" if reading.gone else reading.seen)
    if all(one == "absent" for one in seen):
        return "absent"
    return "present" if any(one in ("measured", "merged") for one in seen) else "not_assessed"


def chosen_targets(
    course: Course, first: Candidates, kinds: Mapping[str, tuple[str, str]], given: Mapping[tuple[str, int], GivenSize]
) -> list[Target]:
    """The targets at baseline, for `doubts_about_targets`."""
    found = []
    for name, (kind, organ) in kinds.items():
        if not kind.startswith("target") or (name, 0) not in course.rows:
            continue
        sizes = sizes_of(course.rows[name, 0], first, given.get((name, 0)))
        if sizes is not None:
            thick = 0.0 if sizes.slice_mm != sizes.slice_mm else sizes.slice_mm
            found.append(Target(name, sizes.long_mm, sizes.short_mm, thick, kind.endswith("node"), organ))
    return found


@dataclass(frozen=True)
class GrowthRow:
    """Growth of one lesion from one time point to another.

    Attributes:
        lesion: Identity of the lesion.
        earlier: Number of the earlier time point.
        later: Number of the later time point.
        growth: The change.
    """

    lesion: str
    earlier: int
    later: int
    growth: Growth


def growths(
    course: Course,
    scans: Sequence[Candidates | str],
    dates: Sequence[datetime | None],
    phases: Sequence[str],
    given: Mapping[tuple[str, int], GivenSize],
) -> list[GrowthRow]:
    """Growth of each lesion to every time point since its first and since its previous measurement."""
    rows = []
    for name in course.order:
        known: list[tuple[int, Size]] = []
        for k, scan in enumerate(scans):
            row = course.rows.get((name, k))
            sizes = None if row is None else sizes_of(row, scan, given.get((name, k)))
            if sizes is None or not sizes.volume_mm3 > 0:
                continue
            size = Size(dates[k], sizes.mean_mm, sizes.volume_mm3, sizes.slice_mm, phases[k], sizes.at_border)
            for earlier in ([known[0]] if known else []) + (known[-1:] if len(known) > 1 else []):
                rows.append(GrowthRow(name, earlier[0], k, growth(earlier[1], size)))
            known.append((k, size))
    return rows
