"""`Points`: labelled positions in the world. There is no other kind of coordinate inside meddift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import PointsError
from meddift.geometry import Grid


@dataclass(frozen=True, eq=False)
class Points:
    """Labelled points in world RAS mm.

    Attributes:
        positions: (N, 3) float64, world RAS mm; a row of NaN is a point that has a label but no position.
        labels: N strings; `"1"`, `"2"`, ... where none are given.
        columns: What else is known of each point, N strings by name: further columns of a table, descriptions.

    Raises:
        PointsError: if the shape is not (N, 3), a coordinate is infinite, a row is NaN in part only,
            or the number of labels or of the values of a column differs from N.
    """

    positions: NDArray[np.float64]
    labels: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate and freeze."""
        positions = np.array(self.positions, dtype=np.float64)
        if positions.size == 0:
            positions = positions.reshape(0, 3)
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise PointsError(f"points must have shape (N, 3), got {positions.shape}")
        if np.isinf(positions).any():
            row = int(np.isinf(positions).any(axis=1).argmax())
            raise PointsError(f"points must be finite or NaN, row {row} is infinite")
        missing = np.isnan(positions)
        partly = missing.any(axis=1) & ~missing.all(axis=1)
        if partly.any():
            row = int(partly.argmax())
            raise PointsError(f"row {row} has only some of its coordinates: {positions[row].tolist()}")
        labels = tuple(str(label) for label in self.labels) or tuple(str(i + 1) for i in range(len(positions)))
        if len(labels) != len(positions):
            raise PointsError(f"{len(positions)} points cannot carry {len(labels)} labels")
        columns = {str(name): tuple(map(str, values)) for name, values in self.columns.items()}
        for name, values in columns.items():
            if len(values) != len(positions):
                raise PointsError(f"the column {name!r} has {len(values)} values for {len(positions)} points")
        positions.setflags(write=False)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        """Number of points, missing ones included."""
        return len(self.positions)

    def __repr__(self) -> str:
        """Number of points."""
        missing = int(self.missing.sum())
        return f"Points({len(self)}{f', {missing} missing' if missing else ''})"

    @classmethod
    def from_voxels(cls, indices: ArrayLike, grid: Grid, labels: Sequence[str] = ()) -> Points:
        """Points given as (N, 3) continuous zero-based voxel indices of `grid`."""
        index = np.asarray(indices, dtype=np.float64).reshape(-1, 3)
        return cls(grid.index_to_world(index), tuple(labels))

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(N,) bool, True where a point has a label but no position."""
        return np.asarray(np.isnan(self.positions).any(axis=1))

    def subset(self, keep: NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]) -> Points:
        """The points picked by a mask or by row numbers."""
        # Nothing picked is a list without a type.
        rows = np.arange(len(self))[np.asarray(keep) if len(keep) else np.zeros(0, dtype=np.int64)]
        return Points(
            self.positions[rows],
            tuple(self.labels[i] for i in rows),
            {name: tuple(values[i] for i in rows) for name, values in self.columns.items()},
        )
