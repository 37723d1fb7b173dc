"""`SearchIndex`: one scan made ready to be searched. Built once for a pyramid and a grid, asked many times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.errors import OptionsError
from meddift.features import Level, Pyramid, Whitening
from meddift.geometry import AxisReading, Grid, box_within, read_axes, sample
from meddift.matching.norms import squared_norms
from meddift.system.once import known, once

#: A descriptor shorter than this share of the level's root mean square length says nothing; its cosine counts as 0.
SMALLEST_NORM = 1e-6
#: The root mean square length is that of every n-th descriptor, so that about this many count.
_SAMPLED_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class IndexedLevel:
    """A level as the search reads it.

    What windows touch is whitened when it is touched; whole maps are made only for who looks everywhere.

    Attributes:
        level: The feature map.
        raw: (X, Y, Z, C) float32 on the device, before whitening; shares memory with `level` on CPU.
        whitening: The map that whitens descriptors, or None where they are compared as they are.
        readings: How the grid reads each axis.
        share: Weight of this level divided by the sum of all weights.
        smallest: Descriptors shorter than this say nothing.
    """

    level: Level
    raw: torch.Tensor
    whitening: Whitening | None
    readings: tuple[AxisReading, AxisReading, AxisReading]
    share: float
    smallest: float

    @once
    def features(self) -> torch.Tensor:
        """(X, Y, Z, C) float32 on the device, whitened."""
        if self.whitening is None:
            return self.raw
        result = torch.empty_like(self.raw)
        for plane in range(len(self.raw)):
            result[plane] = self.whitened(self.raw[plane])
        return result

    @once
    def inverse_norms(self) -> torch.Tensor:
        """(n0, n1, n2) float32 on the grid, `share / |f|`; 0 where there is nothing to compare."""
        return self.inverted(squared_norms(self.features, self.readings))

    @property
    def has_inverse_norms(self) -> bool:
        """Whether `inverse_norms` were computed before."""
        return known(self, "inverse_norms")

    def whitened(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Map (..., C) descriptors of this level; the map is linear, so interpolation may come before or after."""
        return descriptors if self.whitening is None else self.whitening.whiten(descriptors)

    def inverted(self, squared: torch.Tensor) -> torch.Tensor:
        """`share / |f|` from |f|^2, which is used up; 0 where there is nothing to compare."""
        norms = squared.sqrt_()
        nothing = norms <= self.smallest
        return norms.clamp_(min=1e-30).reciprocal_().mul_(self.share).masked_fill_(nothing, 0.0)


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """A scan that can be searched on the voxels of a grid.

    Attributes:
        pyramid: The scan's levels.
        grid: Where answers lie before they are refined; axes parallel to those of the levels.
        device: "cpu" or "cuda:N".
        whitening: Name of a level -> the map that whitens it; levels that are not named are compared as they are.
        tensors: Name of a level -> its features on the device, where they are there already.
    """

    pyramid: Pyramid
    grid: Grid
    device: str = "cpu"
    whitening: Mapping[str, Whitening] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @once
    def levels(self) -> tuple[IndexedLevel, ...]:
        """The levels with weight above 0."""
        counted = [level for level in self.pyramid.levels if level.weight > 0]
        total = sum(level.weight for level in counted)
        if not counted:
            raise OptionsError("every level has weight 0: there is nothing to compare")
        return tuple(self._index(level, level.weight / total) for level in counted)

    @once
    def is_coarse(self) -> bool:
        """Whether the grid is hardly finer than the finest level: then there is little to pass over in a search."""
        return self.grid.size <= 2 * max(level.raw[..., 0].numel() for level in self.levels)

    @once
    def has_maps(self) -> bool:
        """Whether maps of the whole grid are made: not where it is fine, nor of levels whitened on the way."""
        return self.is_coarse and all(level.whitening is None for level in self.levels)

    def prepare(self, *, norms: bool) -> None:
        """Compute what several threads would otherwise compute at the same time.

        Args:
            norms: Whether to make the maps of lengths as well, where the grid is so coarse that there are any.
        """
        for level in self.levels:
            level.whitened(level.raw[:1, 0, 0])
            if norms and self.has_maps:
                _ = level.inverse_norms

    def _index(self, level: Level, share: float) -> IndexedLevel:
        whitening = self.whitening.get(level.name)
        raw = self.tensors.get(level.name)
        raw = level.tensor.to(self.device) if raw is None else raw
        rows = raw.flatten(0, 2)
        rows = rows[:: max(1, len(rows) // _SAMPLED_ROWS) | 1]
        rows = rows if whitening is None else whitening.whiten(rows)
        length = float(rows.square().sum(dim=1, dtype=torch.float64).mean().sqrt())
        return IndexedLevel(level, raw, whitening, read_axes(self.grid, level.grid), share, SMALLEST_NORM * length)

    def describe(self, positions: NDArray[np.float64]) -> list[torch.Tensor]:
        """Unit descriptors of this scan at world points.

        Args:
            positions: (N, 3) float64, world RAS mm, finite; beyond a level its border is read.

        Returns:
            For each of `levels` an (N, C) float32 tensor on the device; rows have length 1, or 0 where a
            descriptor is empty.
        """
        described = []
        for indexed in self.levels:
            value = indexed.whitened(read_descriptors(indexed.raw, indexed.level.grid, positions))
            norm = value.norm(dim=1, keepdim=True)
            described.append(torch.where(norm > 0, value / norm.clamp(min=1e-30), value))
        return described


def read_descriptors(features: torch.Tensor, grid: Grid, positions: NDArray[np.float64]) -> torch.Tensor:
    """(N, C), a level's (X, Y, Z, C) features at (N, 3) world RAS mm: clamped at the border, not normalised."""
    index = torch.from_numpy(grid.world_to_index(positions)).to(features.device)
    return sample(features, index)


def unravel(flat: torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Flat to three indices; `torch.unravel_index` would import a symbolic algebra system (1 s) first."""
    plane = shape[1] * shape[2]
    return flat // plane, flat % plane // shape[2], flat % shape[2]


def search_grid(pyramid: Pyramid, *, kind: str) -> Grid:
    """Where to look, without the padding of the network.

    Args:
        pyramid: The scan.
        kind: "image" for the scan's voxels in RAS order, "network" for the voxels of the network's input, or the
            name of a level for that level's own voxels.

    Raises:
        OptionsError: if `kind` is none of these.
    """
    if kind == "image":
        return pyramid.image_grid.reoriented("RAS")[0]
    grid = pyramid.network_grid if kind == "network" else pyramid.level(kind).grid
    return grid.cropped(*box_within(grid, pyramid.image_grid))
