"""Other contrasts of one anatomy: random maps of intensity by tissue class, and bias fields.

All work on shown values, 0 to 1, which is what a model's window makes of intensities.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

#: Shown values below this are air, or nothing.
AIR_SHOWN = 0.02
#: Voxels that tissue classes are found from at most.
LOOKED_AT = 40_000


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator of a device, seeded by another: what is drawn there need not be drawn here and copied."""
    return torch.Generator(device).manual_seed(int(torch.randint(1 << 62, (), generator=generator)))


def send(device: torch.device, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Float32 tensors of the processor on a device, in one copy that nobody waits for."""
    if device.type == "cpu":
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors]).pin_memory().to(device, non_blocking=True)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def interp(values: torch.Tensor, knots: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """Piecewise-linear map, clamped outside the knots, which lie on the processor or where the values do."""
    slopes = heights.diff() / knots.diff().clamp(min=1e-9)
    table = [knots[1:-1], knots[:-1], heights[:-1], slopes]
    if knots.device != values.device:
        table = send(values.device, *table)
    inner, left, low, slope = table
    part = torch.bucketize(values, inner)
    inside = values.clamp(float(knots[0]), float(knots[-1]))
    return torch.addcmul(low[part], inside - left[part], slope[part])


def tissue_classes(shown: torch.Tensor, *, count: int = 6, rounds: int = 25) -> torch.Tensor:
    """Centres of the classes of intensity inside a body: k-means of shown values, begun at their quantiles.

    Args:
        shown: Shown values of a scan, any shape.
        count: Classes at most; fewer where values coincide.
        rounds: Of k-means.

    Returns:
        Ascending centres, at least 0.02 apart.
    """
    values = shown.flatten()[shown.flatten() > 2 * AIR_SHOWN].cpu()
    values = values[:: max(1, len(values) // LOOKED_AT)]
    if len(values) < count:
        return torch.tensor([0.5])
    centres = torch.quantile(values, (torch.arange(count) + 0.5) / count)
    for _ in range(rounds):
        nearest = (values[:, None] - centres).abs().argmin(1)
        held = torch.bincount(nearest, minlength=count)
        sums = torch.zeros(count).index_add_(0, nearest, values)
        centres = torch.where(held > 0, sums / held.clamp(min=1), centres)
    kept: list[float] = []
    for centre in centres.sort().values.tolist():
        if centre < 1 - AIR_SHOWN and (not kept or centre - kept[-1] >= 0.02):
            kept.append(centre)
    return torch.tensor(kept)


def random_map(classes: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Knots and heights of a random map of shown values; air stays dark.

    A third of the maps keep the order of the classes, a sixth turn it around, half give each class a shade of its
    own. In half of them a class is a plateau (tissue of one brightness), otherwise shades run from class to class.
    """
    count = len(classes) + 1  # the last one: the brightest there is
    shades = torch.rand(count, generator=generator) * 0.95 + 0.05
    kind = float(torch.rand((), generator=generator))
    if kind < 1 / 3:
        shades = shades.sort().values
    elif kind < 1 / 2:
        shades = shades.sort(descending=True).values
    shades = shades / shades.max() * (0.8 + 0.2 * float(torch.rand((), generator=generator)))
    centres = torch.cat([classes.clamp(2 * AIR_SHOWN, 1 - AIR_SHOWN), torch.ones(1)])
    dark = 0.05 * float(torch.rand((), generator=generator)) * float(shades.min())
    knots, heights = [torch.tensor([0.0, AIR_SHOWN])], [torch.tensor([0.0, dark])]
    plateau = float(torch.rand((), generator=generator)) < 0.5
    below = torch.cat([torch.tensor([AIR_SHOWN]), centres[:-1]])
    above = torch.cat([centres[1:], torch.tensor([1.0])])
    for centre, lower, upper, shade in zip(centres, below, above, shades, strict=True):
        if plateau:
            slope = 0.06 * (float(torch.rand((), generator=generator)) - 0.3)
            edges = [centre - 0.35 * (centre - lower)] + ([centre + 0.35 * (upper - centre)] if upper > centre else [])
            knots.append(torch.stack(edges))
            heights.append(torch.stack([shade - slope, shade + slope][: len(edges)]).clamp(0.01, 1))
        else:
            knots.append(centre[None])
            heights.append(shade[None])
    return torch.cat(knots), torch.cat(heights)


def bias_field(shape: tuple[int, int, int], generator: torch.Generator, *, device: torch.device) -> torch.Tensor:
    """(X, Y, Z) factors around 1 that vary slowly: a receive coil's sensitivity, up to some +-40 %."""
    control = torch.randn(1, 1, 3, 3, 3, generator=generator)
    strength = 0.25 * math.sqrt(float(torch.rand((), generator=generator)))
    slow = F.interpolate(send(device, control)[0], size=shape, mode="trilinear", align_corners=True)[0, 0]
    return (strength * slow.clamp(-2, 2)).exp()
