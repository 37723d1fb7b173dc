"""What is compared: descriptors of a trained network, of a random one, and hand-made ones, all as pyramids."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoencoder import NETWORK, load_autoencoder
from export import weights_metadata, write_parts
from meddift.features import ExtractionOptions, Level, Pyramid, extract_pyramid, whiten_pair
from meddift.models import LatentStage, ModelSpec, WeightFile, find_spec, load_model, prepare_volume
from meddift.models.weights import locate_weights
from meddift.pipeline import Matcher
from meddift.volume import Volume
from train import DEFAULTS, ON_AUTOENCODER, build_network

UP = ("up0", "up1", "up2", "up3")
MIND = "mind"
RANDOM = "random weights"
#: No descriptor at all: the voxel closest to the truth, which is the least error that whole voxels can have.
CLOSEST = "the closest voxel"
#: What stands behind the name of a network whose levels are compared along with the hand-made one, as its
#: specification says.
AS_USED = " as used, with MIND"
#: Edge of an intensity patch in voxels of the network's grid, and the highest total order of cosines kept of it.
PATCH_VOXELS, PATCH_ORDER = 5, 4


@dataclass(frozen=True)
class Contestant:
    """One way of describing points.

    Attributes:
        name: As it stands in the table.
        source: Whose pyramid it takes: a label of weights, `RANDOM`, "patches" or "autoencoder"; or `CLOSEST`.
        levels: Which levels of it; None = all.
        whitened: Which of them are whitened by the statistics of the pair.
        end_to_end: Whether the `default` preset matches the points, instead of the search alone.
    """

    name: str
    source: str
    levels: tuple[str, ...]
    whitened: tuple[str, ...] = ()
    end_to_end: bool = False


def list_contestants(
    labels: list[str], spec: ModelSpec, *, quick: bool, autoencoder: bool = False
) -> list[Contestant]:
    """Everything that is compared: the first network as it is used comes first; and the `default` preset of each."""
    own = spec.defaults.levels
    trained = own if spec.defaults.whiten else ()
    found: list[Contestant] = []
    for label in labels:
        found += [
            Contestant(f"{label}{AS_USED}", label, (*own, MIND), (*trained, MIND)),
            Contestant(f"{label}, learned levels alone", label, own, trained),
            Contestant(f"{label}: default preset", label, (*own, MIND), end_to_end=True),
        ]
    found += [
        Contestant("MIND-SSC, whitened", RANDOM, (MIND,), (MIND,)),
        Contestant("random weights, raw", RANDOM, own),
        Contestant("intensity patches", "patches", ("patches",)),
    ]
    if autoencoder:
        encoder = ("enc1", "enc0")
        found.append(Contestant("autoencoder's encoder, whitened", "autoencoder", encoder, encoder))
    found.append(Contestant(CLOSEST, CLOSEST, ()))
    if not quick:
        found += [
            Contestant("MIND-SSC: default preset", RANDOM, (MIND,), (MIND,), end_to_end=True),
            Contestant("random weights: default preset", RANDOM, (*own, MIND), own, end_to_end=True),
        ]
    return found


def write_random_weights(spec: ModelSpec, out: Path, *, seed: int) -> Path:
    """A network as the trainer initialises it, through the same files as a trained one; kept if it is there.

    MONAI sets the last convolution of each residual block to zero, and so does the trainer: before training, a
    block hands on its input through its skip connection. Nothing is randomised beyond that.
    """
    if any(out.glob("unet-*.safetensors")):  # another file of the same numbers would have another hash
        return out
    torch.manual_seed(seed)
    unet = spec.unet
    config = {
        "latent_channels": unet["in_channels"],
        "channels": list(unet["num_channels"]),
        "attention": list(unet["attention_levels"]),
        "head_channels": list(unet["num_head_channels"]),
        "residual_blocks": unet["num_res_blocks"],
        "groups": unet["norm_num_groups"],
        "normalisation": spec.normalisation,
    }
    write_parts(build_network(config).state_dict(), out, metadata={"steps": "0", "config": json.dumps(config)})
    return out


def spec_of(folder: Path) -> ModelSpec:
    """The built-in specification with the network and spacing that weights were trained with."""
    spec = find_spec("builtin")
    if not (folder / "autoencoder.json").exists():
        told = {**DEFAULTS, **json.loads(weights_metadata(folder).get("config", "{}"))}
        unet = {
            **spec.unet,
            "num_channels": told["channels"],
            "attention_levels": told["attention"],
            "num_head_channels": told["head_channels"],
            "num_res_blocks": told["residual_blocks"],
        }
        levels = UP[: len(told["channels"])]
        return replace(
            spec, unet=unet, levels=levels, defaults=replace(spec.defaults, levels=levels),
            grid=replace(spec.grid, spacing_mm=told["spacing_mm"]), normalisation=told["normalisation"],
            schedule=replace(spec.schedule, prediction=told["prediction"]), other_scans="",
        )  # fmt: skip
    settings = json.loads((folder / "autoencoder.json").read_text())
    latent = LatentStage("autoencoder", 4, NETWORK["latent_channels"], settings["scale_factor"], settings["network"])
    unet = {
        **spec.unet,
        "in_channels": NETWORK["latent_channels"],
        "out_channels": NETWORK["latent_channels"],
        "num_channels": ON_AUTOENCODER["channels"],
        "attention_levels": ON_AUTOENCODER["attention"],
        "num_head_channels": ON_AUTOENCODER["head_channels"],
    }
    files = (*spec.weights.files, WeightFile("autoencoder", "autoencoder.safetensors"))
    return replace(
        spec, name="autoencoder", latent=latent, other_scans="", unet=unet, levels=UP[:3],
        weights=replace(spec.weights, files=files), defaults=replace(spec.defaults, levels=UP[:3]),
    )  # fmt: skip


class Describer:
    """Computes the pyramids of scans, each once, and remembers those of the scans at hand.

    Args:
        spec: The model whose grid and defaults all have.
        folders: Label -> folder of weights; has to hold `RANDOM`. Each may be a network of its own, see `spec_of`.
        autoencoder: Folder of `autoencoder.py`, where its features are compared as well.
        precision: In which networks compute.
    """

    def __init__(
        self, spec: ModelSpec, folders: dict[str, Path], *, autoencoder: Path | None = None, precision: str = "float32"
    ) -> None:
        self.spec, self.autoencoder, self.precision = spec, autoencoder, precision
        self.folders = folders
        self.specs = {label: spec_of(folder) for label, folder in folders.items()}
        self.hashes = {label: locate_weights(spec, folder).digest() for label, folder in folders.items()}
        self._models: dict[str, Any] = {}
        self._kept: dict[tuple[str, int], Pyramid] = {}
        self._scans: list[Volume] = []
        self._options = replace(ExtractionOptions.for_model(spec), levels=(*spec.defaults.levels, MIND))

    def forget_all_but(self, *scans: Volume) -> None:
        """Let go of features of all other scans."""
        kept = {id(scan) for scan in scans}
        self._scans = list(scans)
        self._kept = {key: value for key, value in self._kept.items() if key[1] in kept}

    def pyramid(self, source: str, scan: Volume) -> Pyramid:
        """All levels of a source; MIND is computed once, whatever network it stands beside."""
        key = (source, id(scan))
        if key not in self._kept:
            if not any(scan is other for other in self._scans):
                self._scans.append(scan)  # an id means something only as long as its scan lives
            self._kept[key] = self._describe(source, scan)
        return self._kept[key]

    def pair(self, contestant: Contestant, fixed: Volume, moving: Volume) -> tuple[Pyramid, Pyramid]:
        """The two pyramids that a contestant compares."""
        chosen = [self.pyramid(contestant.source, scan).select(contestant.levels) for scan in (fixed, moving)]
        if contestant.whitened:
            chosen = list(whiten_pair(*chosen, levels=contestant.whitened))
        weights = self.spec.defaults.level_weights
        return chosen[0].weighted(weights), chosen[1].weighted(weights)

    def matcher(self, contestant: Contestant, *, seed: int) -> Matcher:
        """The `default` preset, end to end, on features computed here."""
        describer, source = self, contestant.source

        class Remembering(Matcher):
            def pyramid(self, volume: Volume, **_: Any) -> Pyramid:
                return describer.pyramid(source, volume).select(self.extraction.levels)

        whiten = True if source == RANDOM else None
        return Remembering(
            self.specs[source], weights=self.folders[source], device="cpu", store=False, seed=seed,
            levels=contestant.levels, whiten=whiten,
        )  # fmt: skip

    def _describe(self, source: str, scan: Volume) -> Pyramid:
        if source in ("patches", "autoencoder"):
            prepared = prepare_volume(scan, self.spec)
            if source == "autoencoder":
                assert self.autoencoder is not None
                levels = encoder_levels(self.autoencoder, prepared)
            else:
                levels = (patch_level(prepared),)
            return Pyramid(levels, scan.grid, prepared.grid, digest=f"{source} {scan.digest()}")
        if source not in self._models:
            self._models[source] = load_model(
                self.specs[source], weights=self.folders[source], precision=self.precision  # type: ignore[arg-type]
            )  # fmt: skip
        model = self._models[source]
        mind = next((p.level(MIND) for (_, i), p in self._kept.items() if i == id(scan) and MIND in p.names), None)
        if mind is None:
            return extract_pyramid(scan, model, self._options)
        networks = extract_pyramid(scan, model, replace(self._options, levels=self._options.network_levels))
        return replace(networks, levels=(*networks.levels, mind), digest=f"{networks.digest} and mind")


def patch_level(prepared: Volume) -> Level:
    """Raw intensities around each voxel: a cube of 5 voxels a side without its mean.

    Held as its cosines of total order 1 to 4, 34 of 124: an orthonormal basis, so that the cosine of two patches
    stays what it was but for their finest noise, in a quarter of the memory.
    """
    from scipy import ndimage

    n = PATCH_VOXELS
    place = np.arange(n)
    basis = [np.cos(math.pi * (place + 0.5) * k / n) * math.sqrt((1 if k == 0 else 2) / n) for k in range(n)]
    data = prepared.data.astype(np.float32)
    orders = [
        (i, j, k)
        for i in range(n)
        for j in range(n)
        for k in range(n)
        if 0 < i + j + k <= PATCH_ORDER
    ]  # fmt: skip
    features = np.empty((*data.shape, len(orders)), dtype=np.float32)
    along: dict[tuple[int, ...], np.ndarray] = {(): data}
    for channel, order in enumerate(orders):
        for length in (1, 2, 3):
            if order[:length] not in along:
                for old in [key for key in along if len(key) >= length]:
                    del along[old]
                along[order[:length]] = ndimage.correlate1d(
                    along[order[: length - 1]], basis[order[length - 1]], axis=length - 1, mode="nearest"
                )
        features[..., channel] = along[order]
    return Level("patches", features, prepared.grid)


def encoder_levels(autoencoder: Path, prepared: Volume) -> tuple[Level, ...]:
    """Activations of the encoder before each of its two downsamplings: `enc1` on 4 mm, `enc0` on 2 mm."""
    network, _ = load_autoencoder(autoencoder)
    x = torch.from_numpy(np.ascontiguousarray(prepared.data, dtype=np.float32))[None, None]
    found = []
    with torch.inference_mode():
        for number, block in enumerate(network.encoder.blocks[:4]):
            x = block(x)
            if number in (1, 3):
                found.append(x[0].movedim(0, -1).contiguous().numpy())
    return (Level("enc1", found[1], prepared.grid.downsampled(2)), Level("enc0", found[0], prepared.grid))
