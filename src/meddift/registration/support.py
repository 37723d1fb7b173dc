"""Support of a field by agreeing neighbours, and an estimate of its error."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from meddift.geometry import Grid, sample
from meddift.matching.cost_volume import CostVolume
from meddift.registration.dense import DenseField
from meddift.registration.spline import apply_along_axes

#: Standard deviation of the Gaussian over which disagreement is averaged, nodes.
NEIGHBOURHOOD_NODES = 1.5
#: Largest mean disagreement of supported nodes, mm; beyond it there is no counterpart.
LARGEST_DISAGREEMENT_MM = 7.0
#: Expected error without disagreement, mm, and its increase with disagreement, mm for each mm; see the tests.
BASE_MM, PER_DISAGREEMENT = 0.25, 0.42


@dataclass(frozen=True, eq=False)
class Support:
    """The reliability of a field, at the nodes of dense matching.

    Attributes:
        grid: The grid of nodes.
        disagreement_mm: (a, b, c) float32, distance between the best displacement of each node alone and the smooth
            field, averaged over neighbours, mm; large where nothing was matched.
        supported: (a, b, c) bool, whether neighbours agree and the position lies inside the moving scan.
    """

    grid: Grid
    disagreement_mm: torch.Tensor
    supported: torch.Tensor

    def on(self, device: str) -> Support:
        """A copy on a device."""
        return Support(self.grid, self.disagreement_mm.to(device), self.supported.to(device))

    def supported_on(self, grid: Grid) -> torch.Tensor:
        """(X, Y, Z) bool, support at the voxels of a grid."""
        return self.supported_at(grid.voxel_centers_on(self.supported.device)).reshape(grid.shape)

    def uncertainty_at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) float32, expected error in mm at (N, 3) fixed positions, world RAS mm."""
        error = torch.hypot(torch.full_like(self.disagreement_mm, BASE_MM), PER_DISAGREEMENT * self.disagreement_mm)
        return self._read(error, positions)

    def supported_at(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) bool, support at (N, 3) fixed positions, world RAS mm."""
        return self._read(self.supported.float(), positions) >= 0.5

    def _read(self, values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        index = self.grid.world_to_index(positions.to(values.device))
        return sample(values[..., None].contiguous(), index)[:, 0]


def judge_support(volume: CostVolume, field: DenseField, grid: Grid, shown: torch.Tensor) -> Support:
    """Determine where neighbouring nodes agree.

    Args:
        volume: The cost volume.
        field: The displacements found with it.
        grid: The grid of nodes.
        shown: (a, b, c) bool, whether the position of each node lies inside the moving scan.
    """
    at = volume.nodes.unbind(dim=1)
    # Displacements are in voxels of the matched grid; this converts them to nodes.
    apart = (field.first - field.own).double() / volume.stride
    seen = shown.float()
    total, weight = torch.zeros_like(seen), torch.zeros_like(seen)
    weight[at] = seen[at]
    total[at] = grid.vectors_to_world(apart).norm(dim=1).float() * seen[at]
    # A node of small weight with large disagreement is added everywhere, for positions far from all nodes.
    unknown = 2.0 * LARGEST_DISAGREEMENT_MM
    matrices = tuple(_blur(n).to(seen.device) for n in volume.shape)
    blurred, share = apply_along_axes(torch.stack([total, weight], dim=-1), matrices).unbind(dim=-1)
    disagreement = (blurred + 0.02 * unknown) / (share + 0.02)
    return Support(grid, disagreement, (disagreement <= LARGEST_DISAGREEMENT_MM) & shown)


def _blur(count: int) -> torch.Tensor:
    """(count, count) float32, a Gaussian filter truncated at four standard deviations, with zeros beyond the ends."""
    reach = int(4 * NEIGHBOURHOOD_NODES + 0.5)
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    whole = torch.exp(-0.5 * (place / NEIGHBOURHOOD_NODES) ** 2).sum()
    away = torch.arange(count)[:, None] - torch.arange(count)
    weight = torch.exp(-0.5 * (away / NEIGHBOURHOOD_NODES) ** 2) / whole
    return torch.where(away.abs() <= reach, weight, 0.0).float()
