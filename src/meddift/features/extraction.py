"""From a scan to its pyramid: prepare, encode, add noise, read the decoder, average; and MIND beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from meddift.errors import ModelError, OptionsError
from meddift.features.code import code_digest, installed_version
from meddift.features.mind import mind_level
from meddift.features.pyramid import Level, Pyramid
from meddift.geometry import box_within
from meddift.models import find_spec, prepare_volume
from meddift.system.progress import Progress, silent
from meddift.volume import DeviceVolume, Volume

if TYPE_CHECKING:
    from torch import Tensor

    from meddift.models import DiffusionModel, ModelSpec

#: Name of the hand-made level, see `mind_level`. All other levels come from the network.
MIND = "mind"


@dataclass(frozen=True)
class ExtractionOptions:
    """What is read from a scan, and how.

    Attributes:
        timestep: How much noise the network is told to expect, in the model's own schedule.
        levels: Names of the model's levels, and "mind" for the hand-made one.
        noise_samples: Number of noise draws; their features are averaged. 0 adds no noise.
        latent: The mean of the autoencoder's posterior, or one sample of it.
        seed: Decides all draws.
        spacing_source: Which voxel size the network is told: that of the grid it sees, or that of the scan.
        shared_noise: Whether all scans see the same draws. Equal noise at an equal index pulls answers towards that
            index, so every scan has draws of its own unless asked otherwise.
        part: "scan", or "body": of a CT only the box around the patient, as `prepare_volume` finds it.
        numbers: "float32", or "float16": features are rounded to what float16 holds, and take half the space on disk.

    Raises:
        OptionsError: if a value makes no sense.
    """

    timestep: int = 20
    levels: tuple[str, ...] = ("up0", "up1", "up2", "up3", MIND)
    noise_samples: int = 1
    latent: Literal["mean", "sample"] = "mean"
    seed: int = 0
    spacing_source: Literal["network", "original"] = "network"
    shared_noise: bool = False
    part: Literal["scan", "body"] = "scan"
    numbers: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        """Validate."""
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise OptionsError(f"levels must be one or more different names, got {self.levels}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise OptionsError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("timestep", "noise_samples", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < 0:
                raise OptionsError(f"{name} must be an integer of at least 0, got {value!r}")
            object.__setattr__(self, name, int(value))

    @classmethod
    def for_model(cls, spec: ModelSpec, *, seed: int = 0) -> Self:
        """What works best with a model, as its specification says."""
        defaults = spec.defaults
        return cls(
            timestep=defaults.timestep,
            levels=(*defaults.levels, *defaults.extra_levels),
            noise_samples=defaults.noise_samples,
            spacing_source=spec.conditioning.spacing,
            seed=seed,
        )

    @property
    def network_levels(self) -> tuple[str, ...]:
        """The levels that need the network."""
        return tuple(name for name in self.levels if name != MIND)

    @property
    def draws(self) -> bool:
        """Whether anything random takes part."""
        return bool(self.network_levels) and (self.noise_samples > 0 or self.latent == "sample")

    def digest(self) -> str:
        """sha256 of all options, as 64 hexadecimal digits; the order of levels does not matter."""
        parts = {**asdict(self), "levels": sorted(self.levels)}
        return _sha256(parts)

    def seed_for(self, draw: str, scan: str) -> int:
        """The seed of one draw: of (seed, draw), and of the scan too unless the noise is shared.

        Args:
            draw: "latent", or "noise 0", "noise 1", ...
            scan: Digest of the prepared scan: the same however the scan was stored.
        """
        parts = [self.seed, draw] if self.shared_noise else [self.seed, draw, scan]
        # 32 bits: what every generator of random numbers accepts.
        return int(_sha256(parts)[:8], 16)


_CHOICES: dict[str, tuple[str, ...]] = {
    "latent": ("mean", "sample"),
    "spacing_source": ("network", "original"),
    "part": ("scan", "body"),
    "numbers": ("float32", "float16"),
}


def pyramid_key(
    scan: str,
    options: ExtractionOptions,
    spec: ModelSpec,
    *,
    modality: str = "",
    weights: str = "",
    precision: str = "float32",
    device: str = "cpu",
) -> str:
    """Digest of everything that decides what `extract_pyramid` returns, as 64 hexadecimal digits.

    Args:
        scan: Digest of the scan.
        options: What is read, and how.
        spec: Whose rules prepare the scan.
        modality: What the scan is said to be, which decides how its intensities are prepared.
        weights: sha256 of the network's weights.
        precision: In which the network computes.
        device: Where it computes: "cpu", "cuda", "cuda:N" or "mps"; which one of several cards does not count.
    """
    decides: dict[str, Any] = {
        "scan": scan,
        "modality": modality,
        "spec": spec.digest(),
        "options": options.digest(),
        "code": code_digest("features", "models", "geometry"),
        "torch": installed_version("torch"),
    }
    if options.network_levels:
        network = {"weights": weights, "precision": precision, "device": device.split(":")[0]}
        decides |= {**network, "monai": installed_version("monai")}
    return _sha256(decides)


def extract_pyramid(
    volume: Volume,
    model: DiffusionModel | None,
    options: ExtractionOptions,
    *,
    spec: ModelSpec | None = None,
    digest: str | None = None,
    spare: bool = False,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Pyramid:
    """Compute the feature maps of one scan.

    Levels of the network cover its whole grid, padding included; the `mind` level covers what is encoded, the scan
    or the patient in it.

    Args:
        volume: The scan, (X, Y, Z), any orientation.
        model: The network; None where only the `mind` level is wanted.
        options: What is read, and how.
        spec: Without a model: whose intensity and grid rules prepare the scan; None = those of `builtin` (CT).
        digest: What `pyramid_key` says of all this, where the caller has asked it already.
        spare: Whether to keep as little memory as possible: the same numbers in somewhat more time.
        device: Where all but the network is computed, and where the levels stay: "cpu" or "cuda:N".
        on_progress: Called as work goes on.

    Returns:
        Pyramid, coarse to fine. Its digest is that of `pyramid_key`.

    Raises:
        OptionsError: if a level needs a network and there is none, or a level or timestep is not the model's.
        ModelError: if the features hold NaN or infinity.
        ImageError: if the scan cannot be prepared.
    """
    if options.network_levels and model is None:
        raise OptionsError(f"levels {', '.join(options.network_levels)} need a model; only {MIND!r} does without")
    report = on_progress or silent
    steps = 2 + (1 + max(1, options.noise_samples) if options.network_levels else 0) + (MIND in options.levels)
    report("preparing the scan", 0.0)
    rules = _specification(model, spec)
    body = options.part == "body"
    prepared: Volume = (
        model.prepare(volume, body=body)
        if model is not None
        else prepare_volume(volume, rules, body=body, device=device)
    )
    levels: list[Level] = []
    if model is not None and options.network_levels:

        def network_report(text: str, done: int) -> None:
            report(text, (1 + done) / steps)

        levels += _network_levels(volume, prepared, model, options, spare, device, network_report)
    if MIND in options.levels:
        report("computing MIND", (steps - 2) / steps)
        levels.append(mind_level(prepared.cropped(*box_within(prepared.grid, volume.grid)), name=MIND))
    _check_finite(levels)
    if options.numbers == "float16":
        levels = [level.rounded() for level in levels]
    # Of levels of the same spacing, the network's come first, in the order in which it makes them.
    levels.sort(key=lambda level: -round(level.grid.voxel_volume, 6))
    made_by = _identity(model) if options.network_levels else {}
    pyramid = Pyramid(
        tuple(levels),
        image_grid=volume.grid,
        network_grid=prepared.grid,
        digest=digest or pyramid_key(volume.digest(), options, rules, modality=volume.modality, **made_by),
        provenance={
            "meddift": installed_version("meddift"),
            "model": rules.name,
            **made_by,
            "options": {**asdict(options), "levels": list(options.levels)},
        },
    )
    # Whitening asks for them in every later run.
    pyramid = pyramid.with_moments()
    report("done", 1.0)
    return pyramid


def _network_levels(
    volume: Volume,
    prepared: Volume,
    model: DiffusionModel,
    options: ExtractionOptions,
    spare: bool,
    device: str,
    report: Callable[[str, int], None],
) -> list[Level]:
    """Encode once, run the decoder for each draw, and average."""
    report("encoding the scan", 0)
    scan = prepared.digest() if options.draws else ""
    latent = model.encode(prepared, latent=options.latent, seed=options.seed_for("latent", scan), spare=spare)
    spacing = volume.reoriented("RAS").grid.spacing if options.spacing_source == "original" else None
    seeds: list[int | None] = [options.seed_for(f"noise {k}", scan) for k in range(options.noise_samples)] or [None]
    order = [name for name in model.spec.levels if name in options.network_levels]
    order += [
        name for name in options.network_levels if name not in order
    ]  # the model itself says that they are not its
    total: dict[str, Tensor] = {}
    grids = {}
    for k, seed in enumerate(seeds):
        report(f"reading features, draw {k + 1} of {len(seeds)}", 1 + k)
        maps = model.levels(latent, timestep=options.timestep, levels=order, noise_seed=seed, spacing=spacing)
        for name, features in maps.items():
            data = DeviceVolume.sent(features, device).tensor
            grids[name] = features.grid
            total[name] = total[name] + data if name in total else data
    return [Level(name, total[name].movedim(0, -1) / len(seeds), grids[name]) for name in order]


def _check_finite(levels: Sequence[Level]) -> None:
    """Refuse features that would make every comparison NaN."""
    import torch

    # The least and the largest tell: NaN is passed on, and infinity is one of them.
    ends = torch.stack([torch.stack(torch.aminmax(level.tensor)).double() for level in levels]).tolist()
    for level, (least, largest) in zip(levels, ends, strict=True):
        if not (math.isfinite(least) and math.isfinite(largest)):
            raise ModelError(
                f"level {level.name!r} holds NaN or infinity; the weights may be damaged, or the precision too low: "
                "try precision float32"
            )


def _specification(model: DiffusionModel | None, spec: ModelSpec | None) -> ModelSpec:
    """Whose rules prepare the scan."""
    if model is not None:
        return model.spec
    return spec if spec is not None else find_spec("builtin")


def _identity(model: DiffusionModel | None) -> dict[str, str]:
    """What of a model decides features besides its specification."""
    if model is None:
        return {}
    return {"weights": model.weights_hash, "precision": str(model.precision), "device": str(model.device)}


def _sha256(content: Any) -> str:
    """sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
