"""Velocity fields: smooth maps with a smooth inverse, by scaling and squaring, and their logarithm.

V. Arsigny, O. Commowick, X. Pennec, N. Ayache: A log-Euclidean framework for statistics on diffeomorphisms (2006). The
logarithm is found by `v <- v + (phi o exp(-v) - id)`: M. Bossa, M. Hernandez, S. Olmos (2007), to first order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from meddift.geometry import DisplacementField, Grid, Transform, sample

#: Velocities are halved until none is longer than this, voxels.
LARGEST_STEP = 0.25
#: Rounds of the logarithm.
ROUNDS = 6


@dataclass(frozen=True, eq=False)
class VelocityField:
    """A stationary velocity field on a lattice; following it for a unit of time is a map with an inverse.

    Attributes:
        velocity: (X, Y, Z, 3) float32, voxels of `grid`.
        grid: The lattice, world RAS mm.
    """

    velocity: torch.Tensor
    grid: Grid

    @classmethod
    def of(cls, transform: Transform, grid: Grid) -> VelocityField:
        """The field that leads to a transform near the identity, where there is one; else to one close by."""
        world = grid.voxel_centers().reshape(-1, 3)
        index = torch.from_numpy(grid.world_to_index(transform.apply(world))).float().reshape(*grid.shape, 3)
        wanted = index - _indices(grid)
        velocity = wanted.clone()
        for _ in range(ROUNDS):
            back = _exponential(-velocity)
            velocity += _composed(back, wanted)
        return cls(velocity, grid)

    def flow(self, time: float = 1.0) -> DisplacementField:
        """Where points are after following the field; `time` -1 is the inverse."""
        moved = _exponential(self.velocity * time).double().numpy()
        world = self.grid.vectors_to_world(moved)
        return DisplacementField(np.moveaxis(world, -1, 0).astype(np.float32), self.grid)

    def averaged(self, other: VelocityField) -> VelocityField:
        """The mean of two fields on one lattice."""
        return VelocityField((self.velocity + other.velocity) / 2, self.grid)


def _indices(grid: Grid) -> torch.Tensor:
    axes = [torch.arange(n, dtype=torch.float32) for n in grid.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _composed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Displacement of `second o first`; both (X, Y, Z, 3) in voxels of one lattice."""
    shape = first.shape[:3]
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    here = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    flat = first.reshape(-1, 3)
    return (flat + sample(second, here + flat)).reshape(first.shape)


def _exponential(velocity: torch.Tensor) -> torch.Tensor:
    """Displacement after a unit of time: scaling and squaring."""
    longest = float(velocity.norm(dim=-1).max()) if velocity.numel() else 0.0
    halvings = max(0, int(np.ceil(np.log2(max(longest, 1e-9) / LARGEST_STEP))))
    moved: torch.Tensor = velocity / 2**halvings
    for _ in range(halvings):
        moved = _composed(moved, moved)
    return moved
