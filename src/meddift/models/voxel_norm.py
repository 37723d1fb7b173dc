"""Normalisation that does not depend on the field of view, in place of MONAI's group norms."""

from __future__ import annotations

import torch


class VoxelNorm(torch.nn.Module):
    """Mean 0 and variance 1 over the channels of each voxel, then a weight and a bias for each channel (layer norm).

    A group norm takes its statistics from the whole field of view, so the features of a place change when the scan is
    cropped. Parameters have the names and shapes of those of a group norm.

    Args:
        channels: Number of channels of the input.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.bias = torch.nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ...)."""
        last = x.movedim(1, -1)
        normal = torch.nn.functional.layer_norm(last, (last.shape[-1],), self.weight, self.bias, self.eps)
        return normal.movedim(-1, 1)


def normalise_by_voxel(network: torch.nn.Module) -> None:
    """Replace every group norm of a network by a new `VoxelNorm` of as many channels."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.GroupNorm):
                setattr(parent, name, VoxelNorm(child.num_channels, child.eps))
