"""Which kind of network a set of weights belongs to, judged by names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from meddift.errors import WeightsCorruptError
from meddift.models.spec import ModelSpec


@dataclass(frozen=True)
class UnetFingerprint:
    """The traits that tell one U-Net from another.

    Attributes:
        channels: Channels of the decoder's and encoder's stages, fine to coarse.
        latent_channels: Channels of its input.
        class_labels: Number of class labels, 0 for none.
        regions: Whether it takes body regions.
        spacing: Whether it takes the voxel size.
        residual_resampling: Whether it resamples with residual blocks.
    """

    channels: tuple[int, ...]
    latent_channels: int
    class_labels: int
    regions: bool
    spacing: bool
    residual_resampling: bool

    def __str__(self) -> str:
        """In words."""
        kind = "rflow" if self.class_labels else "ddpm"
        inputs = [
            f"{self.class_labels} class labels" if self.class_labels else "",
            "body regions" if self.regions else "",
            "spacing" if self.spacing else "",
        ]
        traits = [
            f"channels {', '.join(map(str, self.channels))}",
            f"{self.latent_channels} latent channels",
            f"inputs: {' and '.join(filter(None, inputs)) or 'none'}",
            "residual resampling" if self.residual_resampling else "plain resampling",
        ]
        return f"a U-Net of the {kind} kind ({'; '.join(traits)})"


def role_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """What tensors with these names are: "unet", "autoencoder", "ControlNet" or "unknown"."""
    names = tensors.keys()
    if any(name.startswith("controlnet_") for name in names):
        return "ControlNet"
    if any(name.startswith(("up_blocks.", "down_blocks.")) for name in names):
        return "unet"
    if any(name.startswith("encoder.blocks.") for name in names):
        return "autoencoder"
    return "unknown"


def fingerprint_of(tensors: Mapping[str, torch.Tensor]) -> UnetFingerprint:
    """Traits of a U-Net from its tensors; absent tensors give 0, False or ()."""
    channels: list[int] = []
    while (name := f"down_blocks.{len(channels)}.resnets.0.conv1.conv.weight") in tensors:
        channels.append(int(tensors[name].shape[0]))
    first = tensors.get("conv_in.conv.weight")
    classes = tensors.get("class_embedding.weight")
    return UnetFingerprint(
        channels=tuple(channels),
        latent_channels=0 if first is None or first.ndim < 2 else int(first.shape[1]),
        class_labels=0 if classes is None else int(classes.shape[0]),
        regions=any(name.startswith(("top_region", "bottom_region")) for name in tensors),
        spacing=any(name.startswith("spacing_layer") for name in tensors),
        residual_resampling=any("sampler.conv1." in name for name in tensors),
    )


def fingerprint_wanted(unet: Mapping[str, Any]) -> UnetFingerprint:
    """Traits that a specification's U-Net has."""
    return UnetFingerprint(
        channels=tuple(unet["num_channels"]),
        latent_channels=unet["in_channels"],
        class_labels=unet.get("num_class_embeds") or 0,
        regions=bool(unet.get("include_top_region_index_input") or unet.get("include_bottom_region_index_input")),
        spacing=bool(unet.get("include_spacing_input")),
        residual_resampling=bool(unet.get("resblock_updown")) and len(unet["num_channels"]) > 1,
    )


def check_fingerprint(tensors: Mapping[str, torch.Tensor], spec: ModelSpec, *, role: str, file: str) -> None:
    """Say in one sentence if a file belongs to another network.

    Raises:
        WeightsCorruptError: if it does.
    """
    found = role_of(tensors)
    if found != role:
        what = {"unet": "a U-Net", "autoencoder": "an autoencoder"}
        raise WeightsCorruptError(
            f"{file} is {what.get(found, 'a ControlNet' if found == 'ControlNet' else 'of no known kind')}, but "
            f"{spec.name} wants {what[role]} here"
        )
    if role != "unet":
        return
    is_, wanted = fingerprint_of(tensors), fingerprint_wanted(spec.unet)
    if is_.channels == wanted.channels[: len(is_.channels)]:
        # Stages that are not there at all: not another kind of network but a part of this one, reported as such later.
        is_ = replace(is_, channels=wanted.channels)
    if "conv_in.conv.weight" not in tensors:
        is_ = replace(is_, latent_channels=wanted.latent_channels)
    if any(getattr(is_, field.name) != getattr(wanted, field.name) for field in fields(is_)):
        raise WeightsCorruptError(f"{file} is {is_}, but {spec.name} wants {wanted}")
