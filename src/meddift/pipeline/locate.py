"""Finding points: expected place, window, then neighbours and fine levels, then between voxels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import Grid, Transform
from meddift.matching import (
    GlobalSearch,
    SearchIndex,
    distances,
    peak_offsets,
    search_maps,
    window_similarity,
    windows_around,
)

#: A rival is at least this far from the best place, mm.
RIVAL_MM = 12.0
#: Within this distance of the place found, fine levels and neighbours decide, mm.
REFINE_MM = 7.0
#: Neighbours that are compared along with the point: a cube of three a side, this far apart, mm.
SUPPORT_MM = 4.0
#: Points whose windows are held at a time.
WINDOWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Located:
    """Where points were found.

    Attributes:
        positions: (N, 3) float64, world RAS mm.
        similarity: (N,) float64, mean cosine over all levels of the search at the best voxel.
        margin: (N,) float64, similarity minus that of the best rival; inf where there is no rival.
        at_border: (N,) bool, True where the best voxel lies on the rim of the scan or of the searched ball:
            the true place may lie beyond.
    """

    positions: NDArray[np.float64]
    similarity: NDArray[np.float64]
    margin: NDArray[np.float64]
    at_border: NDArray[np.bool_]


def locate_globally(fixed: SearchIndex, moving: SearchIndex, positions: NDArray[np.float64]) -> Located:
    """Look for points everywhere.

    Args:
        fixed: The scan in which the points are given.
        moving: The scan in which they are looked for.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
    """
    queries = fixed.describe(positions)
    finest = max(level.features[..., 0].numel() for level in moving.levels)
    # Where the lattice is hardly finer than the finest level, there is nothing to pass over.
    if moving.lattice.size <= 2 * finest:
        found = search_maps(moving, queries, exclusion_mm=RIVAL_MM)
    else:
        found = GlobalSearch(moving, exclusion_mm=RIVAL_MM)(queries)
    last = np.asarray(moving.lattice.shape) - 1
    at_border = ((found.voxels == 0) & (last > 0) | (found.voxels == last) & (last > 0)).any(axis=1)
    return Located(
        moving.lattice.index_to_world(found.voxels), found.similarity, found.similarity - found.rival, at_border
    )


def locate_nearby(
    fixed: SearchIndex,
    moving: SearchIndex,
    positions: NDArray[np.float64],
    expected: NDArray[np.float64],
    radius_mm: float,
) -> Located:
    """Look for points within a ball around where they are expected.

    Args:
        fixed: The scan in which the points are given.
        moving: The scan in which they are looked for.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        expected: (N, 3) float64 on the moving scan, world RAS mm.
        radius_mm: Of the ball.
    """
    count = len(positions)
    voxels = np.zeros((count, 3), dtype=np.int64)
    best, rival = np.zeros(count), np.full(count, -np.inf)
    at_border = np.zeros(count, dtype=bool)
    queries = fixed.describe(positions)
    start, shape = windows_around(moving, expected, radius_mm)
    last = np.asarray(moving.lattice.shape) - 1
    for first in range(0, count, WINDOWS_AT_ONCE):
        rows = slice(first, min(first + WINDOWS_AT_ONCE, count))
        values = window_similarity(moving, [q[rows] for q in queries], start[rows], shape)
        away = distances(moving, start[rows], shape, expected[rows])
        # An expected place beyond the scan may have no voxel within the radius: then the whole window counts.
        reachable = (away <= radius_mm).flatten(1).any(dim=1)[:, None, None, None]
        values = values.masked_fill((away > radius_mm) & reachable, -torch.inf)
        top, place = values.flatten(1).max(dim=1)
        inside = torch.stack(torch.unravel_index(place, shape), dim=1).cpu().numpy()
        voxels[rows] = start[rows] + inside
        best[rows] = top.double().cpu().numpy()
        found = moving.lattice.index_to_world(voxels[rows])
        beyond = distances(moving, start[rows], shape, found) > RIVAL_MM
        rival[rows] = values.masked_fill(~beyond, -torch.inf).flatten(1).amax(dim=1).double().cpu().numpy()
        voxel = voxels[rows]
        rim = ((voxel == 0) | (voxel == last)) & (last > 0)
        reach = np.linalg.norm(found - expected[rows], axis=1) > radius_mm - moving.lattice.spacing.max()
        at_border[rows] = rim.any(axis=1) | reach
    return Located(moving.lattice.index_to_world(voxels), best, best - rival, at_border)


def refine(
    fixed: SearchIndex,
    moving: SearchIndex,
    positions: NDArray[np.float64],
    found: NDArray[np.float64],
    prior: Transform,
) -> NDArray[np.float64]:
    """Correct places found by a few mm: compare neighbours along with each point, and answer between voxels.

    Neighbours are voxels of the moving lattice around the place; each is compared with the fixed point that the
    local linear part of the prior makes its counterpart. Their similarities are averaged: one descriptor may err, 27
    that have to move together hardly do.

    Args:
        fixed: The scan in which the points are given.
        moving: The scan in which they were found.
        positions: (N, 3) float64 on the fixed scan, world RAS mm.
        found: (N, 3) float64 on the moving scan, world RAS mm.
        prior: Fixed to moving; only its local stretching and turning is used.

    Returns:
        (N, 3) float64, world RAS mm.
    """
    lattice = moving.lattice
    step = np.maximum(1, np.round(SUPPORT_MM / lattice.spacing)).astype(np.int64)
    offsets = np.array(list(product((-1, 0, 1), repeat=3)), dtype=np.int64) * step
    # A thin scan has no neighbours across: drop what would always fall off the lattice.
    offsets = offsets[(np.abs(offsets) < np.asarray(lattice.shape)).all(axis=1)]
    in_world = offsets @ lattice.affine[:3, :3].T
    back = np.linalg.inv(_local_linear(prior, positions))
    start, shape = windows_around(moving, found, REFINE_MM)
    bound = np.asarray(lattice.shape) - shape
    refined = found.copy()
    for first in range(0, len(positions), WINDOWS_AT_ONCE):
        rows = slice(first, min(first + WINDOWS_AT_ONCE, len(positions)))
        total: torch.Tensor | None = None
        counted = np.zeros((len(refined[rows]), 1, 1, 1), dtype=np.float32)
        for offset, world in zip(offsets, in_world, strict=True):
            shifted = start[rows] + offset
            usable = ((shifted >= 0) & (shifted <= bound)).all(axis=1)
            at = np.clip(shifted, 0, bound)
            queries = fixed.describe(positions[rows] + back[rows] @ world)
            values = window_similarity(moving, queries, at, shape)
            weight = usable.astype(np.float32)[:, None, None, None]
            values = values * torch.from_numpy(weight).to(values.device)
            total = values if total is None else total.add_(values)
            counted += weight
        if total is None:
            continue
        mean = total.cpu().numpy() / np.maximum(counted, 1)
        away = distances(moving, start[rows], shape, found[rows]).cpu().numpy()
        mean = np.where(away <= REFINE_MM, mean, -np.inf)
        place = np.stack(np.unravel_index(mean.reshape(len(mean), -1).argmax(axis=1), shape), axis=1)
        refined[rows] = lattice.index_to_world(start[rows] + place + peak_offsets(_cubes(mean, place)))
    return refined


def _cubes(values: NDArray[np.floating], place: NDArray[np.int64]) -> NDArray[np.floating]:
    """(N, 3, 3, 3), the values around each place; -inf beyond the window."""
    padded = np.pad(values, [(0, 0), (1, 1), (1, 1), (1, 1)], constant_values=-np.inf)
    around = np.arange(3)
    i, j, k = (place[:, axis, None] + around for axis in range(3))
    rows = np.arange(len(values))[:, None, None, None]
    return np.asarray(padded[rows, i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]])


def _local_linear(prior: Transform, positions: NDArray[np.float64], *, step_mm: float = 10.0) -> NDArray[np.float64]:
    """(N, 3, 3), how the prior stretches and turns around each point; central differences."""
    columns = []
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step_mm
        columns.append((prior.apply(positions + shift) - prior.apply(positions - shift)) / (2 * step_mm))
    linear = np.stack(columns, axis=-1)
    # Where a prior folds or flattens, its inverse would throw neighbours far away: do without it.
    healthy = np.abs(np.linalg.det(linear)) > 0.2
    return np.where(healthy[:, None, None], linear, np.eye(3))


def rim_distance_mm(grid: Grid, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) float64, how far inside the field of view points lie, mm; negative outside."""
    index = grid.world_to_index(positions)
    low = (index + 0.5) * grid.spacing
    high = (np.asarray(grid.shape) - 0.5 - index) * grid.spacing
    return np.asarray(np.minimum(low, high).min(axis=-1))
