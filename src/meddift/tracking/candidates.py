"""Lesions as they were given for one scan: labels or components of a mask, points, or rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError, OptionsError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.tracking.measures import Measures, measure
from meddift.volume import Volume

Floats = NDArray[np.float64]
#: How sizes came about: on the mask, by a person, by the 5 mm rule of RECIST, or not at all.
Measured = Literal["mask", "manual", "5mm_rule", "none"]

#: More lesions in one scan than this are noise, or another task.
MOST_LESIONS = 150
#: So many voxels stand for a large lesion where overlap is judged.
_SAMPLE = 1500
#: A lesion with a lower mean than this lies in air: the mask may be the wrong way round, HU.
_AIR_HU = -850.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """One lesion in one scan, before it is known which lesion of other scans it is.

    Attributes:
        label: What the input calls it: number of its label or component, or name of its point.
        center: (3,) float64, world RAS mm.
        cloud: (N, 3) float64, places of its voxels (of at most some 1500 of them), world RAS mm; empty for a point.
        voxels: (N, 3) int, all its voxels in the grid of the mask; empty for a point.
        measures: Sizes; None for a point.
        measured: How they came about.
        kind: "target", "target_node", "non_target", "non_target_node", or "" where nobody said.
        organ: In words, or "".
    """

    label: str
    center: Floats
    cloud: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    voxels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    measures: Measures | None = None
    measured: Measured = "none"
    kind: str = ""
    organ: str = ""

    @property
    def volume_mm3(self) -> float:
        """Volume, or NaN for a point."""
        return float("nan") if self.measures is None else self.measures.volume_mm3

    @property
    def radius_mm(self) -> float:
        """Of the sphere of the same volume, or 0 for a point."""
        return 0.0 if self.measures is None else float((3 * self.volume_mm3 / (4 * np.pi)) ** (1 / 3))


@dataclass(frozen=True, eq=False)
class Candidates:
    """All lesions of one scan.

    Attributes:
        items: In order of their labels.
        grid: Of the mask; None where there is none.
        given: Whether anything was given at all: else nothing can be said to have disappeared.
        notes: What a person should know, one sentence each.
    """

    items: tuple[Candidate, ...] = ()
    grid: Grid | None = None
    given: bool = True
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of lesions."""
        return len(self.items)


def candidates_of_mask(
    mask: Volume,
    scan: Volume,
    *,
    name: str = "the mask",
    components: bool = False,
    minimum_mm3: float = 0.0,
) -> Candidates:
    """Lesions of a label map.

    A map with several numbers has one lesion a number. In a map with only one number, every connected component is a
    lesion (voxels connected by a face or an edge).

    Args:
        mask: (X, Y, Z) of whole numbers, 0 = no lesion; on the voxels of the scan, or on others in the same world.
        scan: The scan on which it was drawn.
        name: For messages: its path.
        components: Whether every component is a lesion, also in a map with several numbers.
        minimum_mm3: Smaller ones are left out, and counted in the notes.

    Raises:
        ImageError: if it holds other than whole numbers from 0 on, lies in air, or holds too many lesions.
        GeometryError: if it has the voxels of the scan at another place, or lies outside the scan.
    """
    labels = _whole_numbers(mask, name)
    _check_place(mask, labels, scan, name)
    numbers = np.unique(labels)
    numbers = numbers[numbers > 0]
    if components or len(numbers) == 1:
        parts, found = _components(labels, numbers)
        if len(found) > len(numbers):  # a single lesion keeps its number
            labels, numbers = parts, found
    grouped = _voxels_by_label(labels, numbers)
    notes = []
    if not len(numbers):
        notes.append(f"{name} is empty: no lesion was marked")
    small = [n for n in grouped if len(grouped[n]) * mask.grid.voxel_volume < minimum_mm3]
    if small:
        notes.append(
            f"{len(small)} of {len(grouped)} lesions of {name} are below {minimum_mm3:g} mm3 and were left out"
        )
    kept = {n: voxels for n, voxels in grouped.items() if n not in small}
    if len(kept) > MOST_LESIONS:
        raise ImageError(
            f"{name} holds {len(kept)} lesions, more than {MOST_LESIONS}: most of them may be noise. Clean the mask, "
            "or leave small ones out with --minimum-mm3"
        )
    items = []
    for number, voxels in kept.items():
        sizes = measure(voxels, mask.grid, scan=scan)
        cloud = mask.grid.index_to_world(voxels[:: max(1, len(voxels) // _SAMPLE)])
        items.append(Candidate(str(number), sizes.center, cloud, voxels, sizes, "mask"))
    _check_air(items, scan, name, notes)
    return Candidates(tuple(items), mask.grid, True, tuple(notes))


def candidates_of_points(points: Points, scan: Volume, *, name: str = "the points") -> Candidates:
    """Lesions of which only the place is known.

    Raises:
        GeometryError: if none of them lies in the scan.
    """
    there = ~points.missing
    inside = scan.grid.contains(points.positions)
    if there.any() and not inside.any():
        raise GeometryError(f"none of the points of {name} lies in the scan; were they set on another one?")
    notes = [
        f"point {points.labels[i]} of {name} {'lies outside the scan' if there[i] else 'has no position'}"
        for i in np.flatnonzero(~inside)
    ]
    items = [Candidate(points.labels[i], points.positions[i].copy()) for i in np.flatnonzero(inside)]
    if len({item.label for item in items}) < len(items):
        raise OptionsError(f"two points of {name} have the same name; give each lesion a name of its own")
    return Candidates(tuple(items), None, True, tuple(notes))


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Lesions that were given in several ways, such as a mask and points beside it.

    Raises:
        OptionsError: if two of them have the same label.
    """
    items = tuple(item for part in parts for item in part.items)
    names = [item.label for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionsError(f"lesion {', '.join(twice)} was given twice, as a mask and as a point or a row of a table")
    grid = next((part.grid for part in parts if part.grid is not None), None)
    given = any(part.given for part in parts)
    return Candidates(items, grid, given, tuple(note for part in parts for note in part.notes))


def with_kinds(found: Candidates, kinds: dict[str, tuple[str, str]], name: str) -> Candidates:
    """Candidates with the kind and organ that somebody gave to labels.

    Args:
        found: Of the baseline.
        kinds: Label -> (kind, organ).
        name: Of the table that says so.

    Raises:
        OptionsError: if a label is not there.
    """
    labels = {item.label for item in found.items}
    unknown = sorted(set(kinds) - labels)
    if unknown:
        raise OptionsError(f"{name} names lesion {', '.join(unknown)}, which is not at baseline: {', '.join(labels)}")
    items = tuple(
        replace(item, kind=kinds[item.label][0], organ=kinds[item.label][1]) if item.label in kinds else item
        for item in found.items
    )
    return replace(found, items=items)


def _whole_numbers(mask: Volume, name: str) -> NDArray[np.int64]:
    data = mask.data
    if data.ndim != 3:
        raise ImageError(f"{name} has several channels; a label map has one number a voxel")
    if data.dtype.kind == "f" and not (np.isfinite(data).all() and (data == np.rint(data)).all()):
        raise ImageError(f"{name} holds other than whole numbers: it is no label map (cut probabilities first)")
    if data.size and data.min() < 0:
        raise ImageError(f"{name} holds the negative number {data.min()}; 0 is no lesion, lesions are 1, 2, 3, ...")
    return data.astype(np.int64, copy=False)


def _check_place(mask: Volume, labels: NDArray[np.int64], scan: Volume, name: str) -> None:
    """Refuse a mask that lies elsewhere than the scan on which it was drawn."""
    marked = np.argwhere(labels > 0)
    if not len(marked):
        return
    if sorted(mask.grid.shape) == sorted(scan.grid.shape):
        # The same voxels, in whatever order of axes, must be at the same places.
        ours, theirs = (np.sort(grid.reoriented("RAS")[0].corners, axis=0) for grid in (mask.grid, scan.grid))
        away = float(np.abs(ours - theirs).max())
        if away > 0.5 * float(scan.grid.spacing.max()) + 0.01:
            raise GeometryError(
                f"{name} has as many voxels as the scan but states another place (corners {away:.1f} mm apart). Was "
                "it made for another scan, or saved without its geometry? Save it again on the scan's voxels"
            )
    inside = scan.grid.contains(mask.grid.index_to_world(marked[:: max(1, len(marked) // 20000)]))
    if not inside.all():
        raise GeometryError(
            f"{100 * (1 - inside.mean()):.0f} % of the lesions of {name} lie outside the scan: it belongs to another"
        )


def _components(labels: NDArray[np.int64], numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from scipy import ndimage

    connected = ndimage.generate_binary_structure(3, 2)
    result = np.zeros(labels.shape, dtype=np.int64)
    count = 0
    for number in numbers:
        found, more = ndimage.label(labels == number, structure=connected)
        result[found > 0] = found[found > 0] + count
        count += more
    return result, np.arange(1, count + 1)


def _voxels_by_label(labels: NDArray[np.int64], numbers: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Number -> (N, 3) voxels."""
    marked = np.argwhere(labels > 0)
    values = labels[tuple(marked.T)]
    order = np.argsort(values, kind="stable")
    starts = np.searchsorted(values[order], numbers)
    groups = np.split(marked[order], starts[1:]) if len(numbers) else []
    return {int(n): group for n, group in zip(numbers, groups, strict=True)}


def _check_air(items: Sequence[Candidate], scan: Volume, name: str, notes: list[str]) -> None:
    """In a CT no lesion consists of air."""
    if not items or scan.data.min() > -900:
        return
    airy = [item.label for item in items if item.measures is not None and item.measures.hu_mean < _AIR_HU]
    if len(airy) > len(items) / 2:
        raise ImageError(
            f"{len(airy)} of {len(items)} lesions of {name} lie in air (mean below {_AIR_HU:g} HU): is the mask "
            "mirrored, or of another scan?"
        )
    notes += [f"lesion {label} of {name} lies in air" for label in airy]
