"""Train the built-in model: denoising and dense correspondence on one U-Net, on CPU or GPU.

    python training/train.py --scans FOLDER --run training/runs/first --steps 2000

Stops after `--steps` in all; run again with the same `--run` to go on from the last checkpoint. Samples depend on the
seed and the number of the step alone.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file

from autoencoder import NETWORK, encode_mean, load_autoencoder
from drawn_shapes import draw_shapes
from meddift.models import find_spec
from meddift.models.voxel_norm import normalise_by_voxel
from meddift.models.weights import locate_weights
from objectives import correspondence
from training_scans import draw_phantoms, load_mr, load_scans
from views import ViewPair, make_pair


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
    "normalisation": "scan",
    "spacing_mm": 2.0,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "timestep": 20,
    "prediction": "sample",
    "correspondence": True,
}
#: On latents of stride 4 a stage less reaches as far.
ON_AUTOENCODER = with_channels([64, 128, 144])


#: Seconds between checkpoints.
SAVE_EVERY_S = 240.0
#: How many pairs have noise, beside correspondence; and how many of these at any timestep and not at a low one.
NOISY, ANY_NOISE = 0.3, 0.4


def haar(image: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z) to (8, X/2, Y/2, Z/2): one level of the orthonormal Haar transform; channel = 4 i + 2 j + k."""
    parts = [image]
    for axis in range(3):
        parts = [
            (part.unfold(axis, 2, 2) @ kernel) / math.sqrt(2)
            for part in parts
            for kernel in (image.new_tensor([1.0, 1.0]), image.new_tensor([1.0, -1.0]))
        ]
    return torch.stack(parts)


def denoising_target(
    prediction: str, latent: torch.Tensor, noise: torch.Tensor, signal: torch.Tensor | float
) -> torch.Tensor:
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
    return signal * noise - (1 - signal**2) ** 0.5 * latent


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
    if config["normalisation"] == "voxel":
        normalise_by_voxel(network)
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


def upcoming_pairs(make: Callable[[int], ViewPair], first: int, *, ahead: int = 2) -> Iterator[ViewPair]:
    """Pairs number `first`, `first + 1` and so on, drawn on a thread of their own while the network trains."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(make, first + i) for i in range(ahead))
        for number in count(first + ahead):
            waiting.append(pool.submit(make, number))
            yield waiting.popleft().result()


def train_on(
    network: torch.nn.Module, pair: ViewPair, config: dict, kept: torch.Tensor, *, generator: torch.Generator,
    encode: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, dict[str, float]]:  # fmt: skip
    """The loss of one pair, both views in one pass, and figures to log."""
    latent = torch.stack([encode(view.image) for view in pair.views])
    device = latent.device
    # Without noise, as the package reads features; with noise that leaves correspondence to be seen; or with any.
    noisy = not config["correspondence"] or float(torch.rand((), generator=generator)) < NOISY
    anything = not config["correspondence"] or float(torch.rand((), generator=generator)) < ANY_NOISE
    most = 50 if not noisy else 1000 if anything else 150
    timesteps = torch.randint(most, (2,), generator=generator)
    noise = torch.randn(latent.shape, generator=generator).to(device) * noisy
    signal = kept[timesteps].sqrt().to(device).reshape(2, 1, 1, 1, 1)
    given = signal * latent + (1 - signal**2).sqrt() * noise
    # Objectives stay in float32: cosines of neighbouring places differ by less than bfloat16 can tell.
    with torch.autocast(device.type, dtype=torch.bfloat16):
        given = given.contiguous(memory_format=torch.channels_last_3d)
        output, levels = read_levels(network, given, timesteps.to(device))
    wanted = denoising_target(config["prediction"], latent, noise, signal)
    loss = (output.float() - wanted).square().mean((1, 2, 3, 4)).sum()
    figures = {"denoising": float(loss.detach())}
    if config["correspondence"] and (not noisy or int(timesteps.max()) < 60):
        matching, extra = correspondence(
            ({name: f[:1] for name, f in levels.items()}, {name: f[1:] for name, f in levels.items()}),
            pair.points, pair.extra, (pair.views[0].half_extent, pair.views[1].half_extent), generator=generator,
        )  # fmt: skip
        loss = loss + matching
        kind = pair.modality.lower()
        figures |= {f"{kind} {name}": value for name, value in extra.items()}
        figures[f"{kind} matching"] = float(matching.detach())
    return loss, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder of *.nii.gz")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--mr", type=Path, help="folder of MR patients, PATIENT_CONTRAST.nii.gz")
    parser.add_argument("--mr-share", type=float, default=0.5, help="of the pairs, with --mr")
    parser.add_argument("--steps", type=int, default=2000, help="in all; the learning rate falls towards them")
    parser.add_argument("--pairs", type=int, default=1, help="of each step")
    parser.add_argument("--normalisation", choices=["scan", "voxel"], default="scan",
                        help="over the field of view, or over the channels of each voxel")  # fmt: skip
    parser.add_argument("--prediction", choices=["sample", "epsilon", "v"], default="sample")
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--voxels", type=int, default=110**3, help="of one view, about")
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--phantoms", type=int, default=0, help="number of drawn chests beside the scans")
    parser.add_argument("--phantom-weight", type=float, default=0.3, help="of one, relative to a scan of its size")
    parser.add_argument("--shapes", type=int, default=0, help="number of drawn bodies of random tissues, as MR")
    parser.add_argument("--shapes-weight", type=float, default=0.3, help="of one, relative to a scan of its size")
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
              "spacing_mm": arguments.spacing_mm, "normalisation": arguments.normalisation,
              "pairs": arguments.pairs}  # fmt: skip
    autoencoder, scale_factor = None, 1.0
    if arguments.autoencoder:
        autoencoder, scale_factor = load_autoencoder(arguments.autoencoder)
        autoencoder = autoencoder.to(arguments.device)
        config |= ON_AUTOENCODER | {"autoencoder": NETWORK, "scale_factor": scale_factor}
    if arguments.channels:
        config |= with_channels(arguments.channels)
    if arguments.start_from:
        config |= {"started_from": weights_digest(arguments.start_from)}
    if arguments.phantoms:
        config |= {"phantoms": arguments.phantoms, "phantom_weight": arguments.phantom_weight}
    if arguments.shapes:
        config |= {"shapes": arguments.shapes, "shapes_weight": arguments.shapes_weight}
    if arguments.mr:
        config |= {"mr_share": arguments.mr_share}
    (arguments.run / "config.json").write_text(json.dumps(config, indent=1))

    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    # Convolutions in bfloat16 want channels side by side.
    network = build_network(config).to(device).to(memory_format=torch.channels_last_3d)
    if arguments.start_from:
        exported = [load_file(part) for part in sorted(arguments.start_from.glob("unet-*.safetensors"))]
        network.load_state_dict({name: value.float() for part in exported for name, value in part.items()})
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.learning_rate, weight_decay=0.01)
    betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float()

    step, trained = 0, 0.0
    checkpoint = arguments.run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        network.load_state_dict(state["network"])
        average = {name: value.to(device) for name, value in state["average"].items()}
        optimizer.load_state_dict(state["optimizer"])
        step, trained = state["step"], state["seconds"]
    scans = load_scans(arguments.scans, spacing_mm=config["spacing_mm"])
    scans += draw_phantoms(arguments.phantoms, spacing_mm=config["spacing_mm"], weight=arguments.phantom_weight)
    scans += draw_shapes(arguments.shapes, spacing_mm=config["spacing_mm"], weight=arguments.shapes_weight)
    scans += load_mr(arguments.mr, spacing_mm=config["spacing_mm"]) if arguments.mr else []
    scans = [scan.to(device) for scan in scans]
    print(f"{len(scans)} scans, {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, step {step}",
          flush=True)  # fmt: skip

    def draw(number: int) -> ViewPair:
        generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + number)
        return make_pair(scans, generator, budget=arguments.voxels, count=arguments.points,
                         mr_share=arguments.mr_share)  # fmt: skip

    def encode(image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            code = haar(image) if autoencoder is None else encode_mean(autoencoder, image) * scale_factor
        return code.float()

    def save() -> None:
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(
            {"network": network.state_dict(), "average": average, "optimizer": optimizer.state_dict(),
             "step": step, "seconds": trained},
            temporary,
        )  # fmt: skip
        temporary.replace(checkpoint)

    saved, running = time.monotonic(), {}
    network.train()
    pairs = upcoming_pairs(draw, step * arguments.pairs)
    while step < arguments.steps:
        began = time.monotonic()
        # Linear warm-up, then a cosine over all steps.
        fall = 0.02 + 0.98 * (1 + math.cos(math.pi * step / arguments.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * min(1, (step + 1) / 60) * fall
        generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + 500_000_000 + step)
        optimizer.zero_grad(set_to_none=True)
        waited = 0.0
        for _ in range(arguments.pairs):
            asked = time.monotonic()
            pair = next(pairs)
            waited += time.monotonic() - asked
            loss, figures = train_on(network, pair, config, kept, generator=generator, encode=encode)
            (loss / arguments.pairs).backward()
            for name, value in figures.items():
                running[name] = 0.95 * running.get(name, value) + 0.05 * value
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else average[name].copy_(value)
        step += 1
        trained += time.monotonic() - began
        if step % 10 == 0 or step < 5:
            told = ", ".join(f"{name} {value:.3f}" for name, value in sorted(running.items()))
            spent = time.monotonic() - began
            print(f"step {step}, {trained:.0f} s (this one {spent:.1f} s, of which waiting for views "
                  f"{waited:.1f} s): {told}", flush=True)  # fmt: skip
        if time.monotonic() - saved > SAVE_EVERY_S:
            save()
            saved = time.monotonic()
    save()


if __name__ == "__main__":
    main()
