"""`FollowUp`: the lesions of one patient over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from meddift.geometry import Grid
from meddift.tracking.candidates import Candidates
from meddift.tracking.observations import Course, Observation
from meddift.tracking.recist import Assessment, assess, doubts_about_targets
from meddift.tracking.summary import (
    GivenSize,
    GrowthRow,
    Sizes,
    chosen_targets,
    growths,
    new_lesions,
    sizes_of,
    visits,
)

#: First line of all output.
NOTE = "Calculated from the masks given, for research; not a diagnosis and not a reading by a radiologist."


@dataclass(frozen=True, eq=False)
class SeenTimePoint:
    """One time point after its scan was read.

    Attributes:
        name: Name in tables.
        date: Date of the scan; None if unknown.
        day: The date as text.
        phase: Contrast phase in words, or "".
        scan: Path or description of the scan.
        lesions: Its lesions, or the reason why the scan could not be used.
        grid: Grid of the scan; None if it could not be read.
        digest: sha256 of the scan; "" if it could not be read.
    """

    name: str
    date: datetime | None
    day: str
    phase: str
    scan: str
    lesions: Candidates | str
    grid: Grid | None
    digest: str = ""

    @property
    def failure(self) -> str:
        """Why the scan could not be used; else ""."""
        return self.lesions if isinstance(self.lesions, str) else ""


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Lesions of one patient over time.

    Attributes:
        subject: The patient's name in tables.
        time_points: The time points, in order of time.
        course: One observation for each lesion and time point from its first appearance on.
        kinds: Lesion -> (kind, organ) as chosen at baseline.
        given: (lesion, time point) -> sizes entered by a person.
        provenance: Scans, options and versions that the results depend on, ready for JSON.
    """

    subject: str
    time_points: tuple[SeenTimePoint, ...]
    course: Course
    kinds: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    given: Mapping[tuple[str, int], GivenSize] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The number of lesions in each state at the last time point."""
        last = [row.state for row in self.at(len(self.time_points) - 1)]
        counts = ", ".join(f"{last.count(s)} {s}" for s in dict.fromkeys(last))
        return f"FollowUp({len(self.lesions)} lesions, {len(self.time_points)} time points; at the last: {counts})"

    @property
    def lesions(self) -> list[str]:
        """Identities of all lesions, in the order of their first appearance."""
        return list(self.course.order)

    @property
    def scans(self) -> list[Candidates | str]:
        """The lesions of each scan, or the reason why it could not be used."""
        return [point.lesions for point in self.time_points]

    @property
    def failures(self) -> list[str]:
        """One sentence for each scan that could not be used."""
        return [f"{point.name}: {point.failure}" for point in self.time_points if point.failure]

    @property
    def notes(self) -> list[str]:
        """Remarks for the user in addition to the tables, one sentence each."""
        own = [note for scan in self.scans if isinstance(scan, Candidates) for note in scan.notes]
        return [*own, *self.doubts_about_targets]

    def at(self, k: int) -> list[Observation]:
        """Observations of time point `k`."""
        return [self.course.rows[name, k] for name in self.lesions if (name, k) in self.course.rows]

    def sizes(self, row: Observation) -> Sizes | None:
        """Sizes of an observation; None if there are none."""
        return sizes_of(row, self.scans[row.timepoint], self.given.get((row.lesion, row.timepoint)))

    def labels(self, row: Observation) -> str:
        """Labels of a lesion in the mask of that time point: "4", or "4+7" for several parts."""
        scan = self.scans[row.timepoint]
        return "" if isinstance(scan, str) else "+".join(scan.items[j].label for j in row.parts)

    def kind(self, row: Observation) -> str:
        """The kind of a lesion for RECIST, or "new"; "" if none."""
        known = self.kinds.get(row.lesion, ("", ""))[0]
        return known or (
            "new" if self.course.seen(row.lesion, len(self.time_points))[:1] and self._is_new(row) else ""
        )

    def _is_new(self, row: Observation) -> bool:
        return row.lesion in new_lesions(self.course, row.timepoint)

    @cached_property
    def assessments(self) -> list[Assessment] | None:
        """Response by RECIST 1.1 at each time point; None if no targets were chosen."""
        if not any(kind for kind, _ in self.kinds.values()):
            return None
        return assess(visits(self.course, self.scans, self.kinds, self.given))

    @cached_property
    def doubts_about_targets(self) -> list[str]:
        """Violations of RECIST 1.1 in the choice of targets, one sentence each."""
        first = self.scans[0]
        if not isinstance(first, Candidates):
            return []
        return doubts_about_targets(chosen_targets(self.course, first, self.kinds, self.given))

    @cached_property
    def growths(self) -> list[GrowthRow]:
        """Growth of each lesion since its first and since its previous measurement."""
        dates, phases = [p.date for p in self.time_points], [p.phase for p in self.time_points]
        return growths(self.course, self.scans, dates, phases, self.given)

    def mapping(self) -> dict[str, dict[str, list[str]]]:
        """Mapping of labels between scans, many to many: {"T0>T1": {"1": ["4", "7"]}}.

        From the first and from the previous time point to each later one; a lesion that is absent maps to [].
        """
        result: dict[str, dict[str, list[str]]] = {}
        for later in range(1, len(self.time_points)):
            for earlier in sorted({0, later - 1}):
                links: dict[str, list[str]] = {}
                for name in self.lesions:
                    first, second = self.course.rows.get((name, earlier)), self.course.rows.get((name, later))
                    if first is None or second is None:
                        continue
                    for label in filter(None, self.labels(first).split("+")):
                        found = links.setdefault(label, [])
                        found += [x for x in self.labels(second).split("+") if x and x not in found]
                result[f"{self.time_points[earlier].name}>{self.time_points[later].name}"] = links
        return result

    def save(self, folder: Path | str) -> list[Path]:
        """Write tables, masks and points. The report needs the scans and is written by `meddift.track`.

        Args:
            folder: Folder of the files; created if necessary.

        Returns:
            Paths of the files.

        Raises:
            OutputError: if a file cannot be written.
        """
        from meddift.tracking.outputs import write_outputs

        return write_outputs(self, Path(folder), more={})
