"""Descriptors on one grid, made to be read at millions of places: what dense registration compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from meddift.geometry import Grid, resample_axes, sample
from meddift.matching.descriptors import unit


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Descriptors at the voxels of a grid.

    Attributes:
        values: (X, Y, Z, C) float32, C-contiguous.
        grid: The grid, world RAS mm.
    """

    values: torch.Tensor
    grid: Grid

    @property
    def channels(self) -> int:
        """Length of a descriptor."""
        return int(self.values.shape[3])

    def resampled(self, grid: Grid) -> FeatureMap:
        """The same descriptors on a coarser, parallel grid: averaged, of length 1."""
        return FeatureMap(unit(resample_axes(self.values, self.grid, grid)), grid)

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N, C) float32 at (N, 3) world RAS mm: trilinear, clamped at the border."""
        return sample(self.values, self.grid.world_to_index(positions))


@dataclass(frozen=True, eq=False)
class DescribedScan:
    """What registration has to know of a scan, on the device on which it computes.

    Attributes:
        levels: Name -> descriptors, comparable with those of the other scan; coarse to fine.
        image_grid: The scan's own grid.
    """

    levels: Mapping[str, FeatureMap]
    image_grid: Grid

    @property
    def device(self) -> str:
        """Where its descriptors are."""
        return str(next(iter(self.levels.values())).values.device)


def on_lattice(level: FeatureMap, grid: Grid, basis: torch.Tensor | None = None) -> torch.Tensor:
    """(X, Y, Z, C) float32: a level read or averaged on a parallel grid; with a basis, its unit descriptors."""
    values = level.values if basis is None else unit(level.values) @ basis
    resampled: torch.Tensor = resample_axes(values, level.grid, grid)
    return resampled


def common_basis(
    scans: Sequence[Mapping[str, FeatureMap]], names: Sequence[str], places: Sequence[torch.Tensor], channels: int
) -> dict[str, torch.Tensor]:
    """Directions that keep most of the dot products between concatenated levels of both scans.

    Args:
        scans: Levels of both.
        names: Levels that are concatenated, each of length 1.
        places: For each scan (N, 3) world RAS mm to learn from.
        channels: How many directions.

    Returns:
        For each level (C, channels) float32.
    """
    rows = []
    for levels, positions in zip(scans, places, strict=True):
        rows.append(torch.cat([unit(levels[name].at(positions)) for name in names], dim=1))
    stacked = torch.cat(rows).double()
    _, vectors = torch.linalg.eigh(stacked.T @ stacked)
    basis = vectors[:, -min(channels, vectors.shape[1]) :].float()
    sizes = [scans[0][name].channels for name in names]
    return dict(zip(names, (part.contiguous() for part in torch.split(basis, sizes)), strict=True))


def fine_maps(
    scans: tuple[Mapping[str, FeatureMap], Mapping[str, FeatureMap]], grids: tuple[Grid, Grid], name: str
) -> tuple[FeatureMap, FeatureMap]:
    """One level of the fixed and of the moving scan: unit descriptors on coarse grids parallel to it."""
    fixed, moving = (
        FeatureMap(unit(on_lattice(levels[name], grid)), grid) for levels, grid in zip(scans, grids, strict=True)
    )
    return fixed, moving


def fused_maps(
    scans: tuple[Mapping[str, FeatureMap], Mapping[str, FeatureMap]],
    fine: tuple[FeatureMap, FeatureMap],
    semantic: Sequence[str],
    *,
    fine_share: float = 0.5,
    channels: int = 32,
    seed: int = 0,
) -> tuple[FeatureMap, FeatureMap]:
    """Semantic levels, reduced to what both scans need, beside a fine one: unit descriptors on coarse grids.

    Args:
        scans: Levels of the fixed and of the moving scan.
        fine: The level of both that tells neighbours apart, as `fine_maps` makes it, on the grids that are wanted.
        semantic: Names of the levels that say where in the body a place is.
        fine_share: Share of the fine level in the dot product.
        channels: How many directions are kept of the semantic levels.
        seed: Of the places from which these are learnt.
    """
    generator = np.random.default_rng(seed)
    places = [
        torch.from_numpy(
            each.grid.index_to_world(generator.uniform(0, 1, (6000, 3)) * (np.asarray(each.grid.shape) - 1))
        )
        for each in fine
    ]
    basis = common_basis(scans, semantic, [place.to(fine[0].values.device) for place in places], channels)
    maps = []
    for levels, beside in zip(scans, fine, strict=True):
        total = on_lattice(levels[semantic[0]], beside.grid, basis[semantic[0]])
        for name in semantic[1:]:
            total += on_lattice(levels[name], beside.grid, basis[name])
        parts = [unit(total) * (1 - fine_share) ** 0.5, beside.values * fine_share**0.5]
        maps.append(FeatureMap(torch.cat(parts, dim=-1), beside.grid))
    return maps[0], maps[1]
