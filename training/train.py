"""Train the built-in model: denoising and dense correspondence on one U-Net, on CPU or GPU.

    python training/train.py --scans FOLDER --run training/runs/first --steps 2000

Stops after `--steps` in all; run again with the same `--run` to go on from the last checkpoint. Samples depend on the
seed and the number of the step alone.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from autoencoder import NETWORK, encode_mean, load_autoencoder
from contrast import generator_on, send
from kept_scans import Gathering, gather_or_take
from meddift.models import find_spec, haar_matrix
from meddift.models.voxel_norm import normalise_by_voxel
from meddift.models.weights import locate_weights
from objectives import correspondence
from rendering import Batch, Recipe, rendered


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


#: How many pairs with noise have it at any timestep and not at a low one, beside correspondence.
ANY_NOISE = 0.4


def haar(images: torch.Tensor) -> torch.Tensor:
    """(B, X, Y, Z) to (B, 8, X/2, Y/2, Z/2) float32, the latents that the package makes, all at once."""
    batch, *shape = images.shape
    pairs = [part for n in shape for part in (n // 2, 2)]
    blocks = images.float().reshape(batch, *pairs).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    matrix = torch.from_numpy(haar_matrix()).float()
    return (blocks @ send(images.device, matrix.T.contiguous())[0]).movedim(-1, 1)


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


#: By name: a value for each row of a batch, and the rows that have it.
Figures = dict[str, tuple[torch.Tensor, list[int]]]


def train_on(
    network: torch.nn.Module, batch: Batch, config: dict, kept: torch.Tensor, *, generator: torch.Generator,
    encode: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, Figures]:  # fmt: skip
    """The loss of a batch, all of its views in one pass, and figures to log. Nothing waits for the device."""
    device = batch.images.device
    pairs = len(batch.modalities)
    latent = encode(batch.images.flatten(0, 1))
    # Without noise, as the package reads features; with noise that leaves correspondence to be seen; or with any.
    noisy = torch.rand(pairs, generator=generator) < config["noise_share"]
    anything = torch.rand(pairs, generator=generator) < (ANY_NOISE if config["correspondence"] else 1.0)
    most = torch.where(~noisy, 50, torch.where(anything, 1000, 150))
    timesteps = (torch.rand(2, pairs, generator=generator) * most).long()
    seen = ~noisy | (timesteps.max(0).values < 60)
    signal, spread, noised, times, counted = send(
        device, kept[timesteps.flatten()].sqrt().reshape(-1, 1, 1, 1, 1),
        (1 - kept[timesteps.flatten()]).sqrt().reshape(-1, 1, 1, 1, 1),
        noisy.repeat(2).float().reshape(-1, 1, 1, 1, 1), timesteps.flatten().float(), seen.float(),
    )  # fmt: skip
    noise = torch.randn(latent.shape, generator=generator_on(device, generator), device=device) * noised
    given = torch.addcmul(signal * latent, spread, noise)
    # Objectives stay in float32: cosines of neighbouring places differ by less than bfloat16 can tell.
    with torch.autocast(device.type, dtype=torch.bfloat16):
        given = given.contiguous(memory_format=torch.channels_last_3d)
        output, levels = read_levels(network, given, times.long())
    wanted = denoising_target(config["prediction"], latent, noise, signal)
    denoising = (output.float() - wanted).square().mean((1, 2, 3, 4))
    loss = denoising.sum() / pairs
    figures = {"denoising": (denoising.detach(), list(range(2 * pairs)))}
    if config["correspondence"]:
        # All pairs, so that shapes stay the same; those that noise hides count nothing.
        matching, extra = correspondence(
            ({name: f[:pairs] for name, f in levels.items()}, {name: f[pairs:] for name, f in levels.items()}),
            batch.points, batch.extra, batch.half_extent, generator=generator,
        )  # fmt: skip
        loss = loss + (matching * counted).sum() / pairs
        for kind in sorted(set(batch.modalities)):
            rows = [i for i, modality in enumerate(batch.modalities) if modality == kind and seen[i]]
            for name, value in (extra | {"matching": matching.detach()}).items():
                if rows:
                    figures[f"{kind.lower()} {name}"] = (value, rows)
    return loss, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder of *.nii.gz")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--mr", type=Path, help="folder of MR patients, PATIENT_CONTRAST.nii.gz")
    parser.add_argument("--mr-share", type=float, default=0.5, help="of the pairs, with --mr")
    parser.add_argument("--steps", type=int, default=2000, help="in all; the learning rate falls towards them")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of training, if that comes first")
    parser.add_argument("--pairs", type=int, default=1, help="of each step")
    parser.add_argument("--contrast-steps", type=int, default=0,
                        help="over which views come to differ in contrast; 0: from the start")  # fmt: skip
    parser.add_argument("--renderers", type=int, default=12 if torch.cuda.is_available() else 1,
                        help="processes that render views")  # fmt: skip
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--noise-share", type=float, default=0.3, help="of pairs with noise, beside correspondence")
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
    parser.add_argument("--kept-scans", type=Path, help="file that holds the scans, read and drawn; made if missing")
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
              "pairs": arguments.pairs, "voxels": arguments.voxels, "learning_rate": arguments.learning_rate,
              "contrast_steps": arguments.contrast_steps,
              "noise_share": 1.0 if arguments.denoising_only else arguments.noise_share}  # fmt: skip
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
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.learning_rate, weight_decay=0.01, fused=True)
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
    shadow, current = list(average.values()), list(network.state_dict().values())
    wanted = Gathering(
        str(arguments.scans.absolute()), str(arguments.mr.absolute()) if arguments.mr else "", config["spacing_mm"],
        arguments.phantoms, arguments.phantom_weight, arguments.shapes, arguments.shapes_weight,
    )  # fmt: skip
    scans = gather_or_take(wanted, arguments.kept_scans)
    print(f"{len(scans)} scans, {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, step {step}",
          flush=True)  # fmt: skip

    def encode(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            if autoencoder is None:
                return haar(images)
            return torch.stack([encode_mean(autoencoder, image) * scale_factor for image in images]).float()

    def save() -> None:
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(
            {"network": network.state_dict(), "average": average, "optimizer": optimizer.state_dict(),
             "step": step, "seconds": trained},
            temporary,
        )  # fmt: skip
        temporary.replace(checkpoint)

    recipe = Recipe(arguments.seed, arguments.voxels, arguments.points, arguments.pairs, arguments.mr_share,
                    arguments.contrast_steps)  # fmt: skip
    network.train()
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with rendered(recipe, scans, first=step, device=device, processes=arguments.renderers) as batches:
        saved, waited, told = time.monotonic(), 0.0, Running()
        while step < arguments.steps and not stop.is_set():
            began = time.monotonic()
            # Linear warm-up, then a cosine over all steps, or over the seconds that there are.
            done = max(step / arguments.steps, trained / arguments.seconds)
            if done >= 1:
                break
            fall = 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = arguments.learning_rate * min(1, (step + 1) / 60) * fall
            generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + 500_000_000 + step)
            optimizer.zero_grad(set_to_none=True)
            try:
                batch = next(batches)
            except RuntimeError:  # who ends a whole group of processes ends those that render as well
                if stop.is_set():
                    break
                raise
            waited += time.monotonic() - began
            loss, figures = train_on(network, batch, config, kept, generator=generator, encode=encode)
            loss.backward()
            told.add(figures)
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.found_inf = (~torch.isfinite(norm)).float()  # then it leaves the weights; nobody waits for it
            optimizer.step()
            decay = min(0.998, (1 + step) / (10 + step))
            torch._foreach_lerp_(shadow, current, 1 - decay)
            step += 1
            trained += time.monotonic() - began
            if step % 10 == 0 or step < 5:
                print(f"step {step}, {trained:.0f} s, of which waiting for views {waited:.1f} s: {told}", flush=True)
            if time.monotonic() - saved > arguments.save_every:
                save()
                saved = time.monotonic()
        save()
    signal.signal(signal.SIGTERM, before)


class Running:
    """Running means of figures, added without waiting for the device and computed when they are shown."""

    def __init__(self) -> None:
        self.means: dict[str, float] = {}
        self.waiting: list[Figures] = []

    def add(self, figures: Figures) -> None:
        """Take the figures of one step."""
        self.waiting.append(figures)

    def __str__(self) -> str:
        """The means, with a memory of some twenty steps."""
        for figures in self.waiting:
            for name, (values, rows) in figures.items():
                value = float(values.cpu()[rows].mean())
                self.means[name] = 0.95 * self.means.get(name, value) + 0.05 * value
        self.waiting = []
        return ", ".join(f"{name} {value:.3f}" for name, value in sorted(self.means.items()))


if __name__ == "__main__":
    main()
