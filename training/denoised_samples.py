"""Whether a trained network denoises: scans with noise of three timesteps, and the clean scan that it makes of them.

    python training/denoised_samples.py --weights FOLDER --scan CT.nii.gz --scan MR.nii.gz --out denoised.png

Draws a slice of each scan as it is, with noise, and denoised in one step, and prints by how much the error falls. A
network that hands its input on leaves the error as it was; one that ignores it makes the same of every scan.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors.torch import load_file

from contestants import spec_of
from export import weights_metadata
from meddift.io import read_volume
from meddift.models import ModelSpec, haar_forward, haar_inverse, prepare_volume
from meddift.models.schedule import signal_and_noise
from train import DEFAULTS, build_network

TIMESTEPS = (100, 300, 600)


def clean_estimate(
    prediction: str, seen: torch.Tensor, output: torch.Tensor, signal: float, spread: float
) -> torch.Tensor:
    """The clean latent that an output means.

    Args:
        prediction: `sample`, `epsilon` or `v`.
        seen: The noised latent.
        output: Of the network.
        signal: Factor of the clean latent in it.
        spread: Factor of the noise in it.
    """
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (seen - spread * output) / signal
    return signal * seen - spread * output


def denoise(network: torch.nn.Module, spec: ModelSpec, image: np.ndarray, timestep: int) -> tuple[np.ndarray, ...]:
    """(X, Y, Z) prepared image: the noised one, and what the network makes of it in one step."""
    latent = torch.from_numpy(haar_forward(image))[None]
    signal, spread = signal_and_noise(spec.schedule, timestep)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(timestep))
    seen = signal * latent + spread * noise
    with torch.inference_mode():
        output = network(seen, torch.tensor([timestep]))
        clean = clean_estimate(spec.schedule.prediction, seen, output, signal, spread)
    return haar_inverse((seen / signal)[0].numpy()), haar_inverse(clean[0].numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="exported weights")
    parser.add_argument("--scan", type=Path, action="append", required=True, help="repeat for several")
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    arguments = parser.parse_args()
    spec = spec_of(arguments.weights)
    config = {**DEFAULTS, **json.loads(weights_metadata(arguments.weights).get("config", "{}"))}
    network = build_network(config).eval()
    parts = [load_file(part) for part in sorted(arguments.weights.glob("unet-*.safetensors"))]
    network.load_state_dict({name: value.float() for part in parts for name, value in part.items()})

    figure = Figure(figsize=(2.2 * (1 + 2 * len(TIMESTEPS)), 2.4 * len(arguments.scan)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(arguments.scan), 1 + 2 * len(TIMESTEPS), squeeze=False)
    print("| scan | timestep | error with noise | denoised | share left |\n|---|---|---|---|---|")
    for row, path in zip(axes, arguments.scan, strict=True):
        image = prepare_volume(read_volume(path), spec).data
        shown = {"as it is": image}
        for timestep in TIMESTEPS:
            noised, clean = denoise(network, spec, image, timestep)
            shown |= {f"noise, t = {timestep}": noised, f"denoised, t = {timestep}": clean}
            before, after = (float(np.sqrt(np.mean((x - image) ** 2))) for x in (noised, clean))
            print(f"| {path.name} | {timestep} | {before:.3f} | {after:.3f} | {100 * after / before:.0f} % |")
        for place, (title, values) in zip(row, shown.items(), strict=True):
            place.imshow(values[:, :, values.shape[2] // 2].T, cmap="gray", vmin=0, vmax=1, origin="lower")
            place.set_title(title, fontsize=8)
            place.set_axis_off()
    figure.savefig(arguments.out, dpi=65)


if __name__ == "__main__":
    main()
