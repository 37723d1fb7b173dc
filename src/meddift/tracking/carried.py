"""Where lesions of one scan are expected in another: the only thing that following them needs of the engine."""

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
    """A lesion taken to another scan.

    Only its place is of use: what it measures there is measured on the mask that was drawn there.

    Attributes:
        center: (3,) float64, where its middle is expected, world RAS mm; NaN where the verdict is "outside".
        cloud: (N, 3) float64, where its voxels are expected; empty for a point, or outside.
        verdict: How sure the place is.
        reason: Why it is not "ok".
    """

    center: Floats
    cloud: Floats
    verdict: Literal["ok", "uncertain", "outside"]
    reason: str = ""


class Carrier(Protocol):
    """Takes lesions from scan to scan."""

    def carry(self, source: int, target: int, lesions: Sequence[Candidate]) -> list[Carried]:
        """Where lesions of one time point are expected in another, one answer each.

        Args:
            source: Number of the time point in which they were marked, in order of time.
            target: Number of the one in which they are looked for.
            lesions: Lesions of the source.
        """
        ...
