"""Descriptors on one lattice, made to be read at millions of places: what dense registration compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.features import Level, Pyramid
from meddift.geometry import Grid, resample_axes, sample
from meddift.matching.descriptors import unit


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Descriptors at the voxels of a lattice.

    Attributes:
        values: (X, Y, Z, C) float32, C-contiguous.
        grid: The lattice, world RAS mm.
    """

    values: torch.Tensor
    grid: Grid

    @property
    def channels(self) -> int:
        """Length of a descriptor."""
        return int(self.values.shape[3])

    def resampled(self, grid: Grid) -> FeatureMap:
        """The same descriptors on a coarser, parallel lattice: averaged, of length 1."""
        return FeatureMap(unit(resample_axes(self.values, self.grid, grid)), grid)

    def at(self, positions: NDArray[np.float64]) -> torch.Tensor:
        """(N, C) float32 at (N, 3) world RAS mm: trilinear, clamped at the border."""
        return sample(self.values, torch.from_numpy(self.grid.world_to_index(positions)).float())


def on_lattice(level: Level, grid: Grid, basis: torch.Tensor | None = None) -> torch.Tensor:
    """(X, Y, Z, C) float32: a level read or averaged on a parallel lattice; with a basis, its unit descriptors."""
    values = torch.from_numpy(level.features)
    if basis is not None:
        values = unit(values) @ basis
    resampled: torch.Tensor = resample_axes(values, level.grid, grid)
    return resampled


def common_basis(
    pyramids: Sequence[Pyramid], names: Sequence[str], places: Sequence[NDArray[np.float64]], channels: int
) -> dict[str, torch.Tensor]:
    """Directions that keep most of the dot products between concatenated levels of both scans.

    Args:
        pyramids: Of both scans.
        names: Levels that are concatenated, each of length 1.
        places: For each pyramid (N, 3) world RAS mm to learn from.
        channels: How many directions.

    Returns:
        For each level (C, channels) float32.
    """
    rows = []
    for pyramid, positions in zip(pyramids, places, strict=True):
        parts = []
        for name in names:
            level = pyramid.level(name)
            index = torch.from_numpy(level.grid.world_to_index(positions)).float()
            parts.append(unit(sample(torch.from_numpy(level.features), index)))
        rows.append(torch.cat(parts, dim=1))
    stacked = torch.cat(rows).double()
    _, vectors = torch.linalg.eigh(stacked.T @ stacked)
    basis = vectors[:, -min(channels, vectors.shape[1]) :].float()
    sizes = [pyramids[0].level(name).channels for name in names]
    return dict(zip(names, (part.contiguous() for part in torch.split(basis, sizes)), strict=True))


def fused_maps(
    pyramids: tuple[Pyramid, Pyramid],
    grids: tuple[Grid, Grid],
    *,
    semantic: Sequence[str],
    fine: str | None,
    fine_share: float = 0.5,
    channels: int = 32,
    seed: int = 0,
) -> tuple[FeatureMap, FeatureMap]:
    """Semantic levels, reduced to what both scans need, beside a fine one: unit descriptors on coarse lattices.

    Args:
        pyramids: Of the fixed and the moving scan.
        grids: Lattices parallel to the levels of each.
        semantic: Names of the levels that say where in the body a place is.
        fine: Name of the level that tells neighbours apart; None = there is none.
        fine_share: Its share of the dot product.
        channels: How many directions are kept of the semantic levels.
        seed: Of the places from which these are learnt.
    """
    generator = np.random.default_rng(seed)
    places = [grid.index_to_world(generator.uniform(0, 1, (6000, 3)) * (np.asarray(grid.shape) - 1)) for grid in grids]
    basis = common_basis(pyramids, semantic, places, channels) if semantic else {}
    share = fine_share if semantic else 1.0
    maps = []
    for pyramid, grid in zip(pyramids, grids, strict=True):
        parts = []
        if semantic:
            total = on_lattice(pyramid.level(semantic[0]), grid, basis[semantic[0]])
            for name in semantic[1:]:
                total += on_lattice(pyramid.level(name), grid, basis[name])
            parts.append(unit(total) * ((1 - share) ** 0.5 if fine else 1.0))
        if fine:
            parts.append(unit(on_lattice(pyramid.level(fine), grid)) * share**0.5)
        maps.append(FeatureMap(torch.cat(parts, dim=-1).contiguous(), grid))
    return maps[0], maps[1]
