"""Every node of a grid against a window around it: ours, and one shift of the moving map after another."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from measuring import measured
from torch.nn import functional

from meddift.matching.cost_volume import cost_volume
from meddift.registration.candidates import RADIUS, STRIDE

#: Voxels on either side that support a node, as `meddift register` compares.
SUPPORT = 1


def ours(told: dict[str, Any]) -> dict[str, Any]:
    fixed, moving = _maps(told)
    shown = torch.ones(fixed.shape[:3])
    wanted = torch.ones([-(-n // STRIDE) for n in fixed.shape[:3]], dtype=torch.bool)
    row, found = measured(
        lambda: cost_volume(fixed, moving, shown, wanted, radius=RADIUS, stride=STRIDE, support=SUPPORT)
    )
    cost = found.cost.reshape(*wanted.shape, -1)
    return {**row, **_floor(fixed), "beyond_bytes": row["peak_bytes"] - row["before_bytes"], "some": _some(cost)}


def shifts(told: dict[str, Any]) -> dict[str, Any]:
    """What one would write with PyTorch: for each offset, product with the shifted map, sum, mean over neighbours."""
    fixed, moving = _maps(told)
    size = fixed.shape[:3]

    def work() -> torch.Tensor:
        padded = functional.pad(moving, [0, 0, *[RADIUS] * 6])
        costs = []
        for i, j, k in product(range(2 * RADIUS + 1), repeat=3):
            shifted = padded[i : i + size[0], j : j + size[1], k : k + size[2]]
            similar = (fixed * shifted).sum(dim=3)[None, None]
            pooled = functional.avg_pool3d(similar, 2 * SUPPORT + 1, stride=STRIDE, padding=SUPPORT)
            costs.append(1 - pooled[0, 0])
        return torch.stack(costs, dim=-1)

    row, cost = measured(work)
    return {**row, **_floor(fixed), "beyond_bytes": row["peak_bytes"] - row["before_bytes"], "some": _some(cost)}


def _maps(told: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(*told["image"], told["channels"], generator=generator) for _ in range(2)]
    return functional.normalize(made[0], dim=3), functional.normalize(made[1], dim=3)


def _floor(fixed: torch.Tensor) -> dict[str, Any]:
    """One product of descriptors for every voxel and offset; the mean over neighbours uses each of them again."""
    return {"flops": 2 * fixed.numel() * (2 * RADIUS + 1) ** 3}


def _some(cost: torch.Tensor) -> list[float]:
    """Costs of nodes whose windows lie inside, where no padding enters."""
    inner = cost[3:-3, 3:-3, 3:-3].flatten()
    return inner[:: max(1, len(inner) // 500)].tolist()
