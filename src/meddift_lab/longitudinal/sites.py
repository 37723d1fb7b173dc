"""Positions for simulated lesions: in lungs and soft tissue, visible in all scans, and far enough apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.longitudinal.fates import CLOSE_MM, Course

Floats = NDArray[np.float64]

#: Least distance between the surfaces of lesions that are not neighbours, mm.
BETWEEN_MM = 8.0
#: Least distance of a lesion's surface from the skin, and from the border of the field of view, mm.
SKIN_MM, RIM_MM = 6.0, 8.0


def choose_sites(
    courses: Sequence[Course],
    anatomy: Volume,
    body: Volume,
    generator: np.random.Generator,
    *,
    shown: Callable[[Floats, float], NDArray[np.bool_]],
    hidden: Callable[[Floats], NDArray[np.bool_]] | None,
) -> Floats:
    """Choose the position of every lesion on the first scan.

    Args:
        courses: The courses of the lesions.
        anatomy: The first scan, CT in HU without noise.
        body: (X, Y, Z) bool, mask of the body on the same grid.
        generator: Source of randomness.
        shown: Takes (N, 3) world RAS mm points on the first scan and a margin in mm; returns (N,) bool, which
            points all scans show with this margin.
        hidden: Takes (N, 3) world RAS mm points on the first scan; returns (N,) bool, which points only the
            shortened scan does not show. None if there is no such scan.

    Returns:
        (N, 3) float64, world RAS mm.

    Raises:
        NoCorrespondenceError: if there is not enough room.
    """
    from scipy import ndimage

    grid = anatomy.grid
    depth = ndimage.distance_transform_edt(body.data, sampling=grid.spacing)
    values = ndimage.uniform_filter(anatomy.data.astype(np.float32), 5)
    lung = (values < -700) & (values > -960)
    soft = (values > -20) & (values < 130)
    pools = [np.argwhere((lung if lungs else soft) & (depth > SKIN_MM + 4)) for lungs in (True, False)]
    pools = [pool[generator.permutation(len(pool))[:20000]] for pool in pools if len(pool) > 200]
    if not pools:
        raise NoCorrespondenceError("the scan shows neither lung nor soft tissue for lesions to lie in")
    reach = [max(r for r in course.radii_mm if r is not None) for course in courses]
    places = np.full((len(courses), 3), np.nan)
    order = sorted(range(len(courses)), key=lambda i: (courses[i].fate != "outside", -reach[i]))
    for i in order:
        if not np.isnan(places[i]).any():
            continue
        wanted = [i] if courses[i].neighbour is None else [i, int(courses[i].neighbour or 0)]
        spots = _spots(pools, grid, generator, count=4000)
        good = _depth_at(depth, grid, spots) > SKIN_MM + reach[i]
        if courses[i].fate == "outside" and hidden is not None:
            good &= hidden(spots)
        else:
            good &= shown(spots, RIM_MM + reach[i])
        for spot in spots[good]:
            group = _beside(spot, len(wanted), generator)
            if _fits(group, [reach[n] for n in wanted], places, reach, depth, grid, shown):
                places[wanted] = group
                break
        else:
            raise NoCorrespondenceError(f"there is no room for {len(courses)} lesions in this scan")
    return places


def _spots(pools: Sequence[NDArray[np.int64]], grid: Grid, generator: np.random.Generator, *, count: int) -> Floats:
    """Candidate positions, equally many from each pool of voxels; world RAS mm."""
    picks = [pool[generator.integers(0, len(pool), count // len(pools))] for pool in pools]
    voxels = np.concatenate(picks)
    return grid.index_to_world(voxels[generator.permutation(len(voxels))])


def _beside(spot: Floats, count: int, generator: np.random.Generator) -> Floats:
    """The position, and another one at distance `CLOSE_MM` in a random direction, for two neighbours."""
    if count == 1:
        return spot[None]
    direction = generator.normal(size=3)
    return np.stack([spot, spot + CLOSE_MM * direction / np.linalg.norm(direction)])


def _fits(
    group: Floats,
    sizes: Sequence[float],
    places: Floats,
    reach: Sequence[float],
    depth: Floats,
    grid: Grid,
    shown: Callable[[Floats, float], NDArray[np.bool_]],
) -> bool:
    if len(group) > 1:
        deep = _depth_at(depth, grid, group) > SKIN_MM + np.asarray(sizes)
        if not (deep.all() and shown(group, RIM_MM + max(sizes)).all()):
            return False
    for place, size in zip(group, sizes, strict=True):
        for other, far in zip(places, reach, strict=True):
            if not np.isnan(other).any() and np.linalg.norm(place - other) < 1.2 * (size + far) + BETWEEN_MM:
                return False
    return True


def _depth_at(depth: Floats, grid: Grid, places: Floats) -> Floats:
    index = np.clip(np.rint(grid.world_to_index(places)), 0, np.asarray(grid.shape) - 1).astype(int)
    return np.asarray(depth[tuple(index.T)])
