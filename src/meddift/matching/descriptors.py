"""Normalised descriptors, and the products of their derivatives that least squares need."""

from __future__ import annotations

import torch

from meddift.features.whitening import Whitening
from meddift.geometry import sample_with_gradient


def unit(values: torch.Tensor) -> torch.Tensor:
    """Normalise vectors along the last axis to length 1; zero vectors stay zero."""
    length: torch.Tensor = values.norm(dim=-1, keepdim=True)
    return values / length.clamp_(min=1e-12)


def unit_(values: torch.Tensor) -> torch.Tensor:
    """`unit` in place, for values that nothing else uses."""
    return values.div_(values.norm(dim=-1, keepdim=True).clamp_(min=1e-12))


def normal_products(
    values: torch.Tensor, index: torch.Tensor, wanted: torch.Tensor, whitening: Whitening | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Products for the normal equations of the shifts that make interpolated descriptors equal to given ones.

    u are the descriptors at `index`, normalised to length 1, J their derivative by voxel index, and d = wanted - u.
    Products are computed for the unnormalised descriptors v first: u = v / |v| has the derivative
    (J_v - u u' J_v) / |v|.

    Args:
        values: (X, Y, Z, C) float32 or float16, C-contiguous.
        index: (N, 3) float voxel indices, clamped at the border; all are processed at once.
        wanted: (N, C) float32, of length 1.
        whitening: Whitening that is applied after interpolation; None = none.

    Returns:
        J'J (N, 3, 3), J'd (N, 3) and d'd (N,).
    """
    value, slopes = sample_with_gradient(values, index)
    if whitening is not None:
        shift, matrix = whitening.tensors(value.device)
        x, y, z, value = (torch.cat([*slopes, value]) @ matrix).reshape(4, *value.shape)
        slopes, value = (x, y, z), value + shift
    gram = _products([*slopes, value, wanted])
    length = gram[3, 3].sqrt().clamp(min=1e-6)
    along, cosine, own = gram[:3, 3] / length, gram[3, 4] / length, gram[3, 3] / length.square()
    square = (gram[:3, :3] - along[:, None] * along) / length.square()
    pull = (gram[:3, 4] - along * (1 + cosine - own)) / length
    return square.permute(2, 0, 1), pull.T, (gram[4, 4] - 2 * cosine + own).clamp(min=0)


def _products(columns: list[torch.Tensor]) -> torch.Tensor:
    """(k, k, N), the dot products among k vectors of length C at each of N positions, given as k tensors (N, C)."""
    if columns[0].device.type != "cpu":
        stacked = torch.stack(columns, dim=1)
        return torch.bmm(stacked, stacked.transpose(1, 2)).permute(1, 2, 0)
    # On the CPU, one small matrix product for each position is slower than elementwise products.
    ones, product = columns[0].new_ones(columns[0].shape[1]), torch.empty_like(columns[0])
    gram = columns[0].new_empty((len(columns), len(columns), len(columns[0])))
    for i, one in enumerate(columns):
        for j, other in enumerate(columns[: i + 1]):
            torch.mv(torch.mul(one, other, out=product), ones, out=gram[i, j])
            gram[j, i] = gram[i, j]
    return gram
