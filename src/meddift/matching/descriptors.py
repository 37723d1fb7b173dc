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
    columns come from one small matrix product a place, and the ones of u from those of what is not of length 1 yet:
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
    read = torch.stack([*slopes, value], dim=1)
    if whitening is not None:
        shift, matrix = whitening.tensors(value.device)
        read = read @ matrix
        read[:, 3] += shift
    columns = torch.cat([read, wanted[:, None]], dim=1)
    gram = torch.bmm(columns, columns.transpose(1, 2))
    length = gram[:, 3, 3].sqrt().clamp(min=1e-6)[:, None]
    along = gram[:, :3, 3] / length
    cosine, own = gram[:, 3, 4, None] / length, gram[:, 3, 3, None] / length.square()
    square = (gram[:, :3, :3] - along[:, :, None] * along[:, None]) / length.square()[..., None]
    pull = (gram[:, :3, 4] - along * (1 + cosine - own)) / length
    return square, pull, (gram[:, 4, 4] - 2 * cosine[:, 0] + own[:, 0]).clamp(min=0)
