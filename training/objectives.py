"""The two objectives: denoising, and dense correspondence of decoder levels between two views."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from contrast import generator_on

#: Points closer than this to the true one are neither right nor wrong at a level of this name, mm.
IGNORED_RADIUS_MM = {"up0": 24.0, "up1": 16.0, "up2": 10.0, "up3": 8.0, "fused": 8.0}
#: The share of each level in the correspondence objective.
LEVEL_WEIGHT = {"up0": 0.4, "up1": 0.6, "up2": 1.0, "up3": 1.0, "fused": 2.0}
TEMPERATURE = 0.07


def read_level(features: torch.Tensor, points: torch.Tensor, half_extent: torch.Tensor) -> torch.Tensor:
    """(B, N, C) unit descriptors at (B, N, 3) view mm from a (B, C, x, y, z) level, trilinear, clamped outside."""
    grid = (points / half_extent).flip(-1)[:, :, None, None].to(features.dtype)
    value = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
    return F.normalize(value[..., 0, 0].transpose(1, 2), dim=2)


def correspondence(
    levels: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]],
    points: torch.Tensor,
    extra: torch.Tensor,
    half_extent: torch.Tensor,
    *,
    generator: torch.Generator,
    local_points: int = 160,
    local_offsets: int = 48,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """InfoNCE on each level and on their mean, and a local objective that fixes the point to a millimetre.

    Args:
        levels: Of the first and the second views: (B, C, x, y, z) by name, coarse to fine.
        points: (2, B, N, 3) view mm, row i shows the same anatomy in both; a point may come more than once.
        extra: (B, M, 3) view mm in the second views: points without a partner.
        half_extent: (3,) mm from the middle of a view to its faces.
        generator: Draws the places of the local objective.
        local_points: Points that it looks at.
        local_offsets: Places around each of them.

    Returns:
        (B,) losses, and figures to log, (B,) each: the share of points whose best candidate is the true one, by
        level, and how far the best place of the local objective is from the truth, mm.
    """
    first = {name: read_level(f, points[0], half_extent) for name, f in levels[0].items()}
    candidates = torch.cat([points[1], extra], 1)
    second = {name: read_level(f, candidates, half_extent) for name, f in levels[1].items()}
    batch, count = points.shape[1:3]
    device = points.device
    distance = torch.cdist(points[1], candidates)
    target = torch.arange(count, device=device).repeat(batch, 1)
    other = torch.arange(candidates.shape[1], device=device) != target[0, :, None]

    similarity = {name: first[name] @ second[name].transpose(1, 2) for name in first}
    similarity["fused"] = torch.stack(list(similarity.values())).mean(0)
    loss = torch.zeros(batch, device=device)
    figures = {}
    for name, value in similarity.items():
        ignored = (distance < IGNORED_RADIUS_MM[name]) & other
        logits = (value / (TEMPERATURE if name != "fused" else 0.05)).masked_fill(ignored, -1e4)
        forward = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)
        backward = F.cross_entropy(logits[:, :, :count], target, reduction="none").mean(1)
        loss = loss + LEVEL_WEIGHT[name] * (forward + backward) / 2
        figures[name] = (logits.detach().argmax(2) == target).float().mean(1)

    # Local: among random neighbours of the true point, similarity has to fall with distance.
    here = generator_on(device, generator)
    rows = torch.rand(count, generator=here, device=device).argsort()[:local_points]
    offsets = torch.randn(batch, len(rows), local_offsets, 3, generator=here, device=device)
    offsets = offsets * (1.0 + 6.0 * torch.rand(batch, len(rows), local_offsets, 1, generator=here, device=device))
    offsets[:, :, 0] = 0
    around = (points[1][:, rows, None] + offsets).flatten(1, 2)
    wanted = F.softmax(-offsets.square().sum(-1) / (2 * 1.5**2), dim=2)
    local = {
        name: torch.einsum(
            "bnc,bnkc->bnk",
            first[name][:, rows],
            read_level(f, around, half_extent).unflatten(1, (len(rows), local_offsets)),
        )
        for name, f in levels[1].items()
    }
    fused = torch.stack(list(local.values())).mean(0)
    finest, next_finest = list(local)[-1], list(local)[-2]
    entropy = -(wanted * wanted.clamp(min=1e-9).log()).sum(2).mean(1)
    for value, weight, temperature in (
        (fused, 1.0, 0.03),
        (local[finest], 0.5, 0.05),
        (local[next_finest], 0.25, 0.05),
    ):
        crossed = -(wanted * F.log_softmax(value / temperature, dim=2)).sum(2).mean(1)
        loss = loss + weight * (crossed - entropy)
    best = offsets.gather(2, fused.detach().argmax(2)[..., None, None].expand(-1, -1, 1, 3))
    figures["local_mm"] = best.norm(dim=-1).mean((1, 2))
    return loss, figures
