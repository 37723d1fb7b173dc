"""Choosing points in a scan: a measure of distinctiveness, and points on vessels or anywhere in the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.body import body_mask, lung_mask
from meddift.errors import NoCorrespondenceError, OptionsError
from meddift.points import Points
from meddift.volume import Volume

Floats = NDArray[np.float64]


def distinctiveness(volume: Volume, *, sigma_mm: float = 1.5) -> Volume:
    """How well each voxel can be distinguished from its neighbours in all three directions.

    The interest operator of W. Förstner and E. Gülch (A fast operator for detection and precise location of
    distinct points, corners and centres of circular features, 1987), in 3D as in the keypoints of corrField
    (M. Heinrich et al., 2015): `w = 1 / trace(N^-1) = det(N) / trace(adj(N))`, where N is the outer product of
    the gradient, summed under a Gaussian window. It does not depend on how the grid is oriented.

    Args:
        volume: CT in HU.
        sigma_mm: Standard deviation of the Gaussian derivative filter and of the window.

    Returns:
        Volume of float32, (HU/mm)^2.
    """
    from scipy import ndimage

    sigma = sigma_mm / volume.grid.spacing
    # Clip bone and metal: their strong edges would outweigh vessels, and points are wanted in soft tissue and lung.
    data = np.clip(volume.data, -1000, 200).astype(np.float32)
    slopes = []
    for axis in range(3):
        order = [int(axis == a) for a in range(3)]
        slope = ndimage.gaussian_filter(data, sigma, order=order, mode="nearest", truncate=3)
        slopes.append(slope / np.float32(volume.grid.spacing[axis]))

    def windowed(a: int, b: int) -> NDArray[np.float32]:
        return np.asarray(ndimage.gaussian_filter(slopes[a] * slopes[b], sigma, mode="nearest", truncate=3))

    xx, yy, zz = windowed(0, 0), windowed(1, 1), windowed(2, 2)
    xy, xz, yz = windowed(0, 1), windowed(0, 2), windowed(1, 2)
    minor_x, minor_y, minor_z = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    determinant = xx * minor_x - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    trace = minor_x + minor_y + minor_z
    return Volume(np.maximum(determinant, 0) / np.maximum(trace, 1e-6), volume.grid)


def pick_points(
    volume: Volume,
    n: int,
    *,
    kind: str = "vessels",
    seed: int = 0,
    min_distance_mm: float | None = None,
    margin_mm: float = 5.0,
) -> Points:
    """Choose points to be matched.

    Args:
        volume: CT in HU, any orientation.
        n: Number of points; fewer are returned if the scan has no room for n at the given distance.
        kind: `"vessels"`: most distinctive voxels inside the lungs, away from the chest wall; `"body"`: uniformly
            random inside the body; `"lattice"`: a regular grid inside the body.
        seed: Seed for `"body"` and for the position of the grid; equal seeds give equal points.
        min_distance_mm: Least distance between two points. `None` means, for vessels, 0.6 times the spacing that
            n points would have on a regular grid in the mask, and no limit for the other kinds.
        margin_mm: Least distance from the border of the mask.

    Returns:
        Points in world RAS mm, labelled `vessels-1`, `vessels-2`, ...

    Raises:
        OptionsError: if `kind` is unknown or `n` is below 1.
        NoCorrespondenceError: if the mask (lungs or body) is empty.
    """
    from scipy import ndimage

    if kind not in ("vessels", "body", "lattice"):
        raise OptionsError(f'kind must be "vessels", "body" or "lattice", got {kind!r}')
    if n < 1:
        raise OptionsError(f"at least one point must be asked for, got {n}")
    generator = np.random.default_rng(seed)
    grid = volume.grid
    mask = (lung_mask if kind == "vessels" else body_mask)(volume).data
    # Erode by a box, not a ball: it is separable and therefore fast on full-size scans.
    size = 2 * np.floor(margin_mm / grid.spacing + 1e-6).astype(int) + 1
    mask = ndimage.minimum_filter(mask.view(np.uint8), size=tuple(size), mode="constant", cval=0).astype(bool)
    if not mask.any():
        region = "lungs" if kind == "vessels" else "body"
        raise NoCorrespondenceError(f"no {region} found in {volume!r}; is this a CT in HU with the {region} in view?")
    pitch = float((mask.sum() * np.prod(grid.spacing) / n) ** (1 / 3))
    if kind == "vessels":
        # Crop to the lungs to save memory: the structure tensor takes ten arrays of the size of its input.
        voxels = np.argwhere(mask)
        reach = np.ceil(10.0 / grid.spacing).astype(int)
        start = np.maximum(voxels.min(axis=0) - reach, 0)
        shape = np.minimum(voxels.max(axis=0) + reach + 1, grid.shape) - start
        part = volume.cropped(start.tolist(), shape.tolist())
        inside = mask[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
        score = np.where(inside, distinctiveness(part).data, 0)
        peak = (score == ndimage.maximum_filter(score, size=3)) & (score > 0)
        candidates = np.argwhere(peak)
        candidates = candidates[np.argsort(-score[peak], kind="stable")]
        min_distance_mm = 0.6 * pitch if min_distance_mm is None else min_distance_mm
        positions = part.grid.index_to_world(candidates)
    elif kind == "body":
        voxels = np.argwhere(mask)
        drawn = voxels[generator.integers(len(voxels), size=n if min_distance_mm is None else 20 * n)]
        positions = grid.index_to_world(drawn + generator.uniform(-0.5, 0.5, drawn.shape))
    else:
        positions = _lattice(Volume(mask, grid), n, pitch, generator)
    if min_distance_mm is not None:
        positions = positions[thin(positions, n, min_distance_mm)]
    positions = positions[:n]
    return Points(positions, tuple(f"{kind}-{i + 1}" for i in range(len(positions))))


def thin(positions: Floats, n: int, distance_mm: float) -> NDArray[np.int64]:
    """Thin out points greedily: in the given order, keep each point that is far enough from all kept before.

    Args:
        positions: (M, 3) float64, world mm, best first.
        n: Largest number of points to keep.
        distance_mm: Least distance between two kept points.

    Returns:
        (K,) int64, rows of the kept points, K <= n.
    """
    from scipy.spatial import cKDTree

    if len(positions) == 0:
        return np.zeros(0, dtype=np.int64)
    tree = cKDTree(positions)
    free = np.ones(len(positions), dtype=bool)
    taken: list[int] = []
    for row in range(len(positions)):
        if len(taken) == n:
            break
        if free[row]:
            taken.append(row)
            free[tree.query_ball_point(positions[row], distance_mm * (1 - 1e-9))] = False
    return np.asarray(taken, dtype=np.int64)


def _lattice(mask: Volume, n: int, pitch: float, generator: np.random.Generator) -> Floats:
    """Nodes of a cubic grid along the world axes, refined until n nodes lie in the mask; world RAS mm."""
    corners = mask.grid.corners
    low, high = corners.min(axis=0), corners.max(axis=0)
    offset = generator.uniform(0, 1, 3)
    inside = np.zeros((0, 3))
    for _ in range(40):
        axes = [np.arange(low[a] - (1 - offset[a]) * pitch, high[a], pitch) for a in range(3)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        index = np.rint(mask.grid.world_to_index(nodes)).astype(int)
        within = ((index >= 0) & (index < mask.grid.shape)).all(axis=1)
        nodes, index = nodes[within], index[within]
        inside = nodes[mask.data[tuple(index.T)]]
        if len(inside) >= n:
            return np.asarray(inside[np.linspace(0, len(inside) - 1, n).round().astype(int)])
        pitch *= 0.97
    return inside
