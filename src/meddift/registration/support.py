"""Where the two scans have something in common, and how far off the transform may be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from meddift.geometry import Grid, sample
from meddift.matching.cost_volume import CostVolume
from meddift.registration.dense import DenseField
from meddift.registration.spline import apply_along_axes

#: Neighbouring nodes speak for each other within about so many nodes (standard deviation of a Gaussian).
NEIGHBOURHOOD_NODES = 1.5
#: Where nodes differ from their neighbours by more than this on average, mm, there is no counterpart.
LARGEST_DISAGREEMENT_MM = 7.0
#: Least error, and how it grows with the disagreement of neighbours; measured, see the tests.
BASE_MM, PER_DISAGREEMENT = 0.25, 0.42


@dataclass(frozen=True, eq=False)
class Support:
    """What dense matching says about its own answers, at the nodes of a grid.

    Attributes:
        grid: The grid of nodes.
        disagreement_mm: (a, b, c) float32, how far the places that nodes find by themselves lie from the smooth
            field, averaged over neighbours; large where nothing is known.
        supported: (a, b, c) bool.
    """

    grid: Grid
    disagreement_mm: torch.Tensor
    supported: torch.Tensor

    def on(self, device: str) -> Support:
        """The same on a device."""
        return Support(self.grid, self.disagreement_mm.to(device), self.supported.to(device))

    def supported_on(self, grid: Grid) -> torch.Tensor:
        """(X, Y, Z) bool on a grid."""
        return self.supported_at(grid.voxel_centers_on(self.supported.device)).reshape(grid.shape)

    def uncertainty_at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) float32, mm, at (N, 3) fixed world RAS mm."""
        error = torch.hypot(torch.full_like(self.disagreement_mm, BASE_MM), PER_DISAGREEMENT * self.disagreement_mm)
        return self._read(error, positions)

    def supported_at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) bool at (N, 3) fixed world RAS mm."""
        return self._read(self.supported.float(), positions) >= 0.5

    def _read(self, values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        index = self.grid.world_to_index(positions.to(values.device))
        return sample(values[..., None].contiguous(), index)[:, 0]


def judge_support(volume: CostVolume, field: DenseField, grid: Grid, shown: torch.Tensor) -> Support:
    """Find out where matches of neighbours agree.

    Args:
        volume: Costs that were compared.
        field: What came of them.
        grid: The grid of nodes.
        shown: (a, b, c) bool, where the moving scan shows what the transform puts there.
    """
    at = volume.nodes.unbind(dim=1)
    # Displacements are told in voxels of the compared grid, of which every so many are nodes.
    apart = (field.first - field.own).double() / volume.stride
    seen = shown.float()
    total, weight = torch.zeros_like(seen), torch.zeros_like(seen)
    weight[at] = seen[at]
    total[at] = grid.vectors_to_world(apart).norm(dim=1).float() * seen[at]
    # One unseen node that knows nothing stands in for what lies far from all nodes.
    unknown = 2.0 * LARGEST_DISAGREEMENT_MM
    matrices = tuple(_blur(n).to(seen.device) for n in volume.shape)
    blurred, share = apply_along_axes(torch.stack([total, weight], dim=-1), matrices).unbind(dim=-1)
    disagreement = (blurred + 0.02 * unknown) / (share + 0.02)
    return Support(grid, disagreement, (disagreement <= LARGEST_DISAGREEMENT_MM) & shown)


def _blur(count: int) -> torch.Tensor:
    """(count, count) float32, a Gaussian cut off at four standard deviations; nothing lies beyond the ends."""
    reach = int(4 * NEIGHBOURHOOD_NODES + 0.5)
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    whole = torch.exp(-0.5 * (place / NEIGHBOURHOOD_NODES) ** 2).sum()
    away = torch.arange(count)[:, None] - torch.arange(count)
    weight = torch.exp(-0.5 * (away / NEIGHBOURHOOD_NODES) ** 2) / whole
    return torch.where(away.abs() <= reach, weight, 0.0).float()
