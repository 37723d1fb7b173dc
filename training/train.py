"""Train the built-in model: denoising and dense correspondence on one U-Net, on CPU or GPU.

    python training/train.py --scans FOLDER --run training/runs/first --hours 2

Stops after `--hours` of training in all; run again with the same `--run` to go on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from autoencoder import NETWORK, encode_mean, load_autoencoder
from meddift.models import find_spec
from meddift.models.weights import locate_weights
from objectives import correspondence
from training_scans import draw_phantoms, load_scans
from views import interp, make_pair


def with_channels(channels: list[int]) -> dict:
    """Settings of a U-Net of these stages: attention on the coarsest alone, heads of 48 channels there."""
    last = len(channels) - 1
    return {
        "channels": channels,
        "attention": [stage == last for stage in range(len(channels))],
        "head_channels": [48 if stage == last else 0 for stage in range(len(channels))],
    }


DEFAULTS = {
    "latent_channels": 8,
    **with_channels([32, 64, 128, 144]),
    "residual_blocks": 1,
    "groups": 16,
    "window_hu": [-1000.0, -200.0, 250.0, 1500.0],
    "window_value": [0.0, 0.45, 0.85, 1.0],
    "spacing_mm": 2.0,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "timestep": 20,
    "prediction": "sample",
    "correspondence": True,
}
#: On latents of stride 4 a stage less reaches as far.
ON_AUTOENCODER = with_channels([64, 128, 144])


def haar(image: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z) to (8, X/2, Y/2, Z/2): one level of the orthonormal Haar transform; channel = 4 i + 2 j + k."""
    parts = [image]
    for axis in range(3):
        parts = [
            (part.unfold(axis, 2, 2) @ kernel) / math.sqrt(2)
            for part in parts
            for kernel in (torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0]))
        ]
    return torch.stack(parts)


def denoising_target(prediction: str, latent: torch.Tensor, noise: torch.Tensor, signal: float) -> torch.Tensor:
    """What the network is asked for: the clean latent, the noise that was added, or v (Salimans and Ho 2022).

    Args:
        prediction: `sample`, `epsilon` or `v`, the words of specifications.
        latent: Clean.
        noise: What was added, of unit variance; zero where none was.
        signal: Factor of the clean latent, the square root of the share that is kept.
    """
    if prediction == "sample":
        return latent
    if prediction == "epsilon":
        return noise
    return signal * noise - math.sqrt(1 - signal**2) * latent


def build_network(config: dict) -> torch.nn.Module:
    """The U-Net class of MAISI, narrower."""
    from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
    from monai.networks.blocks.selfattention import SABlock

    network = DiffusionModelUNetMaisi(
        spatial_dims=3, in_channels=config["latent_channels"], out_channels=config["latent_channels"],
        num_channels=config["channels"],
        attention_levels=config["attention"], num_head_channels=config["head_channels"],
        num_res_blocks=config["residual_blocks"], norm_num_groups=config["groups"], use_flash_attention=False,
        include_top_region_index_input=False, include_bottom_region_index_input=False, include_spacing_input=False,
        resblock_updown=False, include_fc=True,
    )  # fmt: skip
    for module in network.modules():
        if isinstance(module, SABlock):
            module.use_flash_attention = True  # PyTorch's scaled_dot_product_attention; the same numbers
    return network


def read_levels(network: torch.nn.Module, latent: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """One pass: the output, and the decoder blocks as `up0`.."""
    levels: dict[str, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, name=f"up{i}": levels.__setitem__(name, out.float()))
        for i, block in enumerate(network.up_blocks)
    ]
    try:
        output = network(latent, timestep)
    finally:
        for hook in hooks:
            hook.remove()
    return output, levels


def weights_digest(folder: Path) -> str:
    """The first digits of what the package calls the sha256 of these weights."""
    return locate_weights(find_spec("builtin"), folder).digest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder of *.nii.gz")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--steps", type=int, help="stop after so many instead, for comparisons at equal length")
    parser.add_argument("--prediction", choices=["sample", "epsilon", "v"], default="sample")
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--voxels", type=int, default=110**3, help="at most, of one view")
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--phantoms", type=int, default=0, help="number of drawn chests beside the scans")
    parser.add_argument("--phantom-weight", type=float, default=0.3, help="of one, relative to a scan of its size")
    parser.add_argument("--start-from", type=Path, help="folder of exported weights to begin a new run with")
    parser.add_argument("--autoencoder", type=Path, help="folder of autoencoder.py; without it a fixed Haar latent")
    parser.add_argument("--denoising-only", action="store_true")
    parser.add_argument("--channels", type=int, nargs="+", help="of the stages, fine to coarse; attention on the last")
    parser.add_argument("--residual-blocks", type=int, default=DEFAULTS["residual_blocks"], help="of each stage")
    parser.add_argument("--spacing-mm", type=float, default=DEFAULTS["spacing_mm"], help="that it works at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    config = {**DEFAULTS, "correspondence": not arguments.denoising_only, "seed": arguments.seed,
              "prediction": arguments.prediction, "residual_blocks": arguments.residual_blocks,
              "spacing_mm": arguments.spacing_mm}  # fmt: skip
    autoencoder, scale_factor = None, 1.0
    if arguments.autoencoder:
        autoencoder, scale_factor = load_autoencoder(arguments.autoencoder)
        config |= ON_AUTOENCODER | {"autoencoder": NETWORK, "scale_factor": scale_factor}
    if arguments.channels:
        config |= with_channels(arguments.channels)
    if arguments.start_from:
        config |= {"started_from": weights_digest(arguments.start_from)}
    if arguments.phantoms:
        config |= {"phantoms": arguments.phantoms, "phantom_weight": arguments.phantom_weight}
    (arguments.run / "config.json").write_text(json.dumps(config, indent=1))

    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    network = build_network(config).to(device)
    if arguments.start_from:
        exported = [load_file(part) for part in sorted(arguments.start_from.glob("unet-*.safetensors"))]
        network.load_state_dict({name: value.float() for part in exported for name, value in part.items()})
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.learning_rate, weight_decay=0.01)
    betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float()
    knots, heights = torch.tensor(config["window_hu"]), torch.tensor(config["window_value"])

    step, trained = 0, 0.0
    checkpoint = arguments.run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        network.load_state_dict(state["network"])
        average = {name: value.to(device) for name, value in state["average"].items()}
        optimizer.load_state_dict(state["optimizer"])
        step, trained = state["step"], state["seconds"]
    generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + step)
    scans = load_scans(arguments.scans, spacing_mm=config["spacing_mm"])
    scans += draw_phantoms(arguments.phantoms, spacing_mm=config["spacing_mm"], weight=arguments.phantom_weight)
    print(f"{len(scans)} scans, {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, step {step}")

    def save() -> None:
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(
            {"network": network.state_dict(), "average": average, "optimizer": optimizer.state_dict(),
             "step": step, "seconds": trained},
            temporary,
        )  # fmt: skip
        temporary.replace(checkpoint)

    budget, saved, running = arguments.hours * 3600, time.monotonic(), {}
    network.train()
    while (done := step / arguments.steps if arguments.steps else trained / budget) < 1:
        began = time.monotonic()
        pair = make_pair(scans, generator, budget=arguments.voxels, count=arguments.points)
        prepared = time.monotonic() - began
        # Linear warm-up, then a cosine over the time that is left: the end is reached however fast the machine is.
        fall = 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
        rate = arguments.learning_rate * min(1, (step + 1) / 60) * fall
        for group in optimizer.param_groups:
            group["lr"] = rate
        levels, denoising, usable = [], torch.zeros((), device=device), True
        with torch.autocast(device.type, dtype=torch.bfloat16):
            for view in pair.views:
                shown = interp(view.image, knots, heights)
                with torch.no_grad():
                    latent = haar(shown) if autoencoder is None else encode_mean(autoencoder, shown) * scale_factor
                latent = latent[None].float().to(device)
                noisy = arguments.denoising_only or float(torch.rand((), generator=generator)) < 0.35
                low, high = (0, 1000) if arguments.denoising_only else (0, 150)
                timestep = torch.randint(low, high if noisy else 50, (1,), generator=generator)
                signal = kept[timestep].sqrt().item()
                noise = (
                    torch.randn(latent.shape, generator=generator).to(device) if noisy else torch.zeros_like(latent)
                )
                given = signal * latent + math.sqrt(1 - signal**2) * noise
                output, read = read_levels(network, given, timestep.to(device))
                wanted = denoising_target(arguments.prediction, latent, noise, signal)
                denoising = denoising + (output.float() - wanted).square().mean()
                usable = usable and (not noisy or int(timestep) < 60)
                levels.append(read)
        loss, figures = denoising, {"denoising": float(denoising.detach())}
        if usable and not arguments.denoising_only:
            matching, extra = correspondence(
                (levels[0], levels[1]), (pair.points[0].to(device), pair.points[1].to(device)), pair.extra.to(device),
                (pair.views[0].half_extent.to(device), pair.views[1].half_extent.to(device)), generator=generator,
            )  # fmt: skip
            loss = loss + matching
            figures |= extra | {"matching": float(matching.detach())}
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else average[name].copy_(value)
        step += 1
        trained += time.monotonic() - began
        for name, value in figures.items():
            running[name] = 0.95 * running.get(name, value) + 0.05 * value
        if step % 10 == 0 or step < 5:
            shown = " ".join(f"{name} {value:.3f}" for name, value in running.items())
            print(
                f"step {step} {trained:.0f} s (data {prepared:.2f} s, step {time.monotonic() - began:.2f} s) {shown}",
                flush=True,
            )
        if time.monotonic() - saved > 240:
            save()
            saved = time.monotonic()
    save()


if __name__ == "__main__":
    main()
