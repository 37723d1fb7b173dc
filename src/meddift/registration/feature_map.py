"""Descriptors on one lattice, made to be read at millions of places: what dense registration compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.features import Level, Pyramid
from meddift.geometry import Grid
from meddift.volume import Volume

#: Places that are read at a time: what is gathered for them fits into a processor's cache.
CHUNK = 16_384


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
        data = Volume(np.moveaxis(self.values.numpy(), -1, 0), self.grid).resampled_along_axes(grid).data
        return FeatureMap(unit(torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, 0, -1)))), grid)

    def at(self, positions: NDArray[np.float64]) -> torch.Tensor:
        """(N, C) float32 at (N, 3) world RAS mm: trilinear, clamped at the border."""
        index = torch.from_numpy(self.grid.world_to_index(positions)).float()
        result = torch.empty((len(index), self.channels))
        for rows in chunks(len(index)):
            result[rows] = read(self.values, index[rows])
        return result


def chunks(count: int) -> Iterator[slice]:
    """Row ranges of at most `CHUNK`."""
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))


def corners(values: torch.Tensor, index: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What trilinear interpolation reads: eight (N, C) tensors, z fastest, and (N, 3) weights of the upper ones.

    Args:
        values: (X, Y, Z, C), C-contiguous.
        index: (N, 3) float32 voxel indices; clamped to the lattice.
    """
    x, y, z, channels = values.shape
    last = torch.tensor([x - 1, y - 1, z - 1], dtype=torch.float32)
    clamped = torch.minimum(index.clamp(min=0), last)
    low = torch.minimum(clamped.floor(), (last - 1).clamp(min=0))
    part = clamped - low
    whole = low.long()
    step = (y * z if x > 1 else 0, z if y > 1 else 0, 1 if z > 1 else 0)
    base = (whole[:, 0] * y + whole[:, 1]) * z + whole[:, 2]
    flat = values.reshape(-1, channels)
    found = [
        flat.index_select(0, base + (a * step[0] + b * step[1] + c * step[2]))
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    ]
    return found, part


def read(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(N, C), trilinear interpolation of (X, Y, Z, C) at (N, 3) voxel indices, clamped at the border."""
    found, part = corners(values, index)
    for axis in (2, 1, 0):
        weight = part[:, axis : axis + 1]
        found = [torch.lerp(a, b, weight) for a, b in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def read_with_slope(values: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, C) values and (N, C, 3) derivatives by voxel index, of the same interpolation."""
    found, part = corners(values, index)
    wx, wy, wz = (part[:, axis : axis + 1] for axis in range(3))
    along_z = [torch.lerp(found[i], found[i + 1], wz) for i in (0, 2, 4, 6)]
    slope_z = [found[i + 1] - found[i] for i in (0, 2, 4, 6)]
    along_y = [torch.lerp(along_z[i], along_z[i + 1], wy) for i in (0, 2)]
    slope_y = [along_z[i + 1] - along_z[i] for i in (0, 2)]
    slope_z = [torch.lerp(slope_z[i], slope_z[i + 1], wy) for i in (0, 2)]
    value = torch.lerp(along_y[0], along_y[1], wx)
    slopes = (along_y[1] - along_y[0], torch.lerp(slope_y[0], slope_y[1], wx), torch.lerp(slope_z[0], slope_z[1], wx))
    return value, torch.stack(slopes, dim=-1)


def read_unit_with_slope(values: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, of descriptors brought to length 1 after interpolation."""
    value, slope = read_with_slope(values, index)
    length = value.norm(dim=1, keepdim=True).clamp_(min=1e-6)
    value = value / length
    along = torch.einsum("nc,nci->ni", value, slope)
    return value, torch.baddbmm(slope, value[:, :, None], along[:, None], alpha=-1).div_(length[..., None])


def unit(values: torch.Tensor) -> torch.Tensor:
    """Rows of length 1 along the last axis; rows of zeros stay."""
    length: torch.Tensor = values.norm(dim=-1, keepdim=True)
    return values / length.clamp_(min=1e-12)


def on_lattice(level: Level, grid: Grid, basis: torch.Tensor | None = None) -> torch.Tensor:
    """(X, Y, Z, C) float32: a level read or averaged on a parallel lattice; with a basis, its unit descriptors."""
    values = torch.from_numpy(level.features)
    if basis is not None:
        values = unit(values) @ basis
    first = Volume(np.moveaxis(values.numpy(), -1, 0), level.grid).resampled_along_axes(grid)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(first.data, 0, -1)))


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
            parts.append(unit(read(torch.from_numpy(level.features), index)))
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
