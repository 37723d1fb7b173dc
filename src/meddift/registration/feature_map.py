"""Descriptors on a grid as tensors, for dense registration."""

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
        values: (X, Y, Z, C) float32 or float16, C-contiguous.
        grid: The grid, in world RAS mm.
        whitening: Whitening that is applied after interpolation or averaging (with which it commutes), which saves a
            whitened copy of a fine level; None = none.
    """

    values: torch.Tensor
    grid: Grid
    whitening: Whitening | None = None

    @property
    def channels(self) -> int:
        """Length of a descriptor."""
        return int(self.values.shape[3])

    def resampled(self, grid: Grid) -> FeatureMap:
        """The descriptors averaged to a coarser, parallel grid and normalised to length 1."""
        return FeatureMap(unit(on_grid(self, grid)), grid)

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N, C) float32, whitened descriptors at (N, 3) world RAS mm: trilinear, clamped at the border."""
        return self.whitened(sample(self.values, self.grid.world_to_index(positions)))

    def whitened(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(..., C) float32, descriptors that were read from `values`, whitened if there is a whitening."""
        return descriptors.float() if self.whitening is None else self.whitening.whiten(descriptors)


@dataclass(frozen=True, eq=False)
class DescribedScan:
    """The descriptors of a scan on the device, for registration.

    Attributes:
        levels: Name of a level -> its descriptors, whitened jointly with the other scan; coarse to fine.
        image_grid: The scan's own grid.
        average: Gives a level averaged to a parallel grid before whitening, cached for other pairs; None = it is
            computed.
    """

    levels: Mapping[str, FeatureMap]
    image_grid: Grid
    average: Callable[[str, Grid], torch.Tensor] | None = None

    @property
    def device(self) -> str:
        """Device of the descriptors."""
        return str(next(iter(self.levels.values())).values.device)

    def described(self, name: str, grid: Grid) -> torch.Tensor:
        """(X, Y, Z, C) float32, a level averaged to a parallel grid, whitened and normalised to length 1."""
        level = self.levels[name]
        if self.average is None:
            return unit(on_grid(level, grid))
        return _by_planes(self.average(name, grid), lambda part: unit(level.whitened(part)), level.channels)


def on_grid(level: FeatureMap, grid: Grid, basis: torch.Tensor | None = None) -> torch.Tensor:
    """Resample a level to a parallel grid, averaged where coarser.

    Args:
        level: The level.
        grid: A parallel grid.
        basis: (C, K) float32; the normalised descriptors are projected on it first. None = no projection.

    Returns:
        (X, Y, Z, C) float32, whitened; (X, Y, Z, K) with a basis.
    """
    if basis is not None:
        turned = _by_planes(level.values, lambda part: unit(level.whitened(part)) @ basis, basis.shape[1])
        projected: torch.Tensor = resample_axes(turned, level.grid, grid)
        return projected
    return level.whitened(resample_axes(level.values, level.grid, grid))


def _by_planes(values: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor], channels: int) -> torch.Tensor:
    """(X, Y, Z, `channels`) float32, some work on each descriptor: plane by plane on the CPU, to stay in its cache."""
    if values.device.type != "cpu":
        return work(values)
    result = values.new_empty((*values.shape[:3], channels), dtype=torch.float32)
    for plane, out in zip(values, result, strict=True):
        out.copy_(work(plane))
    return result


def common_basis(
    scans: Sequence[Mapping[str, FeatureMap]], names: Sequence[str], places: Sequence[torch.Tensor], channels: int
) -> dict[str, torch.Tensor]:
    """Principal directions that preserve most of the dot products between concatenated levels of both scans.

    Args:
        scans: The levels of both scans.
        names: Names of the levels that are concatenated, each normalised to length 1.
        places: For each scan (N, 3) float64 positions from which the directions are computed, world RAS mm.
        channels: Number of directions.

    Returns:
        Name of each level -> (C, channels) float32.
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
    """One level of the fixed and the moving scan as unit descriptors on coarser, parallel grids."""
    fixed, moving = side_by_side(
        zip(scans, grids, strict=True),
        lambda each: FeatureMap(each[0].described(name, each[1]), each[1]),
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
    """Semantic levels, reduced to few channels, concatenated with a fine level: unit descriptors on coarse grids.

    Args:
        scans: The levels of the fixed and the moving scan.
        fine: The fine level of both scans on the wanted grids, as `fine_maps` makes it.
        semantic: Names of the semantic levels.
        fine_share: Share of the fine level in the dot product, 0 to 1.
        channels: Number of channels to which the semantic levels are reduced.
        seed: Seed of the random positions from which the reduction is computed.

    Returns:
        The descriptors of the fixed and the moving scan, of length 1.
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
