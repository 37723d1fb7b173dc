"""Blocks of a U-Net: residual blocks, attention, and the levels of its encoder and decoder.

Activations are overwritten wherever nothing else refers to them. Names of parameters are those of MONAI's blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

#: How the resolution changes after a level: not at all, by a convolution, or inside a residual block.
Change = Literal["convolution", "block"] | None


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network have in common.

    Attributes:
        told: Channels of the embedding of timestep, regions, spacing and class.
        groups: Groups of the group norms.
        eps: Added to the variance in norms.
        include_fc: Whether attention ends with a linear layer.
        combined: Whether queries, keys and values come from one linear layer.
    """

    told: int
    groups: int
    eps: float
    include_fc: bool
    combined: bool

    def norm(self, channels: int) -> nn.GroupNorm:
        """A group norm of so many channels."""
        return nn.GroupNorm(self.groups, channels, eps=self.eps)


class Convolution(nn.Module):
    """A convolution that keeps the shape for stride 1, and halves it for stride 2.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        size: Edge of the kernel, voxels.
        stride: Step of the kernel, voxels.
    """

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, size, stride=stride, padding=size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (N, inputs, x, y, z)."""
        result: torch.Tensor = self.conv(x)
        return result


class ResidualBlock(nn.Module):
    """Two convolutions whose sum with the input is the output; between them the embedding is added.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        options: As for all blocks.
        change: Whether the resolution is doubled or halved before the first convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, options: BlockOptions, *, change: Literal["up", "down"] | None = None
    ) -> None:
        super().__init__()
        self._change = change
        self.norm1 = options.norm(inputs)
        self.conv1 = Convolution(inputs, outputs)
        self.time_emb_proj = nn.Linear(options.told, outputs)
        self.norm2 = options.norm(outputs)
        self.conv2 = Convolution(outputs, outputs)
        self.skip_connection = nn.Identity() if inputs == outputs else Convolution(inputs, outputs, size=1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """(N, outputs, ...) for (N, inputs, x, y, z) and the embedding (N, channels)."""
        hidden = functional.silu(self.norm1(x), inplace=True)
        if self._change == "up":
            x, hidden = doubled(x), doubled_and_convolved(hidden, self.conv1.conv)
        elif self._change == "down":
            x, hidden = functional.avg_pool3d(x, 2), self.conv1(functional.avg_pool3d(hidden, 2))
        else:
            hidden = self.conv1(hidden)
        hidden += self.time_emb_proj(functional.silu(embedding))[:, :, None, None, None]
        hidden = functional.silu(self.norm2(hidden), inplace=True)
        result: torch.Tensor = self.conv2(hidden)
        result += self.skip_connection(x)
        return result


class SelfAttention(nn.Module):
    """Attention of every voxel to all voxels, in PyTorch's own implementation with linear memory.

    Args:
        channels: Channels of input and output.
        head: Channels of a head.
        options: As for all blocks.
    """

    def __init__(self, channels: int, head: int, options: BlockOptions) -> None:
        super().__init__()
        self._heads = channels // head
        if options.combined:
            self.qkv = nn.Linear(channels, 3 * channels)
        else:
            self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.out_proj = nn.Linear(channels, channels) if options.include_fc else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend: (N, voxels, channels) to the same shape."""
        parts = self.qkv(x).chunk(3, dim=-1) if hasattr(self, "qkv") else (self.to_q(x), self.to_k(x), self.to_v(x))
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in parts)
        seen = functional.scaled_dot_product_attention(query, key, value)
        result: torch.Tensor = self.out_proj(seen.transpose(1, 2).flatten(2))
        return result


class AttentionBlock(nn.Module):
    """Attention within a feature map, added to its input.

    Args:
        channels: Channels of input and output.
        head: Channels of a head, a divisor of `channels`.
        options: As for all blocks.

    Raises:
        ValueError: if the channels cannot be divided into heads.
    """

    def __init__(self, channels: int, head: int, options: BlockOptions) -> None:
        super().__init__()
        if head < 1 or channels % head:
            raise ValueError(f"{channels} channels cannot be divided into heads of num_head_channels {head}")
        self.norm = options.norm(channels)
        self.attn = SelfAttention(channels, head, options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within (N, channels, x, y, z)."""
        voxels = self.norm(x).flatten(2).transpose(1, 2)
        seen: torch.Tensor = self.attn(voxels)
        return x + seen.transpose(1, 2).reshape(x.shape)


class _Halving(nn.Module):
    """A convolution that halves the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Convolution(channels, channels, stride=2)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.op(x)
        return result


class _Doubling(nn.Module):
    """Twice the resolution, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.postconv = Convolution(channels, channels)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return doubled_and_convolved(x, self.postconv.conv)


def _changing(channels: int, change: Change, way: Literal["up", "down"], options: BlockOptions) -> nn.Module | None:
    """What doubles or halves the resolution after a level; None if nothing does."""
    if change is None:
        return None
    if change == "block":
        return ResidualBlock(channels, channels, options, change=way)
    return _Doubling(channels) if way == "up" else _Halving(channels)


class _Level(nn.Module):
    """Residual blocks at one resolution, each with attention behind it if there is any."""

    def __init__(self, inputs: Sequence[int], outputs: int, head: int | None, options: BlockOptions) -> None:
        super().__init__()
        if head is not None:
            self.attentions = nn.ModuleList(AttentionBlock(outputs, head, options) for _ in inputs)
        self.resnets = nn.ModuleList(ResidualBlock(channels, outputs, options) for channels in inputs)

    def _run(self, number: int, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Run one of the residual blocks and its attention."""
        hidden = self.resnets[number](hidden, embedding)
        return self.attentions[number](hidden) if hasattr(self, "attentions") else hidden


class DownBlock(_Level):
    """A level of the encoder.

    Args:
        inputs: Channels of the input of each residual block.
        outputs: Channels of the output.
        head: Channels of a head of attention; None = no attention.
        change: How the resolution is halved at the end.
        options: As for all blocks.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: int, head: int | None, change: Change, options: BlockOptions
    ) -> None:
        super().__init__(inputs, outputs, head, options)
        self.downsampler = _changing(outputs, change, "down", options)

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """Compute (N, outputs, ...); each intermediate result is appended to `skips`."""
        for number in range(len(self.resnets)):
            hidden = self._run(number, hidden, embedding)
            skips.append(hidden)
        if self.downsampler is not None:
            hidden = self.downsampler(hidden, embedding)
            skips.append(hidden)
        return hidden


class MiddleBlock(nn.Module):
    """Two residual blocks with attention between them, at the coarsest resolution.

    Args:
        channels: Channels of input and output.
        head: Channels of a head of attention.
        options: As for all blocks.
    """

    def __init__(self, channels: int, head: int, options: BlockOptions) -> None:
        super().__init__()
        self.resnet_1 = ResidualBlock(channels, channels, options)
        self.attention = AttentionBlock(channels, head, options)
        self.resnet_2 = ResidualBlock(channels, channels, options)

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """(N, channels, x, y, z) to the same shape."""
        hidden = self.attention(self.resnet_1(hidden, embedding))
        result: torch.Tensor = self.resnet_2(hidden, embedding)
        return result


class UpBlock(_Level):
    """A level of the decoder.

    Args:
        inputs: Channels of the input of each residual block, those that come from the encoder included.
        outputs: Channels of the output.
        head: Channels of a head of attention; None = no attention.
        change: How the resolution is doubled at the end.
        options: As for all blocks.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: int, head: int | None, change: Change, options: BlockOptions
    ) -> None:
        super().__init__(inputs, outputs, head, options)
        self.upsampler = _changing(outputs, change, "up", options)

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """Compute (N, outputs, ...); the encoder's results that are used are taken off the end of `skips`."""
        for number in range(len(self.resnets)):
            hidden = self._run(number, torch.cat([hidden, skips.pop()], dim=1), embedding)
        if self.upsampler is not None:
            hidden = self.upsampler(hidden, embedding)
        return hidden


def doubled(x: torch.Tensor) -> torch.Tensor:
    """(N, C, x, y, z) at twice the resolution, by repeating voxels."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def doubled_and_convolved(x: torch.Tensor, convolution: nn.Conv3d) -> torch.Tensor:
    """`convolution(doubled(x))` with 8 / 27 of the products.

    Along each axis the three taps of the kernel fall on two voxels of `x`: at even voxels of the result on the one
    before (first tap) and the one in place (the other two taps), at odd ones on the one in place (the first two taps)
    and the one after (last tap). Taps that fall on the same voxel are added up, which gives a kernel of 2 x 2 x 2 for
    each of the eight kinds of voxels.

    Args:
        x: (N, C, x, y, z).
        convolution: With kernels of 3 x 3 x 3, stride 1 and one voxel of padding.

    Returns:
        (N, C', 2 x, 2 y, 2 z).
    """
    kernel, bias = convolution.weight, convolution.bias
    outputs, inputs = kernel.shape[:2]
    for axis in (-1, -2, -3):
        first, middle, last = kernel.unbind(axis)
        kernel = torch.stack([torch.stack([first, middle + last], axis), torch.stack([first + middle, last], axis)])
    kinds = functional.conv3d(
        x, kernel.reshape(8 * outputs, inputs, 2, 2, 2), None if bias is None else bias.repeat(8), padding=1
    )
    shape = x.shape[2:]
    channels_last = kinds.is_contiguous(memory_format=torch.channels_last_3d)
    result = torch.empty(
        (len(x), outputs, *(2 * n for n in shape)), dtype=kinds.dtype, device=kinds.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
    )  # fmt: skip
    for part, (i, j, k) in zip(kinds.chunk(8, dim=1), product((0, 1), repeat=3), strict=True):
        result[:, :, i::2, j::2, k::2] = part[:, :, i : i + shape[0], j : j + shape[1], k : k + shape[2]]
    return result
