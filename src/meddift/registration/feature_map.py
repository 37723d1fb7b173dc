"""Descriptors on one grid, made to be read at millions of places: what dense registration compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from meddift.features.whitening import Whitening
from meddift.geometry import Grid, resample_axes, sample
from meddift.matching.descriptors import unit
from meddift.system.threads import side_by_side


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Descriptors at the voxels of a grid.

    Attributes:
        values: (X, Y, Z, C) float32, C-contiguous.
        grid: The grid, world RAS mm.
        whitening: What descriptors go through after they were read or averaged, which is the same as before since it
            is linear, and spares a copy of a fine level; None = they are compared as they are.
    """

    values: torch.Tensor
    grid: Grid
    whitening: Whitening | None = None

    @property
    def channels(self) -> int:
        """Length of a descriptor."""
        return int(self.values.shape[3])

    def resampled(self, grid: Grid) -> FeatureMap:
        """The same descriptors on a coarser, parallel grid: averaged, of length 1."""
        return FeatureMap(unit(on_grid(self, grid)), grid)

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N, C) float32 at (N, 3) world RAS mm: trilinear, clamped at the border."""
        return self.whitened(sample(self.values, self.grid.world_to_index(positions)))

    def whitened(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(..., C) float32, what was read from `values`, as it is compared."""
        return descriptors if self.whitening is None else self.whitening.whiten(descriptors)


@dataclass(frozen=True, eq=False)
class DescribedScan:
    """What registration has to know of a scan, on the device on which it computes.

    Attributes:
        levels: Name -> descriptors, comparable with those of the other scan; coarse to fine.
        image_grid: The scan's own grid.
        average: Gives a level averaged on a parallel grid, before whitening, where that is kept for other pairs;
            None = it is computed.
    """

    levels: Mapping[str, FeatureMap]
    image_grid: Grid
    average: Callable[[str, Grid], torch.Tensor] | None = None

    @property
    def device(self) -> str:
        """Where its descriptors are."""
        return str(next(iter(self.levels.values())).values.device)

    def averaged(self, name: str, grid: Grid) -> torch.Tensor:
        """(X, Y, Z, C) float32: a level read or averaged on a parallel grid."""
        level = self.levels[name]
        return on_grid(level, grid) if self.average is None else level.whitened(self.average(name, grid))


def on_grid(level: FeatureMap, grid: Grid, basis: torch.Tensor | None = None) -> torch.Tensor:
    """(X, Y, Z, C) float32: a level read or averaged on a parallel grid; with a basis, its unit descriptors."""
    if basis is not None:
        projected: torch.Tensor = resample_axes(unit(level.whitened(level.values)) @ basis, level.grid, grid)
        return projected
    return level.whitened(resample_axes(level.values, level.grid, grid))


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
    scans: tuple[DescribedScan, DescribedScan], grids: tuple[Grid, Grid], name: str
) -> tuple[FeatureMap, FeatureMap]:
    """One level of the fixed and of the moving scan: unit descriptors on coarse grids parallel to it."""
    fixed, moving = side_by_side(
        zip(scans, grids, strict=True),
        lambda each: FeatureMap(unit(each[0].averaged(name, each[1])), each[1]),
        device=scans[0].device,
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

    def fused(each: tuple[Mapping[str, FeatureMap], FeatureMap]) -> FeatureMap:
        levels, beside = each
        total = on_grid(levels[semantic[0]], beside.grid, basis[semantic[0]])
        for name in semantic[1:]:
            total += on_grid(levels[name], beside.grid, basis[name])
        parts = [unit(total) * (1 - fine_share) ** 0.5, beside.values * fine_share**0.5]
        return FeatureMap(torch.cat(parts, dim=-1), beside.grid)

    one, other = side_by_side(zip(scans, fine, strict=True), fused, device=str(fine[0].values.device))
    return one, other
