"""The interface by which lesions are mapped from one scan to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from meddift.tracking.candidates import Candidate

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Carried:
    """A lesion mapped to another scan.

    Only its position is used: its size there is measured on the mask of that scan.

    Attributes:
        center: (3,) float64, expected position of its centre, world RAS mm; NaN if the verdict is "outside".
        cloud: (N, 3) float64, expected positions of its voxels, world RAS mm; empty for a point, or outside.
        verdict: Reliability of the position, as for matches.
        reason: Why the verdict is not "ok"; else "".
    """

    center: Floats
    cloud: Floats
    verdict: Literal["ok", "uncertain", "outside"]
    reason: str = ""


class Carrier(Protocol):
    """Maps lesions from one scan to another."""

    def carry(self, source: int, target: int, lesions: Sequence[Candidate]) -> list[Carried]:
        """Map lesions of one time point to another.

        Args:
            source: Number of the time point in which the lesions were marked, in order of time from 0.
            target: Number of the time point to which they are mapped.
            lesions: Lesions of the source.

        Returns:
            One entry for each lesion, in the same order.
        """
        ...
