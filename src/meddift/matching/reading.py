"""Reading descriptors between voxels, with their slopes: what least squares on descriptors needs."""

from __future__ import annotations

from collections.abc import Iterator

import torch

#: Places that are read at a time: what is gathered for them fits into a processor's cache.
CHUNK = 16_384


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
