"""Displacements on the device on which scans are registered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform, sample


@dataclass(frozen=True, eq=False)
class TensorField:
    """Displacements on a grid, `T(x) = x + d(x)`: what `DisplacementField` is, as a tensor.

    Attributes:
        values: (X, Y, Z, 3) float32, world RAS mm, C-contiguous, on the device.
        grid: Grid in the fixed world.
    """

    values: torch.Tensor
    grid: Grid

    @classmethod
    def sampled(cls, transform: Transform | TensorField, grid: Grid, device: str) -> TensorField:
        """A transform at the voxels of a grid."""
        world = grid.voxel_centers_on(device)
        return cls.moving(world, carried(transform, world), grid)

    @classmethod
    def moving(cls, world: torch.Tensor, moved: torch.Tensor, grid: Grid) -> TensorField:
        """The field that takes the voxel centres of a grid, (N, 3) world RAS mm, to other places, (N, 3) likewise."""
        return cls((moved - world).float().reshape(*grid.shape, 3), grid)

    def apply(self, positions: torch.Tensor) -> torch.Tensor:
        """Map (N, 3) float64 world RAS mm on the fixed scan to the moving scan."""
        return positions + sample(self.values, self.grid.world_to_index(positions))

    def on(self, grid: Grid) -> TensorField:
        """The same map on another grid."""
        return TensorField.sampled(self, grid, str(self.values.device))

    def then(self, affine: AffineTransform) -> TensorField:
        """This map and then an affine, on the same grid."""
        world = self.grid.voxel_centers_on(self.values.device)
        return TensorField.moving(world, affine.apply(self.apply(world)), self.grid)

    def as_field(self) -> DisplacementField:
        """The same in main memory."""
        return DisplacementField(np.ascontiguousarray(self.values.movedim(-1, 0).cpu().numpy()), self.grid)


def carried(transform: Transform | TensorField, positions: torch.Tensor) -> torch.Tensor:
    """Map (N, 3) float64 positions on a device; transforms of others, such as a prior, compute in main memory."""
    if isinstance(transform, TensorField | AffineTransform):
        return transform.apply(positions)
    moved = transform.apply(positions.cpu().numpy())
    return torch.from_numpy(moved).to(positions.device)
