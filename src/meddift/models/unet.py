"""The U-Net of a latent diffusion model, as far as the feature maps of its decoder.

It computes what MONAI's `DiffusionModelUNetMaisi` computes, without cross attention, and its parameters have the same
names and shapes, so that published weights can be loaded. It is written anew because MONAI's import takes longer than
reading two scans, because its residual blocks make eight activations where four suffice, and because reading maps out
of MONAI's network depends on methods that are not public. Tests compare both networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from meddift.errors import OptionsError
from meddift.models.unet_blocks import BlockOptions, Change, Convolution, DownBlock, MiddleBlock, UpBlock


class UNet(nn.Module):
    """A U-Net with attention that is told the timestep, and optionally regions, spacing and a class.

    Args:
        in_channels: Channels of the latent.
        out_channels: Channels of the network's output, which is never computed.
        num_res_blocks: Residual blocks, for each resolution or the same for all.
        num_channels: Channels at each resolution, fine to coarse.
        attention_levels: Whether there is attention, at each resolution.
        norm_num_groups: Groups of the group norms.
        norm_eps: Added to the variance in norms.
        resblock_updown: Whether the resolution is changed inside residual blocks instead of by convolutions.
        num_head_channels: Channels of a head of attention, at each resolution or the same for all.
        num_class_embeds: Number of classes, or None if there are none.
        include_fc: Whether attention ends with a linear layer.
        use_combined_linear: Whether queries, keys and values come from one linear layer.
        include_top_region_index_input: Whether the upper body region is an input.
        include_bottom_region_index_input: Whether the lower body region is an input.
        include_spacing_input: Whether the spacing is an input.
        transformer_num_layers: Without effect, as in MONAI where there is no cross attention.
        upcast_attention: Without effect, likewise.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_res_blocks: Sequence[int] | int = 2,
        num_channels: Sequence[int] = (32, 64, 64, 64),
        attention_levels: Sequence[bool] = (False, False, True, True),
        norm_num_groups: int = 32,
        norm_eps: float = 1e-6,
        resblock_updown: bool = False,
        num_head_channels: Sequence[int] | int = 8,
        num_class_embeds: int | None = None,
        include_fc: bool = False,
        use_combined_linear: bool = False,
        include_top_region_index_input: bool = False,
        include_bottom_region_index_input: bool = False,
        include_spacing_input: bool = False,
        transformer_num_layers: int = 1,
        upcast_attention: bool = False,
    ) -> None:
        super().__init__()
        del transformer_num_layers, upcast_attention
        widths, count = list(num_channels), len(num_channels)
        repeats = [num_res_blocks] * count if isinstance(num_res_blocks, int) else list(num_res_blocks)
        heads = [num_head_channels] * count if isinstance(num_head_channels, int) else list(num_head_channels)
        for name, values in (
            ("attention_levels", attention_levels), ("num_res_blocks", repeats), ("num_head_channels", heads),
        ):  # fmt: skip
            if len(values) != count:
                raise ValueError(f"{name} has {len(values)} values for {count} resolutions")
        if any(width % norm_num_groups for width in widths):
            raise ValueError(f"num_channels {widths} must be multiples of norm_num_groups {norm_num_groups}")
        self._time_channels, embedded = widths[0], 4 * widths[0]
        self.conv_in = Convolution(in_channels, widths[0])
        self.time_embed = _embedder(widths[0], embedded)
        told = 1
        if num_class_embeds is not None:
            self.class_embedding = nn.Embedding(num_class_embeds, embedded)
        for layer, inputs, included in (
            ("top_region_index_layer", 4, include_top_region_index_input),
            ("bottom_region_index_layer", 4, include_bottom_region_index_input),
            ("spacing_layer", 3, include_spacing_input),
        ):
            if included:
                setattr(self, layer, _embedder(inputs, embedded))
                told += 1
        common = BlockOptions(told * embedded, norm_num_groups, norm_eps, include_fc, use_combined_linear)
        step: Change = "block" if resblock_updown else "convolution"
        attended = [head if attends else None for head, attends in zip(heads, attention_levels, strict=True)]
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for level, (width, repeat) in enumerate(zip(widths, repeats, strict=True)):
            reads = [before] + [width] * (repeat - 1)
            change = None if level == count - 1 else step
            self.down_blocks.append(DownBlock(reads, width, attended[level], change, common))
            before = width
        self.middle_block = MiddleBlock(widths[-1], heads[-1], common)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(count)):
            # Each residual block reads the result of the one before and one of the encoder's; the last of these was
            # computed at the next finer resolution.
            width, repeat = widths[level], repeats[level]
            reads = [before + width] + [2 * width] * repeat
            reads[-1] += widths[max(level - 1, 0)] - width
            change = None if level == 0 else step
            self.up_blocks.append(UpBlock(reads, width, attended[level], change, common))
            before = width
        # Not needed for feature maps, but part of the published weights, which are checked as a whole.
        self.out = nn.Sequential(common.norm(widths[0]), nn.SiLU(), Convolution(widths[0], out_channels))

    def forward(
        self,
        levels: Sequence[str],
        *,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        top_region_index_tensor: torch.Tensor | None = None,
        bottom_region_index_tensor: torch.Tensor | None = None,
        spacing_tensor: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run the network just far enough to read the named levels.

        Nothing is kept in the network, so that any number of threads may run it.

        Args:
            levels: Names: `middle`, `up0`, `up1` ... (decoder blocks, coarse to fine, each with its upsampling).
            x: (N, C, x, y, z) float, noisy latents.
            timesteps: (N,), timestep of each latent.
            class_labels: (N,) int64, where the network has classes.
            top_region_index_tensor: (N, 4) float, where it is told the upper body region.
            bottom_region_index_tensor: (N, 4) float, where it is told the lower one.
            spacing_tensor: (N, 3) float, where it is told the spacing.

        Returns:
            For each name (N, C, x, y, z), in the order asked for.

        Raises:
            OptionsError: if a level does not exist in this network, or none is asked for.
        """
        names = ["middle", *(f"up{i}" for i in range(len(self.up_blocks)))]
        unknown = [name for name in levels if name not in names]
        if unknown or not levels:
            raise OptionsError(f"levels {unknown} do not exist in this network; it has {', '.join(names)}")
        embedding = self._embedding(x, timesteps, class_labels, {
            "top_region_index_layer": top_region_index_tensor,
            "bottom_region_index_layer": bottom_region_index_tensor,
            "spacing_layer": spacing_tensor,
        })  # fmt: skip
        hidden = self.conv_in(x)
        skips = [hidden]
        for block in self.down_blocks:
            hidden = block(hidden, embedding, skips)
        hidden = self.middle_block(hidden, embedding)
        found = {"middle": hidden} if "middle" in levels else {}
        for name, block in zip(names[1:], self.up_blocks, strict=True):
            if len(found) == len(set(levels)):
                break
            hidden = block(hidden, embedding, skips)
            if name in levels:
                found[name] = hidden
        return {name: found[name] for name in levels}

    def _embedding(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None,
        told: Mapping[str, torch.Tensor | None],
    ) -> torch.Tensor:
        """(N, channels): everything that the network is told beside the latent."""
        embedding: torch.Tensor = self.time_embed(timestep_embedding(timesteps, self._time_channels).to(x))
        if hasattr(self, "class_embedding"):
            embedding = embedding + self.class_embedding(class_labels).to(x)
        layers = [(getattr(self, layer), value) for layer, value in told.items() if hasattr(self, layer)]
        return torch.cat([embedding, *(layer(value) for layer, value in layers)], dim=1)


def timestep_embedding(timesteps: torch.Tensor, channels: int) -> torch.Tensor:
    """Cosines and sines of a timestep at frequencies from 1 down to 1 / 10000 (Ho et al. 2020, arXiv 2006.11239).

    Args:
        timesteps: (N,).
        channels: Length of the result.

    Returns:
        (N, channels) float32: cosines, then sines, and a zero if `channels` is odd.
    """
    half = channels // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(exponent / half)[None]
    return functional.pad(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1), (0, channels % 2))


def _embedder(inputs: int, outputs: int) -> nn.Sequential:
    """Two linear layers that embed one of the things that the network is told."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))
