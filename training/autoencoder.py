"""Train a narrow autoencoder of stride 4, the learned latent stage that the Haar transform is compared with.

    python training/autoencoder.py --scans FOLDER --run training/runs/autoencoder --steps 160

Then `train.py --autoencoder training/runs/autoencoder` trains a U-Net on its latents.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from degrade_views import render
from training_scans import draw_phantoms, load_scans
from views import draw_shape, random_view

#: Keyword arguments of MONAI's AutoencoderKlMaisi: three stages, so stride 4.
NETWORK = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 8,
    "num_channels": [16, 32, 48],
    "num_res_blocks": [1, 1, 1],
    "attention_levels": [False, False, False],
    "norm_num_groups": 8,
    "norm_eps": 1e-6,
}
#: Weight of the Kullback-Leibler term, as in latent diffusion models: barely there.
KL_WEIGHT = 1e-6


def build_autoencoder(network: dict) -> torch.nn.Module:
    """MONAI's class without what only a GPU of 1e9 voxels needs."""
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

    return AutoencoderKlMaisi(
        spatial_dims=3, **network, use_flash_attention=False, norm_float16=False, num_splits=1, save_mem=False
    )


def load_autoencoder(run: Path) -> tuple[torch.nn.Module, float]:
    """A trained autoencoder, frozen, and the factor that brings its latents to unit variance."""
    settings = json.loads((run / "autoencoder.json").read_text())
    network = build_autoencoder(settings["network"])
    network.load_state_dict(
        {name: value.float() for name, value in load_file(run / "autoencoder.safetensors").items()}
    )
    return network.eval().requires_grad_(False), float(settings["scale_factor"])


def encode_mean(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """(C, x, y, z) mean of the posterior for a (X, Y, Z) image."""
    return network.quant_conv_mu(network.encoder(image[None, None]))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder of *.nii.gz")
    parser.add_argument("--run", type=Path, required=True, help="folder for the result")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--voxels", type=int, default=150_000, help="at most, of one view")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    network = build_autoencoder(NETWORK).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.learning_rate, weight_decay=0.01)
    scans = load_scans(arguments.scans, spacing_mm=2.0) + draw_phantoms(arguments.phantoms, spacing_mm=2.0)
    weights = torch.tensor([s.weight * float(s.hu.numel()) ** 0.5 for s in scans])
    began, running, spread = time.monotonic(), 0.0, []
    for step in range(arguments.steps):
        scan = scans[int(torch.multinomial(weights, 1, generator=generator))]
        size = torch.tensor(scan.hu.shape, dtype=torch.float32) * scan.spacing_mm
        view = random_view(scan, (0.2 + 0.6 * torch.rand(3, generator=generator)) * size, generator,
                           shape=draw_shape(generator, budget=arguments.voxels)[0])  # fmt: skip
        render(view, scan, generator, version=0)
        image = view.image[None, None]
        rate = arguments.learning_rate * min(1, (step + 1) / 20) * (1 + math.cos(math.pi * step / arguments.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            back, mean, deviation = network(image)
        mean, deviation = mean.float(), deviation.float()
        kl = 0.5 * (mean.square() + deviation.square() - deviation.square().log() - 1).sum(1).mean()
        error = (back.float() - image).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        (error + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        running = float(error.detach()) if step == 0 else 0.95 * running + 0.05 * float(error.detach())
        if step >= int(arguments.steps * 0.8):
            spread.append(float(mean.detach().std()))
        if step % 10 == 0:
            print(
                f"step {step} {time.monotonic() - began:.0f} s L1 {running:.4f} kl {float(kl.detach()):.1f}",
                flush=True,
            )
    settings = {"network": NETWORK, "scale_factor": 1 / (sum(spread) / len(spread)), "steps": arguments.steps}
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()},
              arguments.run / "autoencoder.safetensors")  # fmt: skip
    (arguments.run / "autoencoder.json").write_text(json.dumps(settings, indent=1))


if __name__ == "__main__":
    main()
