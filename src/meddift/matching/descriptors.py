"""Descriptors of length 1: what is compared, also between voxels and with slopes for least squares."""

from __future__ import annotations

import torch

from meddift.geometry import sample_with_gradient


def unit(values: torch.Tensor) -> torch.Tensor:
    """Rows of length 1 along the last axis; rows of zeros stay."""
    length: torch.Tensor = values.norm(dim=-1, keepdim=True)
    return values / length.clamp_(min=1e-12)


def sample_unit_with_gradient(values: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Descriptors between voxels, brought to length 1 after interpolation, and how they change with the index.

    Args:
        values: (X, Y, Z, C), C-contiguous.
        index: (N, 3) voxel indices; clamped at the border.

    Returns:
        (N, C) and (N, C, 3).
    """
    value, slope = sample_with_gradient(values, index)
    length = value.norm(dim=1, keepdim=True).clamp_(min=1e-6)
    value = value / length
    along = torch.einsum("nc,nci->ni", value, slope)
    return value, torch.baddbmm(slope, value[:, :, None], along[:, None], alpha=-1).div_(length[..., None])
