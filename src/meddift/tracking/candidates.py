"""Lesions given for one scan: labels or components of a mask, points, or rows of a table."""

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
#: How sizes were measured: on the mask, by a person, by the 5 mm rule of RECIST, or not at all.
Measured = Literal["mask", "manual", "5mm_rule", "none"]

#: Largest number of lesions in one scan; more are taken for noise.
MOST_LESIONS = 150
#: Number of voxels of a large lesion that are used to compute overlap.
_SAMPLE = 1500
#: A lesion with a mean below this, HU, lies in air: the mask may be mirrored.
_AIR_HU = -850.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """One lesion in one scan, before it is linked to lesions of other scans.

    Attributes:
        label: Its name in the input: number of the label or component, or name of the point.
        center: (3,) float64, its centre, world RAS mm.
        cloud: (N, 3) float64, centres of its voxels (a subset for large lesions), world RAS mm; empty for a point.
        voxels: (N, 3) int64, indices of all its voxels in the grid of the mask; empty for a point.
        measures: Its sizes; None for a point.
        measured: How the sizes were measured.
        kind: "target", "target_node", "non_target", "non_target_node", or "" if not specified.
        organ: The organ in words, or "".
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
        """Volume, mm^3; NaN for a point."""
        return float("nan") if self.measures is None else self.measures.volume_mm3

    @property
    def radius_mm(self) -> float:
        """Radius of the sphere with the same volume, mm; 0 for a point."""
        return 0.0 if self.measures is None else float((3 * self.volume_mm3 / (4 * np.pi)) ** (1 / 3))


@dataclass(frozen=True, eq=False)
class Candidates:
    """All lesions given for one scan.

    Attributes:
        items: The lesions, in the order of their labels.
        grid: Grid of the mask; None without a mask.
        given: Whether lesions were specified for this scan; if not, no lesion can be said to have disappeared.
        notes: Remarks for the user, one sentence each.
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
    """Read lesions from a label map.

    In a map with several labels each label is a lesion. In a map with a single label every connected component (voxels
    that share a face or an edge) is a lesion.

    Args:
        mask: (X, Y, Z), whole numbers, 0 = no lesion; on the grid of the scan or another one in the same world.
        scan: The scan on which the mask was drawn.
        name: The mask's name in messages, such as its path.
        components: Whether every component is a lesion in maps with several labels too.
        minimum_mm3: Volume below which lesions are left out (the notes say how many), mm^3.

    Raises:
        ImageError: if the mask has values other than whole numbers from 0, lies in air, or has too many lesions.
        GeometryError: if the mask has the shape of the scan but another position, or lies outside the scan.
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
    """Lesions of which only the position is known.

    Args:
        points: Their positions, world RAS mm.
        scan: The scan on which they were set.
        name: The points' name in messages, such as the path of their file.

    Raises:
        GeometryError: if none of them lies in the scan.
        OptionsError: if two have the same name.
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
    """Combine lesions that were given in several ways, such as by a mask and by points.

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
    """Assign kinds and organs to the lesions at baseline.

    Args:
        found: The lesions at baseline.
        kinds: Label -> (kind, organ).
        name: Name of the table with the kinds, for messages.

    Raises:
        OptionsError: if a label does not exist.
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
        raise ImageError(f"{name} holds values that are not whole numbers: it is not a label map (threshold it first)")
    if data.size and data.min() < 0:
        raise ImageError(f"{name} holds the negative number {data.min()}; 0 is no lesion, lesions are 1, 2, 3, ...")
    return data.astype(np.int64, copy=False)


def _check_place(mask: Volume, labels: NDArray[np.int64], scan: Volume, name: str) -> None:
    """Raise GeometryError if a mask does not lie where the scan lies on which it was drawn."""
    marked = np.argwhere(labels > 0)
    if not len(marked):
        return
    if sorted(mask.grid.shape) == sorted(scan.grid.shape):
        # Grids of the same shape, in any order of axes, must have the same corners.
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
    """Label -> (N, 3) int64 indices of its voxels."""
    marked = np.argwhere(labels > 0)
    values = labels[tuple(marked.T)]
    order = np.argsort(values, kind="stable")
    starts = np.searchsorted(values[order], numbers)
    groups = np.split(marked[order], starts[1:]) if len(numbers) else []
    return {int(n): group for n, group in zip(numbers, groups, strict=True)}


def _check_air(items: Sequence[Candidate], scan: Volume, name: str, notes: list[str]) -> None:
    """Refuse a mask whose lesions in a CT mostly lie in air, and add a note if some do."""
    if not items or scan.data.min() > -900:
        return
    airy = [item.label for item in items if item.measures is not None and item.measures.hu_mean < _AIR_HU]
    if len(airy) > len(items) / 2:
        raise ImageError(
            f"{len(airy)} of {len(items)} lesions of {name} lie in air (mean below {_AIR_HU:g} HU): is the mask "
            "mirrored, or of another scan?"
        )
    notes += [f"lesion {label} of {name} lies in air" for label in airy]
