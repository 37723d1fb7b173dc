"""Growth of one lesion between two scans by Lung-RADS, Fleischner criteria and volume, with reasons for doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

#: Lung-RADS v2022 (American College of Radiology): growth is an increase of the mean diameter of more than 1.5 mm
#: within 12 months.
LUNG_RADS_MM, LUNG_RADS_DAYS = 1.5, 365
#: Bankier et al., Recommendations for measuring pulmonary nodules at CT: a statement from the Fleischner Society,
#: Radiology 2017; 285: 584-600: an increase of the mean diameter of 2 mm or more.
FLEISCHNER_MM = 2.0
#: Smallest relative change of volume that counts (British Thoracic Society guidelines, Thorax 2015; 70 Suppl 2).
VOLUME_CHANGE = 0.25
#: Sphere equivalents of -30 % and +20 % of a diameter: 0.7^3 and 1.2^3.
VOLUME_PARTIAL, VOLUME_PROGRESSION = 0.343 - 1, 1.728 - 1
#: Slice spacings that differ by more than this factor are not comparable (Goo et al. and others: 1.25 and 2.5 mm
#: cannot be exchanged with 5 mm).
SLICE_RATIO = 1.9


@dataclass(frozen=True)
class Size:
    """The size of one lesion at one time point.

    Attributes:
        date: Date of the scan; None if unknown.
        mean_mm: Mean of both diameters, mm.
        volume_mm3: Volume, mm^3.
        slice_mm: Slice spacing, mm.
        phase: Contrast phase in words; "" if unknown.
        at_border: Whether the lesion reaches the border of the scan.
    """

    date: datetime | None
    mean_mm: float
    volume_mm3: float
    slice_mm: float
    phase: str = ""
    at_border: bool = False


@dataclass(frozen=True)
class Growth:
    """The change between two sizes.

    Attributes:
        days: Days between the scans; None if a date is missing.
        mean_mm: Change of the mean diameter, mm, rounded to 0.1 as in Lung-RADS.
        volume: Relative change of volume, e.g. 0.25 for +25 %.
        doubling_days: Volume doubling time, days; negative if the volume decreases; None if the change is below 25 %
            or a date is missing.
        lung_rads: Whether this is growth by Lung-RADS v2022; None if undetermined.
        fleischner: Whether this is growth by the Fleischner Society; None if undetermined.
        doubts: Reasons why growth cannot be determined, one sentence each.
    """

    days: float | None
    mean_mm: float
    volume: float
    doubling_days: float | None
    lung_rads: bool | None
    fleischner: bool | None
    doubts: tuple[str, ...]


def growth(earlier: Size, later: Size) -> Growth:
    """Change between two measurements of one lesion."""
    doubts = _doubts(earlier, later)
    days = None
    if earlier.date is not None and later.date is not None:
        days = (later.date - earlier.date).total_seconds() / 86400
    mean = round(round(later.mean_mm, 1) - round(earlier.mean_mm, 1), 1)
    volume = later.volume_mm3 / earlier.volume_mm3 - 1
    doubling = None
    if days and abs(volume) >= VOLUME_CHANGE:
        doubling = volume_doubling_days(earlier.volume_mm3, later.volume_mm3, days)
    lung_rads = fleischner = None
    if not doubts:
        fleischner = mean >= FLEISCHNER_MM
        if days is not None:
            # More than a year apart: it is unknown whether larger growth happened within twelve months.
            grew = mean > LUNG_RADS_MM
            lung_rads = None if grew and days > LUNG_RADS_DAYS else grew
    return Growth(days, mean, volume, doubling, lung_rads, fleischner, doubts)


def volume_doubling_days(first_mm3: float, second_mm3: float, days: float) -> float:
    """Volume doubling time, days: days * ln 2 / ln(second / first) (Schwartz 1961).

    Negative if the volume decreases, infinite if it is constant.

    Args:
        first_mm3: Earlier volume, mm^3.
        second_mm3: Later volume, mm^3.
        days: Days between them.
    """
    if first_mm3 == second_mm3:
        return math.inf
    return days * math.log(2) / math.log(second_mm3 / first_mm3)


def _doubts(earlier: Size, later: Size) -> tuple[str, ...]:
    doubts = []
    thin, thick = sorted((earlier.slice_mm, later.slice_mm))
    if thick > SLICE_RATIO * thin and thick > 1.5:
        doubts.append(f"slices of {earlier.slice_mm:.3g} and {later.slice_mm:.3g} mm are not comparable")
    if earlier.phase and later.phase and earlier.phase.casefold() != later.phase.casefold():
        doubts.append(f"another contrast phase: {earlier.phase}, then {later.phase}")
    if earlier.at_border or later.at_border:
        doubts.append("the lesion reaches the border of a scan and may go on outside")
    return tuple(doubts)
