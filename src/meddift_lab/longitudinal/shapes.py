"""Shapes of simulated lesions: irregular balls with soft edges, of the same form at every size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.volume import Volume

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lump:
    """One connected part of a lesion at one time point.

    Attributes:
        center: (3,) centre, world RAS mm.
        radius_mm: Mean radius, mm.
        shape_seed: Seed of the form; equal seeds give the same form at every size.
    """

    center: tuple[float, float, float]
    radius_mm: float
    shape_seed: int

    def depth(self, positions: Floats) -> Floats:
        """Depth of points below the surface, measured along the radius, mm; negative outside.

        Args:
            positions: (..., 3) world RAS mm.

        Returns:
            (...) float64, mm.
        """
        generator = np.random.default_rng([self.shape_seed, 7])
        axes = generator.uniform(0.82, 1.18, 3)
        waves, phases = generator.normal(size=(5, 3)) * 2.2, generator.uniform(0, 2 * np.pi, 5)
        away = positions - np.asarray(self.center)
        distance = np.linalg.norm(away, axis=-1)
        direction = away / np.maximum(distance, 1e-9)[..., None]
        bumps = 1 + 0.06 * np.cos(direction @ waves.T + phases).sum(axis=-1)
        stretch = np.maximum(np.linalg.norm(direction / axes, axis=-1), 0.5)  # the direction is 0 at the centre
        reach = self.radius_mm * bumps / stretch
        return np.asarray(reach - distance)


def box_around(grid: Grid, lump: Lump) -> tuple[slice, slice, slice] | None:
    """Slices of the voxels that a lump can cover; None if it lies outside the grid."""
    corners = np.asarray(lump.center) + 1.8 * lump.radius_mm * np.array(
        [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    )
    index = grid.world_to_index(corners)
    low = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, grid.shape)
    if (low >= high).any():
        return None
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _depths(grid: Grid, lump: Lump) -> tuple[tuple[slice, slice, slice], Floats] | None:
    box = box_around(grid, lump)
    if box is None:
        return None
    part = grid.cropped([s.start for s in box], [s.stop - s.start for s in box])
    return box, lump.depth(part.voxel_centers())


def draw(volume: Volume, lumps: list[tuple[Lump, float]]) -> Volume:
    """Draw lesions into a noise-free scan.

    Args:
        volume: (X, Y, Z), CT in HU.
        lumps: Parts of lesions, each with its HU.

    Returns:
        Volume of float32 on the same grid; edges are as wide as a voxel.
    """
    data = volume.data.astype(np.float32)
    soft = float(volume.grid.spacing.mean())
    for lump, hounsfield in lumps:
        found = _depths(volume.grid, lump)
        if found is not None:
            box, depth = found
            share = np.clip(depth / soft + 0.5, 0.0, 1.0).astype(np.float32)
            data[box] = data[box] * (1 - share) + np.float32(hounsfield) * share
    return Volume(data, volume.grid)


def label_map(grid: Grid, lumps: list[tuple[Lump, int]]) -> Volume:
    """Label map of lesions.

    Args:
        grid: Grid of the map.
        lumps: Parts of lesions, each with its label.

    Returns:
        Volume of int16: the label where the centre of a voxel lies inside a part, else 0.
    """
    data = np.zeros(grid.shape, dtype=np.int16)
    for lump, number in lumps:
        found = _depths(grid, lump)
        if found is not None:
            box, depth = found
            data[box][depth > 0] = number
    return Volume(data, grid)
