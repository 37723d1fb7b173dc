"""Levels of the network for one or more scans: encode, add noise, read the decoder, average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from meddift.features.pyramid import Level
from meddift.volume import DeviceVolume, Volume

if TYPE_CHECKING:
    from torch import Tensor

    from meddift.features.extraction import ExtractionOptions
    from meddift.geometry import Grid
    from meddift.models import DiffusionModel


def network_levels(
    volumes: Sequence[Volume],
    prepared: Sequence[Volume],
    model: DiffusionModel,
    options: ExtractionOptions,
    spare: bool,
    device: str,
    report: Callable[[str, int], None],
) -> list[list[Level]]:
    """Levels of the network for each scan: encode once, run the U-Net for each noise sample, and average.

    Args:
        volumes: The scans.
        prepared: The same scans as the network takes them; those of equal shape go through the U-Net in one batch.
        model: The network.
        options: The options of extraction.
        spare: Whether to use the slower mode that saves memory.
        device: Device on which the levels stay: "cpu" or "cuda:N".
        report: Called with a stage and the number of stages that are done.

    Returns:
        For each scan its levels in the order of the model, float32.
    """
    report("encoding the scan", 0)
    scans = [scan.digest() if options.draws else "" for scan in prepared]
    latents = [
        model.encode(scan, latent=options.latent, seed=options.seed_for("latent", digest), spare=spare)
        for scan, digest in zip(prepared, scans, strict=True)
    ]
    original = options.spacing_source == "original"
    spacings = [volume.reoriented("RAS").grid.spacing if original else None for volume in volumes]
    order = [name for name in model.spec.levels if name in options.network_levels]
    order += [
        name for name in options.network_levels if name not in order
    ]  # the model raises for levels that it does not have
    draws = max(1, options.noise_samples)
    totals: list[dict[str, Tensor]] = [{} for _ in volumes]
    grids: list[dict[str, Grid]] = [{} for _ in volumes]
    together = len({latent.grid.shape for latent in latents}) == 1
    batches = [range(len(latents))] if together else [range(i, i + 1) for i in range(len(latents))]
    for k in range(draws):
        report(f"reading features, draw {k + 1} of {draws}", 1 + k)
        seeds = [options.seed_for(f"noise {k}", digest) if options.noise_samples else None for digest in scans]
        for batch in batches:
            maps = model.levels_of(
                [latents[i] for i in batch],
                timestep=options.timestep,
                levels=order,
                noise_seeds=[seeds[i] for i in batch],
                spacings=[spacings[i] for i in batch],
            )
            for i, mine in zip(batch, maps, strict=True):
                for name, features in mine.items():
                    data = DeviceVolume.sent(features, device).tensor
                    grids[i][name] = features.grid
                    totals[i][name] = totals[i][name] + data if name in totals[i] else data
    if draws > 1:
        for total in totals:
            for name in order:
                total[name] /= draws
    # A level may be laid out anew: its sum is freed before that of the next one.
    return [
        [Level(name, total.pop(name).movedim(0, -1), mine[name]) for name in order]
        for total, mine in zip(totals, grids, strict=True)
    ]
