"""Encoding a scan: our way, and the network as it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from measuring import measured
from torch.utils.flop_counter import FlopCounterMode

from meddift.features import ExtractionOptions, extract_pyramid
from meddift.geometry import Grid
from meddift.models import find_spec, lean_encoder, load_model
from meddift.models.loader import PosteriorEncoder
from meddift.models.monai_import import monai_autoencoder
from meddift.models.unet import UNet
from meddift.volume import Volume

PLAIN = {"use_flash_attention": False, "norm_float16": False, "num_splits": 1, "save_mem": False}


def _scan(shape: list[int]) -> Volume:
    generator = np.random.default_rng(0)
    data = generator.integers(-1000, 1000, shape).astype(np.int16)
    return Volume(data, Grid((shape[0], shape[1], shape[2]), np.diag([2.0, 2.0, 2.0, 1.0])))


def builtin(told: dict[str, Any]) -> dict[str, Any]:
    """All levels of a scan with the model that comes with meddift."""
    model = load_model(told.get("model", "builtin"), precision="auto")
    scan = _scan(told["shape"])
    options = replace(ExtractionOptions.for_model(model.spec), numbers="float16")
    row, _ = measured(lambda: extract_pyramid(scan, model, options))
    prepared = model.prepare(scan)
    latent = model.encode(prepared)
    with FlopCounterMode(display=False) as counter:
        model.levels(latent, timestep=20, levels=model.spec.levels, noise_seed=None)
    return {**row, "flops": counter.get_total_flops()}


def encoder(told: dict[str, Any]) -> dict[str, Any]:
    """The encoder of the autoencoder of MAISI's size, random weights; `way` is plain (MONAI as written) or ours."""
    network = _autoencoder()
    image = torch.rand(1, 1, *told["shape"], generator=torch.Generator().manual_seed(1))
    work = (lambda: network.encoder(image)) if told["way"] == "plain" else (
        lambda: lean_encoder.encode_lean(network.encoder, image)
    )  # fmt: skip
    with torch.inference_mode():
        row, latent = measured(work)
    return {**row, "flops": _encoder_flops(told["shape"]), "latent": _sampled(latent)}


def unet(told: dict[str, Any]) -> dict[str, Any]:
    """The U-Net of MAISI's size, random weights; `way` is plain (MONAI's network as written) or ours."""
    from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi

    spec = find_spec("maisi-ct-ddpm")
    torch.manual_seed(0)
    theirs = DiffusionModelUNetMaisi(spatial_dims=3, **spec.unet, use_flash_attention=False).eval()
    ours = UNet(**spec.unet).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    hot = torch.tensor([[0.0, 100.0, 0.0, 0.0]])
    inputs = {
        "x": torch.randn(1, 4, *[n // 4 for n in told["shape"]], generator=torch.Generator().manual_seed(1)),
        "timesteps": torch.tensor([20]),
        "top_region_index_tensor": hot,
        "bottom_region_index_tensor": hot,
        "spacing_tensor": torch.tensor([[150.0, 150.0, 150.0]]),
    }
    with torch.inference_mode():
        row, found = measured(
            lambda: ours(["up3"], **inputs)["up3"] if told["way"] == "ours" else _last(theirs, inputs)
        )
        with FlopCounterMode(display=False) as counter:
            ours(["up3"], **inputs)
    return {**row, "flops": counter.get_total_flops(), "latent": _sampled(found)}


def _last(network: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a hook on the last decoder block of MONAI's network sees in a pass."""
    found: list[torch.Tensor] = []
    handle = network.up_blocks[-1].register_forward_hook(lambda module, given, result: found.append(result))
    network(**inputs)
    handle.remove()
    return found[0]


def _autoencoder() -> torch.nn.Module:
    torch.manual_seed(0)
    spec = find_spec("maisi-ct-ddpm")
    made = monai_autoencoder()(spatial_dims=3, **spec.latent.network, **PLAIN).eval()
    return PosteriorEncoder(made)


def _encoder_flops(shape: list[int]) -> int:
    """Counted on a small image; convolutions grow with the voxels."""
    network = _autoencoder()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.encoder(torch.rand(1, 1, 32, 32, 32))
    return int(counter.get_total_flops() * np.prod(shape) / 32**3)


def _sampled(values: torch.Tensor) -> list[float]:
    flat = values.float().flatten()
    return flat[:: max(1, len(flat) // 500)].tolist()
