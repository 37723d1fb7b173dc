"""The two objectives: denoising, and dense correspondence of decoder levels between two views."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

#: Points closer than this to the true one are neither right nor wrong at a level of this name, mm.
IGNORED_RADIUS_MM = {"up0": 24.0, "up1": 16.0, "up2": 10.0, "up3": 8.0, "fused": 8.0}
#: The share of each level in the correspondence objective.
LEVEL_WEIGHT = {"up0": 0.4, "up1": 0.6, "up2": 1.0, "up3": 1.0, "fused": 2.0}
TEMPERATURE = 0.07


def read_level(features: torch.Tensor, points: torch.Tensor, half_extent: torch.Tensor) -> torch.Tensor:
    """(N, C) unit descriptors at (N, 3) view mm from a (1, C, x, y, z) level, trilinear, clamped at the border."""
    grid = (points / half_extent).flip(-1).reshape(1, -1, 1, 1, 3).to(features.dtype)
    value = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
    return F.normalize(value.reshape(features.shape[1], -1).T, dim=1)


def correspondence(
    levels: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]],
    points: tuple[torch.Tensor, torch.Tensor],
    extra: torch.Tensor,
    half_extents: tuple[torch.Tensor, torch.Tensor],
    *,
    generator: torch.Generator,
    local_points: int = 160,
    local_offsets: int = 48,
) -> tuple[torch.Tensor, dict[str, float]]:
    """InfoNCE on each level and on their mean, and a local objective that fixes the point to a millimetre.

    Returns:
        The loss, and figures to log: the share of points whose best candidate is the true one, by level.
    """
    first = {name: read_level(f, points[0], half_extents[0]) for name, f in levels[0].items()}
    candidates = torch.cat([points[1], extra])
    second = {name: read_level(f, candidates, half_extents[1]) for name, f in levels[1].items()}
    count = len(points[0])
    distance = torch.cdist(points[1], candidates)
    diagonal = torch.zeros_like(distance, dtype=torch.bool)
    diagonal[torch.arange(count), torch.arange(count)] = True
    target = torch.arange(count, device=distance.device)

    similarity = {name: first[name] @ second[name].T for name in first}
    similarity["fused"] = torch.stack(list(similarity.values())).mean(0)
    loss = torch.zeros((), device=distance.device)
    figures = {}
    for name, value in similarity.items():
        ignored = (distance < IGNORED_RADIUS_MM[name]) & ~diagonal
        logits = (value / (TEMPERATURE if name != "fused" else 0.05)).masked_fill(ignored, -1e4)
        forward = F.cross_entropy(logits, target)
        backward = F.cross_entropy(logits[:, :count].T, target)
        loss = loss + LEVEL_WEIGHT[name] * (forward + backward) / 2
        figures[name] = float((logits.argmax(1) == target).float().mean())

    # Local: among random neighbours of the true point, similarity has to fall with distance.
    rows = torch.randperm(count, generator=generator)[:local_points].to(distance.device)
    offsets = torch.randn(len(rows), local_offsets, 3, generator=generator).to(distance.device)
    offsets = offsets * (1.0 + 6.0 * torch.rand(len(rows), local_offsets, 1, generator=generator).to(distance.device))
    offsets[:, 0] = 0
    around = (points[1][rows][:, None] + offsets).reshape(-1, 3)
    wanted = F.softmax(-offsets.square().sum(-1) / (2 * 1.5**2), dim=1)
    local = {
        name: torch.einsum(
            "nc,nkc->nk",
            first[name][rows],
            read_level(f, around, half_extents[1]).reshape(len(rows), local_offsets, -1),
        )
        for name, f in levels[1].items()
    }
    fused = torch.stack(list(local.values())).mean(0)
    finest, next_finest = list(local)[-1], list(local)[-2]
    for value, weight, temperature in (
        (fused, 1.0, 0.03),
        (local[finest], 0.5, 0.05),
        (local[next_finest], 0.25, 0.05),
    ):
        loss = loss + weight * (
            F.cross_entropy(value / temperature, wanted) + (wanted * wanted.clamp(min=1e-9).log()).sum(1).mean()
        )
    best = offsets[torch.arange(len(rows)), fused.argmax(1)].norm(dim=-1)
    figures["local_mm"] = float(best.mean())
    return loss, figures
