"""`Points`: labelled positions in world RAS mm, the only coordinates of points inside meddift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import PointsError
from meddift.geometry import Grid

#: An image with more distinct values than this is a scan, not a label map.
_MOST_LABELS = 2000
#: With more distinct values than this, an image counts as a label map only if neighbouring voxels are alike.
_FEW_LABELS = 100


class LabelMap(Protocol):
    """An array of whole numbers with its grid, such as a Volume."""

    @property
    def data(self) -> NDArray[Any]:
        """(X, Y, Z) whole numbers."""
        ...

    @property
    def grid(self) -> Grid:
        """The grid on which the numbers lie."""
        ...


@dataclass(frozen=True, eq=False)
class Points:
    """Labelled points in world RAS mm.

    Attributes:
        positions: (N, 3) float64, world RAS mm; a row of NaN is a point that has a label but no position.
        labels: N strings; `"1"`, `"2"`, ... where none are given.
        columns: Further properties of the points, such as columns of a table: name -> N strings.

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
        """Points from voxel indices.

        Args:
            indices: (N, 3) float, continuous zero-based voxel indices of `grid`.
            grid: The grid on which they were measured.
            labels: N strings; numbered if empty.
        """
        index = np.asarray(indices, dtype=np.float64).reshape(-1, 3)
        return cls(grid.index_to_world(index), tuple(labels))

    @classmethod
    def from_labels(cls, label_map: LabelMap, *, name: str = "the volume") -> Points:
        """The centroid of each label above 0 of a label map, named by its number.

        Args:
            label_map: A Volume of (X, Y, Z) whole numbers. (Files of label maps are read by `read_points`.)
            name: What it is called in messages.

        Raises:
            PointsError: if it holds no label, or its values are not those of a label map (see `holds_labels`).
        """
        data = np.asarray(label_map.data)
        if data.min(initial=0) < 0 or not holds_labels(data):
            raise PointsError(
                f"{name} is an image, but no label map: its values are not a few whole numbers from 0 on. Points are "
                f"read from points files, such as .mrk.json and .csv, and from segmentations, a point for each label"
            )
        whole = data if data.dtype.kind in "iub" else np.rint(data)
        values = np.unique(whole)
        values = values[values > 0]
        if not len(values):
            raise PointsError(f"{name} is a label map without any label: all of its voxels are 0")
        # Sums over the voxels of each label. Labels may be far apart, so they are renumbered from 0 first.
        place = np.nonzero(whole)
        which = np.searchsorted(values, whole[place])
        count = np.bincount(which)
        index = np.stack([np.bincount(which, weights=axis) / count for axis in place], axis=1)
        return cls(label_map.grid.index_to_world(index), tuple(str(int(value)) for value in values))

    @classmethod
    def from_frame(cls, frame: Any, *, x: str = "x", y: str = "y", z: str = "z", label: str = "label") -> Points:
        """Points of a pandas DataFrame, whose coordinates are world RAS mm; further columns are carried along.

        Args:
            frame: The table.
            x: Column of the coordinate to the right, mm.
            y: Column of the coordinate to the front, mm.
            z: Column of the coordinate upwards, mm.
            label: Column of the labels; where there is none, points are numbered.

        Raises:
            PointsError: if a column of coordinates is missing.
        """
        names = [str(name) for name in frame.columns]
        missing = [name for name in (x, y, z) if name not in names]
        if missing:
            raise PointsError(f"the table has no column {', '.join(missing)}; it has {', '.join(names)}")
        positions = np.column_stack([np.asarray(frame[name], dtype=np.float64) for name in (x, y, z)])
        labels = tuple(map(str, frame[label])) if label in names else ()
        further = {name: list(map(str, frame[name])) for name in names if name not in (x, y, z, label)}
        return cls(positions, labels, further)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(N,) bool, True where a point has a label but no position."""
        return np.asarray(np.isnan(self.positions).any(axis=1))

    def subset(self, keep: NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]) -> Points:
        """The points selected by an (N,) bool mask or by row numbers."""
        # An empty list has no integer type of its own.
        rows = np.arange(len(self))[np.asarray(keep) if len(keep) else np.zeros(0, dtype=np.int64)]
        return Points(
            self.positions[rows],
            tuple(self.labels[i] for i in rows),
            {name: tuple(values[i] for i in rows) for name, values in self.columns.items()},
        )


def as_points(points: Points | ArrayLike) -> Points:
    """Points unchanged, or points made from (N, 3) or (3,) numbers in world RAS mm.

    Raises:
        PointsError: if they are neither.
    """
    if isinstance(points, Points):
        return points
    try:
        positions = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PointsError(
            f"points are (N, 3) numbers in world RAS mm, or Points; got {type(points).__name__}. Files are read by "
            "meddift.read_points"
        ) from error
    return Points(positions[None] if positions.shape == (3,) else positions)


def holds_labels(data: NDArray[Any]) -> bool:
    """Whether the values of an image can be those of a label map: whole numbers that vary less than grey values do.

    An image with many distinct values is a label map if most pairs of neighbouring voxels outside the background have
    the same value. Maps with only a few voxels for each label, such as marked points, are accepted without this test.

    Args:
        data: (X, Y, Z) numbers.
    """
    if data.dtype.kind not in "iub" and not (np.isfinite(data).all() and (data == np.rint(data)).all()):
        return False
    values = np.unique(data)
    if len(values) <= _FEW_LABELS or len(values) > _MOST_LABELS:
        return len(values) <= _MOST_LABELS
    data = np.moveaxis(data, int(np.argmax(data.shape)), 0)
    inside = data != values[0]
    if inside.sum() < 8 * len(values):
        return True
    pairs = inside[1:] | inside[:-1]
    return bool((data[1:] == data[:-1])[pairs].mean() > 0.5)
