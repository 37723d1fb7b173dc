"""`SearchIndex`: the levels of one scan prepared for searching on a grid."""

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

#: Descriptors shorter than this share of the level's root mean square length count as empty: their cosine is 0.
SMALLEST_NORM = 1e-6
#: Number of descriptors from which the root mean square length is estimated, about.
_SAMPLED_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class IndexedLevel:
    """A level of a search index.

    Searches in windows whiten only what they read; whitened maps of the whole level are made only for global search.

    Attributes:
        level: The feature map.
        raw: (X, Y, Z, C) float32 or float16 on the device, before whitening; shares memory with `level` on the CPU.
        whitening: The whitening of descriptors; None = none.
        readings: How the grid interpolates the level along each axis.
        share: Weight of this level divided by the sum of all weights.
        smallest: Descriptors shorter than this count as empty.
    """

    level: Level
    raw: torch.Tensor
    whitening: Whitening | None
    readings: tuple[AxisReading, AxisReading, AxisReading]
    share: float
    smallest: float

    @once
    def features(self) -> torch.Tensor:
        """(X, Y, Z, C) on the device: whitened, float32; without whitening `raw`, of which float16 may be read."""
        if self.whitening is None:
            return self.raw
        result = torch.empty_like(self.raw, dtype=torch.float32)
        for plane in range(len(self.raw)):
            result[plane] = self.whitened(self.raw[plane])
        return result

    @once
    def inverse_norms(self) -> torch.Tensor:
        """(n0, n1, n2) float32 on the grid, `share / |f|`; 0 for empty descriptors."""
        return self.inverted(squared_norms(self.features, self.readings))

    @property
    def has_inverse_norms(self) -> bool:
        """Whether `inverse_norms` have been computed."""
        return known(self, "inverse_norms")

    def whitened(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Whiten (..., C) descriptors of this level: float32. This is linear, so it commutes with interpolation."""
        return descriptors.float() if self.whitening is None else self.whitening.whiten(descriptors)

    def inverted(self, squared: torch.Tensor) -> torch.Tensor:
        """`share / |f|` from |f|^2, which is overwritten; 0 for empty descriptors."""
        norms = squared.sqrt_()
        nothing = norms <= self.smallest
        return norms.clamp_(min=1e-30).reciprocal_().mul_(self.share).masked_fill_(nothing, 0.0)


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """A scan that can be searched on the voxels of a grid.

    Attributes:
        pyramid: The levels of the scan.
        grid: The grid whose voxels are searched; its axes are parallel to those of the levels.
        device: "cpu" or "cuda:N".
        whitening: Name of a level -> its whitening; other levels are not whitened.
        tensors: Name of a level -> (X, Y, Z, C) features that are on the device already, float32 or float16.

    Raises:
        OptionsError: on first use, if every level has weight 0.
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
        """Whether the grid is hardly finer than the finest level, so that bounds would exclude few voxels."""
        return self.grid.size <= 2 * max(level.raw[..., 0].numel() for level in self.levels)

    @once
    def has_maps(self) -> bool:
        """Whether maps of norms are made on the whole grid: not for fine grids, nor for whitened levels."""
        return self.is_coarse and all(level.whitening is None for level in self.levels)

    def prepare(self, *, norms: bool) -> None:
        """Compute in advance what several threads will need.

        Args:
            norms: Whether to compute the maps of norms too, if the index has them.
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
        rows = rows.float() if whitening is None else whitening.whiten(rows)
        length = float(rows.square().sum(dim=1, dtype=torch.float64).mean().sqrt())
        return IndexedLevel(level, raw, whitening, read_axes(self.grid, level.grid), share, SMALLEST_NORM * length)

    def describe(self, positions: NDArray[np.float64]) -> list[torch.Tensor]:
        """Unit descriptors of this scan at world points.

        Args:
            positions: (N, 3) float64, world RAS mm, finite; clamped at the border of a level.

        Returns:
            For each of `levels` an (N, C) float32 tensor on the device; rows have length 1, or 0 for empty
            descriptors.
        """
        described = []
        for indexed in self.levels:
            value = indexed.whitened(read_descriptors(indexed.raw, indexed.level.grid, positions))
            norm = value.norm(dim=1, keepdim=True)
            described.append(torch.where(norm > 0, value / norm.clamp(min=1e-30), value))
        return described


def read_descriptors(features: torch.Tensor, grid: Grid, positions: NDArray[np.float64]) -> torch.Tensor:
    """Interpolate features trilinearly, clamped at the border.

    Args:
        features: (X, Y, Z, C) float32 or float16 tensor.
        grid: Its grid.
        positions: (N, 3) float64, world RAS mm.

    Returns:
        (N, C) float32 tensor, not normalised.
    """
    index = torch.from_numpy(grid.world_to_index(positions)).to(features.device)
    return sample(features, index)


def unravel(flat: torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Convert flat indices to three indices, as `torch.unravel_index`, which would import SymPy first."""
    plane = shape[1] * shape[2]
    return flat // plane, flat % plane // shape[2], flat % shape[2]


def search_grid(pyramid: Pyramid, *, kind: str) -> Grid:
    """The grid that is searched, without the padding of the network.

    Args:
        pyramid: The levels of the scan.
        kind: "image" for the voxels of the scan in RAS order, "network" for those of the network's input, or the name
            of a level for its own voxels.

    Raises:
        OptionsError: if `kind` is none of these.
    """
    if kind == "image":
        return pyramid.image_grid.reoriented("RAS")[0]
    grid = pyramid.network_grid if kind == "network" else pyramid.level(kind).grid
    return grid.cropped(*box_within(grid, pyramid.image_grid))
