"""Descriptors of length 1: what is compared, and what least squares ask of them between voxels."""

from __future__ import annotations

import torch

from meddift.features.whitening import Whitening
from meddift.geometry import sample_with_gradient


def unit(values: torch.Tensor) -> torch.Tensor:
    """Rows of length 1 along the last axis; rows of zeros stay."""
    length: torch.Tensor = values.norm(dim=-1, keepdim=True)
    return values / length.clamp_(min=1e-12)


def normal_products(
    values: torch.Tensor, index: torch.Tensor, wanted: torch.Tensor, whitening: Whitening | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a shift would have to be for descriptors at some places to become those that are wanted: least squares.

    With u the descriptors there, brought to length 1, J their derivative by index and d = wanted - u. All products of
    columns are made first, and the ones of u from those of what is not of length 1 yet:
    u = v / |v| has the derivative (J_v - u u' J_v) / |v|.

    Args:
        values: (X, Y, Z, C), C-contiguous.
        index: (N, 3) voxel indices; clamped at the border. As many as may be read at a time.
        wanted: (N, C), of length 1.
        whitening: What descriptors go through after they were read; None = they are compared as they are.

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
    """(k, k, N), the dot products of k vectors of length C at each place, given as k (N, C)."""
    if columns[0].device.type != "cpu":
        stacked = torch.stack(columns, dim=1)
        return torch.bmm(stacked, stacked.transpose(1, 2)).permute(1, 2, 0)
    # So small a matrix product a place takes a processor longer than all products one after the other.
    ones, product = columns[0].new_ones(columns[0].shape[1]), torch.empty_like(columns[0])
    gram = columns[0].new_empty((len(columns), len(columns), len(columns[0])))
    for i, one in enumerate(columns):
        for j, other in enumerate(columns[: i + 1]):
            torch.mv(torch.mul(one, other, out=product), ones, out=gram[i, j])
            gram[j, i] = gram[i, j]
    return gram
