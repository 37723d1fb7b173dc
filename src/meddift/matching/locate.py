"""Finding points in the moving scan: in the whole scan, or near their expected positions.

A search near an expected position compares each point together with its neighbours, which is more reliable than a
single descriptor: the neighbours are voxels of the moving grid around the candidate, paired with fixed points by the
local linear part of the prior, and their similarities are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import Grid, Transform, steps_of, window_distances, windows_around
from meddift.matching.index import SearchIndex, unravel
from meddift.matching.local import window_similarity
from meddift.matching.maps import search_maps
from meddift.matching.search import GlobalSearch
from meddift.matching.subvoxel import peak_offsets
from meddift.system.threads import for_each

#: Smallest distance of a rival from the best position, mm.
RIVAL_MM = 12.0
#: Number of similarities that are held at a time: on the CPU about what stays in its cache, on a GPU enough to keep it
#: busy.
WINDOW_NUMBERS = {"cpu": 4_000_000, "cuda": 200_000_000}


@dataclass(frozen=True, eq=False)
class Located:
    """Positions found for N points, with measures of their reliability; NaN where something was not measured.

    Attributes:
        positions: (N, 3) float64, on the moving scan, world RAS mm.
        expected: (N, 3) float64, positions predicted by the field or by matches nearby, world RAS mm.
        similarity: (N,) float64, weighted mean cosine over the levels at the position found, averaged over the
            neighbours that were compared too.
        first_similarity: (N,) float64, the similarity in the wider search that came before the refinement.
        margin: (N,) float64, difference in similarity to the best rival; inf without a rival.
        at_border: (N,) bool, whether the position lies on the border of the scan or of the searched region, so that
            the true one may lie outside.
        misfit: (N,) float64, see `Aligned`.
        standard_deviation_mm: (N,) float64, see `Aligned`.
        inverse_error_mm: (N,) float64, inverse-consistency error: distance of the point from the result of matching
            back, mm.
        reachable: (N,) bool, whether the expected position lies in the moving scan; True without expectation.
        supported: (N,) bool, whether neighbours agree with the field; True without a field.
        uncertainty_mm: (N,) float64, expected error of the field, mm.
    """

    positions: NDArray[np.float64]
    expected: NDArray[np.float64]
    similarity: NDArray[np.float64]
    first_similarity: NDArray[np.float64]
    margin: NDArray[np.float64]
    at_border: NDArray[np.bool_]
    misfit: NDArray[np.float64]
    standard_deviation_mm: NDArray[np.float64]
    inverse_error_mm: NDArray[np.float64]
    reachable: NDArray[np.bool_]
    supported: NDArray[np.bool_]
    uncertainty_mm: NDArray[np.float64]

    @classmethod
    def empty(cls, count: int) -> Located:
        """A table to be filled in: all numbers NaN, and all flags such that they raise no doubt."""
        vectors, truths = ("positions", "expected"), {"at_border": False, "reachable": True, "supported": True}

        def column(name: str) -> NDArray[Any]:
            return np.full((count, 3) if name in vectors else count, truths.get(name, np.nan))

        return cls(**{field.name: column(field.name) for field in fields(cls)})

    def rows(self, rows: NDArray[Any]) -> Located:
        """A table of some rows, by indices or mask."""
        return Located(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def put(self, rows: NDArray[Any], part: Located) -> None:
        """Replace some rows, in place, by those of another table."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(part, field.name)


def locate_globally(fixed: SearchIndex, moving: SearchIndex, positions: NDArray[np.float64]) -> Located:
    """Search for points in the whole moving scan.

    Args:
        fixed: Index of the scan in which the points are given.
        moving: Index of the scan that is searched.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.

    Returns:
        One row for each point.
    """
    queries = fixed.describe(positions)
    if moving.is_coarse:
        found = search_maps(moving, queries, exclusion_mm=RIVAL_MM)
    else:
        found = GlobalSearch(moving, exclusion_mm=RIVAL_MM)(queries)
    last = np.asarray(moving.grid.shape) - 1
    at_border = ((found.voxels == 0) & (last > 0) | (found.voxels == last) & (last > 0)).any(axis=1)
    located = Located.empty(len(positions))
    return replace(
        located,
        positions=moving.grid.index_to_world(found.voxels),
        similarity=found.similarity,
        first_similarity=found.similarity,
        margin=found.similarity - found.rival,
        at_border=at_border,
    )


def locate_nearby(
    fixed: SearchIndex,
    moving: SearchIndex,
    positions: NDArray[np.float64],
    expected: NDArray[np.float64],
    prior: Transform,
    *,
    radius_mm: float,
    support_mm: float,
) -> Located:
    """Search for points in a ball around their expected positions, with sub-voxel results.

    Args:
        fixed: Index of the scan in which the points are given.
        moving: Index of the scan that is searched.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        expected: (N, 3) float64 on the moving scan, world RAS mm.
        prior: Fixed to moving; only its local Jacobian is used, to pair neighbours.
        radius_mm: Radius of the ball, mm.
        support_mm: Distance of the neighbours that are compared together with each point, mm; 0 = the point alone.

    Returns:
        One row for each point.
    """
    count, grid = len(positions), moving.grid
    located = Located.empty(count)
    offsets = _neighbours(grid, support_mm)
    # A moving voxel plus an offset is compared with the fixed point plus this matrix times the offset.
    back = np.linalg.inv(local_linear(prior, positions))
    shifts = np.einsum("nij,kj->nki", back, grid.vectors_to_world(offsets))
    voxel_mm = float(grid.spacing.max())
    start, shape = windows_around(grid, expected, radius_mm + support_mm + voxel_mm)
    inner, core = windows_around(grid, expected, radius_mm + voxel_mm)
    last = np.asarray(grid.shape) - 1
    kind = torch.device(moving.device).type
    average = _average_shifted if kind == "cpu" else _average_gathered
    at_once = max(1, WINDOW_NUMBERS[kind] // (len(offsets) * int(np.prod(shape))))
    # Several threads will read both indexes: compute shared values first. Norms on the whole grid pay off only if the
    # windows together are as large.
    fixed.prepare(norms=False)
    moving.prepare(norms=count * int(np.prod(shape)) >= grid.size)

    def locate(first: int) -> None:
        rows = slice(first, min(first + at_once, count))
        now = len(positions[rows])
        around = (positions[rows, None] + shifts[rows]).reshape(-1, 3)
        queries = [q.reshape(now, len(offsets), -1) for q in fixed.describe(around)]
        wide = window_similarity(moving, queries, start[rows], shape)
        values = average(wide, offsets, inner[rows] - start[rows], core)
        goal = torch.from_numpy(grid.world_to_index(expected[rows]) - inner[rows]).to(values.device)
        away = window_distances(grid, goal, core)
        # If no voxel lies within the radius (expected position outside the scan), the whole window is searched.
        reachable = (away <= radius_mm).flatten(1).any(dim=1)[:, None, None, None]
        searched = values.masked_fill((away > radius_mm) & reachable, -torch.inf)
        top, flat = searched.flatten(1).max(dim=1)
        place = torch.stack(unravel(flat, core), dim=1)
        offset = peak_offsets(_cubes(values, place))
        beyond = window_distances(grid, place, core) > RIVAL_MM
        rival = searched.masked_fill(~beyond, -torch.inf).flatten(1).amax(dim=1)
        # One copy to main memory for all results of these points.
        known = torch.cat([place.double(), offset, top[:, None].double(), rival[:, None].double()], dim=1)
        numbers = known.cpu().numpy()
        voxel = inner[rows] + numbers[:, :3].astype(np.int64)
        rim = ((voxel == 0) | (voxel == last)) & (last > 0)
        far = np.linalg.norm(grid.index_to_world(voxel) - expected[rows], axis=1) > radius_mm - voxel_mm
        located.positions[rows] = grid.index_to_world(voxel + numbers[:, 3:6])
        located.similarity[rows] = located.first_similarity[rows] = numbers[:, 6]
        located.margin[rows] = numbers[:, 6] - numbers[:, 7]
        located.at_border[rows] = rim.any(axis=1) | far

    for_each(range(0, count, at_once), locate, device=kind)
    return located


def _neighbours(grid: Grid, support_mm: float) -> NDArray[np.int64]:
    """(K, 3) int64, offsets in voxels: 0, then the rest of a 3 x 3 x 3 cube of points about `support_mm` apart."""
    step = steps_of(grid, support_mm)
    sides = (0, -1, 1) if support_mm > 0 else (0,)
    offsets = np.array(list(product(sides, repeat=3)), dtype=np.int64) * step
    # A scan that is too thin has no neighbours along that axis.
    return np.asarray(offsets[(np.abs(offsets) < np.asarray(grid.shape)).all(axis=1)])


def _average_shifted(
    values: torch.Tensor, offsets: NDArray[np.int64], first: NDArray[np.int64], core: tuple[int, int, int]
) -> torch.Tensor:
    """Mean over k of `values[:, k]` at each voxel of the core plus offset k, where that lies inside the window.

    Args:
        values: (N, K, n0, n1, n2), similarities in windows that are larger than the cores.
        offsets: (K, 3) int64, voxels.
        first: (N, 3) int64, first voxel of each core in its window; the same for all but windows at a border.
        core: Shape of all cores, voxels.

    Returns:
        (N, *core).
    """
    result = values.new_empty((len(values), *core))
    window = np.asarray(values.shape[2:])
    begins, group = np.unique(first, axis=0, return_inverse=True)
    for number, begin in enumerate(begins):
        rows = slice(None) if len(begins) == 1 else np.flatnonzero(group.reshape(-1) == number)
        part = values[rows]
        total = values.new_zeros((len(part), *core))
        counted = values.new_zeros(core)
        for k, at in enumerate(begin + offsets):
            # The part of the core that lies inside the window after the offset.
            low, high = np.maximum(0, -at).tolist(), np.minimum(core, window - at).tolist()
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
            u, v, w = (slice(o + a, o + b) for o, a, b in zip(at.tolist(), low, high, strict=True))
            total[:, x, y, z] += part[:, k, u, v, w]
            counted[x, y, z] += 1
        result[rows] = total / counted
    return result


def _average_gathered(
    values: torch.Tensor, offsets: NDArray[np.int64], first: NDArray[np.int64], core: tuple[int, int, int]
) -> torch.Tensor:
    """As `_average_shifted`, by gathering: fewer operations for all windows at once, with irregular memory access."""
    count, neighbours, *window = values.shape
    begin = torch.from_numpy(first[:, None] + offsets).to(values.device)
    axes, inside = [], []
    for axis, (size, length) in enumerate(zip(core, window, strict=True)):
        at = begin[..., axis, None] + torch.arange(size, device=values.device)
        axes.append(at.clamp(0, length - 1))
        inside.append((at >= 0) & (at < length))
    x, y, z = axes
    at = (x[..., :, None, None] * window[1] + y[..., None, :, None]) * window[2] + z[..., None, None, :]
    there = inside[0][..., :, None, None] & inside[1][..., None, :, None] & inside[2][..., None, None, :]
    read = values.reshape(count, neighbours, -1).gather(2, at.flatten(2)).reshape(at.shape)
    return torch.where(there, read, 0.0).sum(dim=1) / there.sum(dim=1)


def _cubes(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3, 3), the values around each voxel; -inf outside the window."""
    padded = torch.nn.functional.pad(values, [1] * 6, value=-torch.inf)
    around = torch.arange(3, device=values.device)
    i, j, k = (place[:, axis, None] + around for axis in range(3))
    rows = torch.arange(len(values), device=values.device)[:, None, None, None]
    return padded[rows, i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]]


def local_linear(prior: Transform, positions: NDArray[np.float64], *, step_mm: float = 10.0) -> NDArray[np.float64]:
    """Jacobian of a transform at points, by central differences.

    Args:
        prior: Any transform.
        positions: (N, 3) float64, world RAS mm.
        step_mm: Step of the differences, mm.

    Returns:
        (N, 3, 3) float64; the identity where the transform folds or nearly collapses volume.
    """
    columns = []
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step_mm
        columns.append((prior.apply(positions + shift) - prior.apply(positions - shift)) / (2 * step_mm))
    linear = np.stack(columns, axis=-1)
    # Where the transform folds or nearly collapses, its inverse would move neighbours far away.
    healthy = np.abs(np.linalg.det(linear)) > 0.2
    return np.where(healthy[:, None, None], linear, np.eye(3))
