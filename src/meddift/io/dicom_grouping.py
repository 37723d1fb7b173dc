"""Grouping of a DICOM series into scans: scouts, captures and repeated acquisitions are separated."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meddift.io.dicom_grid import heights
from meddift.io.dicom_slice import TELLING_APART, DicomSlice
from meddift.system.text import one_line


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One series of a DICOM folder, or one of several acquisitions that share a series.

    Attributes:
        uid: SeriesInstanceUID; with ":1", ":2", ... behind it where a series holds several acquisitions of one place.
        description: SeriesDescription, may be empty.
        modality: "CT", "MR", ...
        size: Columns and rows of its first slice.
        slices: Its slices, in the order of their files.
        part: What tells this acquisition from the others of its series, or "".
        rank: 0 for a 3D scan, 1 for a possible one (two slices, a localizer, captures), 2 for anything else.
    """

    uid: str
    description: str
    modality: str
    size: tuple[int, int]
    slices: tuple[DicomSlice, ...]
    part: str
    rank: int

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, in the order of their names."""
        return tuple(dict.fromkeys(item.path for item in self.slices))

    @property
    def number_of_slices(self) -> int:
        """Number of slices: files, or frames where one file holds several."""
        return len(self.slices)

    def __str__(self) -> str:
        """One line for people."""
        text = f'"{one_line(self.description)}"' if self.description else "no description"
        columns, rows = self.size
        modality = one_line(self.modality) or "unknown modality"
        part = f", {one_line(self.part)}" if self.part else ""
        return f"{one_line(self.uid)}: {modality}, {text}{part}, {len(self.slices)} slices of {columns} x {rows}"


def series_of(group: list[DicomSlice], others: Counter[str]) -> list[DicomSeries]:
    """Scans under one SeriesInstanceUID: usually one, sometimes with a scout, sometimes several."""
    usable = [item for item in group if item.kind == "scalar" and item.placed]
    if not usable:
        return [_series(group, rank=2)]
    rest = len(group) - len(usable)
    # A few slices without a position, or with text in place of numbers, are damaged slices of the scan itself.
    captures = [item for item in group if item not in usable and (item.captured or item.kind != "scalar")]
    if rest > len(captures):
        return [_series([item for item in group if item not in captures], rank=0)]
    if captures:
        others["secondary captures"] += len(captures)
    turned = _by_orientation(usable)
    main = max(turned, key=len)
    scouts = [item for part in turned if part is not main for item in part]
    if len(main) >= 3 and all(len(part) <= 2 for part in turned if part is not main):
        if scouts:
            others["localizers or scouts"] += len(scouts)
        usable = main
    elif scouts:
        return [_series(usable, rank=1)]
    captured = [item for item in usable if item.captured]
    if captured and len(captured) < len(usable):
        others["secondary captures"] += len(captured)
        usable = [item for item in usable if not item.captured]
    parts = _acquisitions(usable)
    if len(parts) > 1:
        return [
            _series(part, rank=_rank(part), number=number, part=told) for number, (told, part) in enumerate(parts, 1)
        ]
    return [_series(usable, rank=_rank(usable))]


def _series(slices: Sequence[DicomSlice], *, rank: int, number: int | None = None, part: str = "") -> DicomSeries:
    """A `DicomSeries` made from a group of slices."""
    first = slices[0]
    uid = first.uid if number is None else f"{first.uid}:{number}"
    return DicomSeries(uid, first.description, first.modality, first.size, tuple(slices), part, rank)


def _rank(slices: Sequence[DicomSlice]) -> int:
    """`DicomSeries.rank` of a group of slices."""
    if len(slices) < 2:
        return 2
    if len(slices) < 3 or all(item.localizer or item.captured for item in slices):
        return 1
    return 0


def _by_orientation(slices: Sequence[DicomSlice]) -> list[list[DicomSlice]]:
    """Slices in groups of parallel planes."""
    groups: list[list[DicomSlice]] = []
    for item in slices:
        axes = np.concatenate([item.row, item.column])
        for group in groups:
            if np.abs(axes - np.concatenate([group[0].row, group[0].column])).max() < 1e-2:
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _acquisitions(slices: Sequence[DicomSlice]) -> list[tuple[str, list[DicomSlice]]]:
    """Parts of a series that cover the same place, told apart by one header value; one part if there are none.

    A scan recorded in several steps has parts that follow one another. Parts that reach into one another by more than
    a slice are several scans, except for MR slices that are recorded in two interleaved passes: these lie side by
    side, with no more than their thickness between them.
    """
    whole = [("", list(slices))]
    if len(slices) < 4 or any(item.size != slices[0].size for item in slices):
        return whole
    height = dict(zip(map(id, slices), heights(slices), strict=True))
    for name, told in TELLING_APART:
        parts: dict[str, list[DicomSlice]] = {}
        for item in slices:
            parts.setdefault(item.marks.get(name, ""), []).append(item)
        if not 2 <= len(parts) <= len(slices) // 2 or min(map(len, parts.values())) < 2:
            continue
        ranges = sorted(
            (min(height[id(item)] for item in part), max(height[id(item)] for item in part)) for part in parts.values()
        )
        step = (max(height.values()) - min(height.values())) / (len(slices) - 1)
        reach = max(before[1] - after[0] for before, after in itertools.pairwise(ranges))
        # Places in two frames of reference have nothing to do with each other (PS3.3 C.7.4.1).
        if reach <= 1.5 * step and name != "frame_of_reference":
            continue
        interleaved = slices[0].modality == "MR" and all(item.thickness <= step * 1.1 for item in slices)
        if interleaved and name != "frame_of_reference":
            continue
        ordered = sorted(parts.items(), key=lambda pair: (len(pair[0]), pair[0]))
        return [(f"{told} {value or 'not stated'}", part) for value, part in ordered]
    return whole
