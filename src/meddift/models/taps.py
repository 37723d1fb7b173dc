"""Reading feature maps out of a U-Net: its stages are run one after the other, and each returns its map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from meddift.errors import OptionsError


def run_and_read(
    network: torch.nn.Module, levels: Sequence[str], *, x: torch.Tensor, timesteps: torch.Tensor, **told: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Run a U-Net just far enough to read the named levels.

    The stages are those of `DiffusionModelUNetMaisi.forward`. Nothing is kept in the network, so that any number of
    threads may run it.

    Args:
        network: A MONAI diffusion U-Net.
        levels: Names: `middle`, `up0`, `up1` ... (decoder blocks, coarse to fine, each including its upsampler).
        x: (N, C, x, y, z) float, noisy latent.
        timesteps: (N,), timestep of each latent.
        **told: Further inputs of the network by name: regions, spacing, class.

    Returns:
        For each name (N, C, x, y, z), in the order asked for.

    Raises:
        OptionsError: if a level does not exist in this network, or none is asked for.
    """
    unet: Any = network
    names = ["middle", *(f"up{i}" for i in range(len(unet.up_blocks)))]
    unknown = [name for name in levels if name not in names]
    if unknown or not levels:
        raise OptionsError(f"levels {unknown} do not exist in this network; it has {', '.join(names)}")
    embedding = unet._get_time_and_class_embedding(x, timesteps, told.get("class_labels"))
    regions = (told.get("top_region_index_tensor"), told.get("bottom_region_index_tensor"))
    embedding = unet._get_input_embeddings(embedding, *regions, told.get("spacing_tensor"))
    hidden, skips = unet._apply_down_blocks(unet.conv_in(x), embedding, None, None)
    hidden = unet.middle_block(hidden, embedding, None)
    found = {"middle": hidden} if "middle" in levels else {}
    for name, block in zip(names[1:], unet.up_blocks, strict=True):
        if len(found) == len(set(levels)):
            break
        count = len(block.resnets)
        skips, mine = skips[:-count], skips[-count:]
        hidden = block(hidden_states=hidden, res_hidden_states_list=mine, temb=embedding, context=None)
        if name in levels:
            found[name] = hidden
    return {name: found[name] for name in levels}
