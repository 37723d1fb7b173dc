"""What transform files of ITK hold, whatever their format: the name of a class and two lists of numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import TransformError
from meddift.io.compressed import AGAIN

#: Largest number of transforms in a file.
MOST_RECORDS = 500


@dataclass(frozen=True, eq=False)
class Record:
    """One transform as it stands in a file.

    Attributes:
        name: ITK's name of its class with type and dimensions, such as "AffineTransform_double_3_3".
        parameters: (N,) float, `GetParameters`.
        fixed: (M,) float, `GetFixedParameters`, which no optimiser changes: a centre, a grid.
    """

    name: str
    parameters: NDArray[np.floating] = field(default_factory=lambda: np.zeros(0))
    fixed: NDArray[np.floating] = field(default_factory=lambda: np.zeros(0))

    @property
    def is_composite(self) -> bool:
        """Whether it is the beginning of a composition: the records after it are its members."""
        return self.kind == "CompositeTransform"

    @property
    def kind(self) -> str:
        """The class without type and dimensions."""
        return self.name.split("_")[0]


def require_some(records: list[Record], path: Path) -> None:
    """Raise TransformError if a file holds no transform, or far too many."""
    if not records:
        raise TransformError(f"{path} holds no transform. {AGAIN}")
    if len(records) > MOST_RECORDS:
        raise TransformError(f"{path} holds {len(records)} transforms; at most {MOST_RECORDS} are read")
