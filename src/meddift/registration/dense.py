"""Smooth dense matching on a coarse grid: coupled convex optimisation with confidences.

As in M. Heinrich, B. Papiez, J. Schnabel, H. Handels (Non-parametric discrete registration with convex optimisation,
2014) and ConvexAdam (H. Siebert, C. Grossbroehmer, L. Hansen, M. Heinrich, 2024), the best displacement of every node
and a smooth field are optimised alternately under an increasingly strong coupling. Here nodes with a distinct minimum
have a larger weight in the smooth field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from meddift.geometry.sampling import chunks
from meddift.matching.cost_volume import CostVolume
from meddift.matching.subvoxel import peak_offsets
from meddift.registration.smoothness import Smoother, Smoothness
from meddift.system.threads import for_each

#: How strongly the best displacement is drawn to the smooth field, a round each, cost a voxel squared.
PULLS = (0.0, 0.004, 0.01, 0.025, 0.06, 0.15)
#: Nodes that are worked on at a time on a processor, so that their costs stay in its cache.
SLICE = 8192
#: Costs from here on mean that the moving scan shows nothing there; those of unit descriptors are below 2.
UNSEEN = 1.999


@dataclass(frozen=True, eq=False)
class DenseField:
    """Displacements at the nodes of a grid.

    Attributes:
        displacements: For each group (a, b, c, 3) float32, the smooth field, voxels of the matched grid.
        own: (N, 3) float32, the smooth displacement of each node in its own group.
        first: (N, 3) float32, the displacement with the smallest cost of each node.
        confidence: (N,) float32, about 1 for a node with a distinct minimum, 0 for one without.
    """

    displacements: tuple[torch.Tensor, ...]
    own: torch.Tensor
    first: torch.Tensor
    confidence: torch.Tensor


def couple(
    volume: CostVolume,
    smoothness: Smoothness,
    *,
    group: torch.Tensor | None = None,
    groups: int = 1,
    pulls: tuple[float, ...] = PULLS,
) -> DenseField:
    """Find smooth displacements of low cost, one field for each sliding group.

    Args:
        volume: Costs of every node and offset; those outside the moving scan are changed in place, see
            `settle_unseen`.
        smoothness: Penalty on the field, relative to a confidence of 1.
        group: (N,) int64, below `groups`, the group of each node; None = a single group.
        groups: Number of groups.
        pulls: See `PULLS`.

    Returns:
        The displacements.
    """
    offsets, cost, kind = volume.offsets, volume.cost, volume.cost.device.type
    parts = list(chunks(len(cost), size=SLICE if kind == "cpu" else max(1, len(cost))))
    x, y, z = volume.nodes.unbind(dim=1)
    cells = (x * volume.shape[1] + y) * volume.shape[2] + z
    group = torch.zeros_like(cells) if group is None else group
    seen, contrast = cost.new_empty(len(cost)), cost.new_empty(len(cost))

    def settle(some: slice) -> None:
        seen[some] = settle_unseen(cost[some])
        contrast[some] = cost[some].mean(dim=1) - cost[some].amin(dim=1)

    for_each(parts, settle, device=kind)
    confidence = node_confidence(contrast, seen)
    weight = offsets.new_zeros((groups, math.prod(volume.shape)))
    weight[group, cells] = confidence
    smoother = Smoother(weight.reshape(groups, 1, *volume.shape), smoothness)
    smooth = offsets.new_zeros((groups, 3, *volume.shape))
    own = offsets.new_zeros((len(cells), 3))
    measured = offsets.new_zeros((3, *volume.shape))
    first: torch.Tensor | None = None
    for pull in pulls:
        best = _best_displacements(volume, own, pull, parts)
        first = best if first is None else first
        measured.flatten(1)[:, cells] = best.T
        smooth = smoother.to(measured, start=smooth)
        own = smooth.flatten(2)[group, :, cells]
    displacements = tuple(part.movedim(0, -1).contiguous() for part in smooth)
    return DenseField(displacements, own, own if first is None else first, confidence)


def _best_displacements(volume: CostVolume, own: torch.Tensor, pull: float, parts: Sequence[slice]) -> torch.Tensor:
    """The displacement of lowest cost of each node, when it is drawn to the smooth field.

    Args:
        volume: Costs.
        own: (N, 3) float32, the smooth displacement at each node, voxels.
        pull: Weight of the squared distance to it, cost per squared voxel.
        parts: Rows that are processed together.

    Returns:
        (N, 3) float32, between voxels.
    """
    offsets, cost = volume.offsets, volume.cost
    # |offset - own|^2 without the term that is the same for all offsets of a node, as one product.
    columns = torch.cat([-2 * pull * offsets.T, pull * offsets.square().sum(dim=1)[None]])
    drawn = torch.nn.functional.pad(own, (0, 1), value=1.0)
    best = torch.empty_like(own)

    def choose(some: slice) -> None:
        energy = torch.addmm(cost[some], drawn[some], columns) if pull else cost[some]
        place = energy.argmin(dim=1)
        best[some] = offsets[place] + _between(energy, place, 2 * volume.radius + 1)

    for_each(parts, choose, device=cost.device.type)
    return best


def settle_unseen(cost: torch.Tensor) -> torch.Tensor:
    """Replace costs outside the moving scan by the mean cost of the rest of the window, in place.

    They then neither attract nor repel: a node whose counterpart lies outside the field of view follows its neighbours
    there, instead of being drawn to the border.

    Args:
        cost: (N, M) float32, 2 outside the moving scan.

    Returns:
        (N,) float32, share of the window of each node inside the moving scan.
    """
    seen = cost < UNSEEN
    count = seen.sum(dim=1)
    mean = torch.where(seen, cost, cost.new_zeros(())).sum(dim=1) / count.clamp(min=1)
    torch.where(seen, cost, mean[:, None], out=cost)
    return count / cost.shape[1]


def node_confidence(contrast: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Confidence of nodes: how distinct the minimum of the cost is, squared, relative to the median.

    Args:
        contrast: (N,) float32, mean minus minimum of the costs of each node.
        seen: (N,) float32, share of the window inside the moving scan.

    Returns:
        (N,) float32, 0 to 4.
    """
    among = seen > 0.5
    usual = torch.where(among.any(), contrast.masked_fill(~among, torch.nan).nanmedian(), contrast.median())
    return (contrast / usual.clamp(min=1e-6)).square().clamp_(max=4.0) * seen.square()


def _between(energy: torch.Tensor, place: torch.Tensor, width: int) -> torch.Tensor:
    """(N, 3) sub-voxel offset of the minimum from the best voxel, voxels; 0 at the border of the window."""
    i, j, k = place // width**2, place // width % width, place % width
    rim = ((i == 0) | (i == width - 1)) | ((j == 0) | (j == width - 1)) | ((k == 0) | (k == width - 1))
    side = torch.arange(-1, 2, device=place.device)
    steps = ((side[:, None, None] * width + side[None, :, None]) * width + side[None, None, :]).reshape(-1)
    around = (torch.where(rim, torch.full_like(place, (width**3) // 2), place)[:, None] + steps).clamp_(
        0, width**3 - 1
    )
    cubes = energy.gather(1, around).reshape(-1, 3, 3, 3)
    found = peak_offsets(-cubes, limit=0.5).float()
    return torch.where(rim[:, None], torch.zeros_like(found), found)
