"""Stationary velocity fields: exponential by scaling and squaring, and logarithm.

V. Arsigny, O. Commowick, X. Pennec, N. Ayache: A log-Euclidean framework for statistics on diffeomorphisms (2006). The
logarithm is computed by `v <- v + (phi o exp(-v) - id)`: M. Bossa, M. Hernandez, S. Olmos (2007), to first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from meddift.geometry import Grid, Transform, sample
from meddift.registration.field import TensorField, carried

#: Velocities are halved until the largest is at most this, voxels.
LARGEST_STEP = 0.25
#: Iterations of the logarithm.
ROUNDS = 6


@dataclass(frozen=True, eq=False)
class VelocityField:
    """A stationary velocity field on a grid, whose exponential is an invertible map.

    Attributes:
        velocity: (X, Y, Z, 3) float32, voxels of `grid`.
        grid: The grid, world RAS mm.
    """

    velocity: torch.Tensor
    grid: Grid

    @classmethod
    def of(cls, parts: Sequence[Transform | TensorField], grid: Grid, device: str = "cpu") -> VelocityField:
        """The logarithm of a composition of transforms that is near the identity, approximately.

        Args:
            parts: The transforms, in the order in which they are applied.
            grid: Grid of the velocity field.
            device: Device of the computation.
        """
        moved = grid.voxel_centers_on(device)
        for part in parts:
            moved = carried(part, moved)
        wanted = grid.world_to_index(moved).float().reshape(*grid.shape, 3) - _indices(grid.shape, device)
        velocity = wanted.clone()
        for _ in range(ROUNDS):
            back = _exponential(-velocity)
            velocity += _composed(back, wanted)
        return cls(velocity, grid)

    def flow(self, time: float = 1.0) -> TensorField:
        """The exponential of `time` times the field; -1 gives the inverse."""
        moved = _exponential(self.velocity * time).double()
        return TensorField(self.grid.vectors_to_world(moved).float(), self.grid)

    def averaged(self, other: VelocityField) -> VelocityField:
        """The mean of two fields on the same grid."""
        return VelocityField((self.velocity + other.velocity) / 2, self.grid)


def _indices(shape: Sequence[int], device: str | torch.device) -> torch.Tensor:
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _composed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z, 3), displacement of `second o first`; all in voxels of the same grid."""
    here = _indices(first.shape[:3], first.device) + first
    return first + sample(second, here.reshape(-1, 3)).reshape(first.shape)


def _exponential(velocity: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z, 3), displacement of the exponential, by scaling and squaring."""
    longest = float(velocity.norm(dim=-1).max()) if velocity.numel() else 0.0
    halvings = max(0, int(np.ceil(np.log2(max(longest, 1e-9) / LARGEST_STEP))))
    moved: torch.Tensor = velocity / 2**halvings
    for _ in range(halvings):
        moved = _composed(moved, moved)
    return moved
