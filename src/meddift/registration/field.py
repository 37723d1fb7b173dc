"""Displacement fields as tensors on the device of a registration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike

from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform, sample
from meddift.geometry.sampling import constant
from meddift.matching.prior import MatchedPrior

#: Planes whose derivatives are computed at a time on the CPU.
SLAB = 16


@dataclass(frozen=True, eq=False)
class TensorField:
    """Displacements on a grid, `T(x) = x + d(x)`: a `DisplacementField` as a tensor.

    Attributes:
        values: (X, Y, Z, 3) float32, displacements in world RAS mm, C-contiguous, on the device.
        grid: Grid in the fixed world.
    """

    values: torch.Tensor
    grid: Grid

    @classmethod
    def sampled(cls, transform: Transform | TensorField, grid: Grid, device: str) -> TensorField:
        """A transform sampled at the voxel centres of a grid."""
        if isinstance(transform, DisplacementField):
            transform = cls.of(transform, device)
        if isinstance(transform, TensorField) and transform.grid == grid:
            return transform
        world = grid.voxel_centers_on(device)
        return cls.moving(world, carried(transform, world), grid)

    @classmethod
    def of(cls, transform: DisplacementField, device: str, *, dtype: DTypeLike = np.float32) -> TensorField:
        """A copy of a field on a device."""
        values = np.array(np.moveaxis(transform.displacement, 0, -1), dtype=dtype, order="C")
        return cls(torch.from_numpy(values).to(device), transform.grid)

    @classmethod
    def moving(cls, world: torch.Tensor, moved: torch.Tensor, grid: Grid) -> TensorField:
        """The field that maps the voxel centres of a grid, (N, 3) world RAS mm, to given ones, (N, 3) likewise."""
        return cls((moved - world).float().reshape(*grid.shape, 3), grid)

    def apply(self, positions: torch.Tensor) -> torch.Tensor:
        """Map (N, 3) float64 world RAS mm on the fixed scan to the moving scan."""
        return positions + sample(self.values, self.grid.world_to_index(positions))

    def on(self, grid: Grid) -> TensorField:
        """The same map resampled to another grid."""
        return TensorField.sampled(self, grid, str(self.values.device))

    def then(self, affine: AffineTransform) -> TensorField:
        """The composition of this map and then an affine, on the same grid."""
        world = self.grid.voxel_centers_on(self.values.device)
        return TensorField.moving(world, affine.apply(self.apply(world)), self.grid)

    def determinant(self) -> torch.Tensor:
        """(X, Y, Z) float64, the Jacobian determinant: central differences, one-sided at the border."""
        result = torch.empty(self.grid.shape, dtype=torch.float64, device=self.values.device)
        planes = self.grid.shape[0]
        size = SLAB if self.values.device.type == "cpu" else planes
        inverse = constant(result, self.grid.inverse[:3, :3])
        for start in range(0, planes, size):
            stop = min(start + size, planes)
            # One more plane on each side, where there is one, for central differences at the faces of the slab.
            low, high = max(0, start - 1), min(planes, stop + 1)
            part = self.values[low:high].double()
            slopes = [
                torch.gradient(part, dim=a)[0] if part.shape[a] > 1 else torch.zeros_like(part) for a in range(3)
            ]
            matrix = torch.stack([slope[start - low : stop - low] for slope in slopes], dim=-1) @ inverse
            matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
            x, y, z = matrix.unbind(dim=-2)
            result[start:stop] = (x * torch.linalg.cross(y, z)).sum(dim=-1)
        return result

    def as_field(self) -> DisplacementField:
        """The field in main memory."""
        return DisplacementField(np.ascontiguousarray(self.values.movedim(-1, 0).cpu().numpy()), self.grid)


def carried(transform: Transform | TensorField, positions: torch.Tensor) -> torch.Tensor:
    """Map (N, 3) float64 positions, world RAS mm, on their device; transforms without tensors use main memory."""
    if isinstance(transform, TensorField | AffineTransform | MatchedPrior):
        return transform.apply(positions)
    if isinstance(transform, DisplacementField):
        return TensorField.of(transform, str(positions.device)).apply(positions)
    moved = transform.apply(positions.cpu().numpy())
    return torch.from_numpy(moved).to(positions.device)
