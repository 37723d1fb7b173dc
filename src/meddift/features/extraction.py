"""Feature extraction: encode a scan, add noise, read the network's decoder and average; and compute MIND."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from meddift.errors import ModelError, OptionsError
from meddift.features.code import code_digest, installed_version
from meddift.features.mind import mind_level
from meddift.features.network_levels import network_levels
from meddift.features.pyramid import Level, Pyramid
from meddift.geometry import box_within
from meddift.models import find_spec, prepare_volume
from meddift.system.progress import Progress, silent
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.models import DiffusionModel, ModelSpec

#: Name of the level of MIND-SSC descriptors, see `mind_level`. All other levels come from the network.
MIND = "mind"


@dataclass(frozen=True)
class ExtractionOptions:
    """The options of feature extraction.

    Attributes:
        timestep: Timestep in the model's own schedule at which features are read.
        levels: Names of the model's levels, and "mind" for MIND-SSC.
        noise_samples: Number of noise samples over which features are averaged; 0 = no noise is added.
        latent: Latent of the autoencoder: the "mean" of its posterior, or one "sample".
        seed: Seed of all random numbers.
        spacing_source: Voxel size that is passed to the network: that of its input ("network") or of the scan
            ("original").
        shared_noise: Whether all scans are encoded with the same noise. Equal noise at equal voxel indices biases
            matches towards equal indices, so by default every scan has its own.
        part: "scan", or "body": of a CT only the bounding box of the patient, as `prepare_volume` finds it.
        numbers: "float32", or "float16": features are rounded to float16, half the size in memory and on disk.

    Raises:
        OptionsError: if a value is invalid.
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
        """The defaults of a model's specification."""
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
        """Names of the levels that need the network."""
        return tuple(name for name in self.levels if name != MIND)

    @property
    def draws(self) -> bool:
        """Whether extraction uses random numbers."""
        return bool(self.network_levels) and (self.noise_samples > 0 or self.latent == "sample")

    def digest(self) -> str:
        """sha256 of all options, 64 hexadecimal digits; independent of the order of levels."""
        parts = {**asdict(self), "levels": sorted(self.levels)}
        return _sha256(parts)

    def seed_for(self, draw: str, scan: str) -> int:
        """The seed of one random draw: depends on `seed` and `draw`, and on the scan unless noise is shared.

        Args:
            draw: "latent", or "noise 0", "noise 1", ...
            scan: Digest of the prepared scan, which does not depend on how the scan was stored.

        Returns:
            A seed of 32 bits.
        """
        parts = [self.seed, draw] if self.shared_noise else [self.seed, draw, scan]
        # All random number generators accept 32 bits.
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
    """Digest of everything that the result of `extract_pyramid` depends on, 64 hexadecimal digits.

    Args:
        scan: Digest of the scan.
        options: The options of extraction.
        spec: The specification whose intensity and grid rules apply.
        modality: Modality of the scan, as in `Volume.modality`; it decides the intensity rule.
        weights: sha256 of the network's weights.
        precision: Precision of the network.
        device: Device of the network: "cpu", "cuda", "cuda:N" or "mps"; the number N does not matter.
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
        decides |= {"weights": weights, "precision": precision, "device": device.split(":")[0]}
        if spec.latent.kind == "autoencoder":
            decides["monai"] = installed_version("monai")
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

    Levels of the network cover its whole grid including padding; the "mind" level covers the scan without padding (or
    the box around the patient, see `ExtractionOptions.part`).

    Args:
        volume: The scan, (X, Y, Z), any orientation.
        model: The network; None if only the "mind" level is wanted.
        options: The options of extraction.
        spec: Specification whose intensity and grid rules apply if there is no model; None = that of `builtin`.
        digest: Result of `pyramid_key` if the caller has computed it; None = compute it.
        spare: Whether to use the slower mode that saves memory; the features are the same.
        device: Device of everything outside the network, on which the levels stay: "cpu" or "cuda:N".
        on_progress: Called with stage and fraction while work goes on.

    Returns:
        The levels, coarse to fine; the digest is that of `pyramid_key`.

    Raises:
        OptionsError: if a level needs a network and there is none, or the model lacks a level or timestep.
        ModelError: if the features hold NaN or infinity.
        ImageError: if the scan cannot be prepared.
    """
    return extract_pyramids(
        [volume],
        model,
        options,
        spec=spec,
        digests=[digest],
        spare=spare,
        device=device,
        on_progress=on_progress,
    )[0]


def extract_pyramids(
    volumes: Sequence[Volume],
    model: DiffusionModel | None,
    options: ExtractionOptions,
    *,
    spec: ModelSpec | None = None,
    digests: Sequence[str | None],
    spare: bool = False,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> list[Pyramid]:
    """Compute the feature maps of scans; those whose prepared scans have equal shapes go through the U-Net together.

    Each scan gets the features that it would get alone, up to rounding. Arguments and errors as for `extract_pyramid`.

    Args:
        volumes: One or more scans.
        model: As for `extract_pyramid`.
        options: As for `extract_pyramid`.
        spec: As for `extract_pyramid`.
        digests: For each scan the result of `pyramid_key` if the caller has computed it; None = compute it.
        spare: As for `extract_pyramid`.
        device: As for `extract_pyramid`.
        on_progress: As for `extract_pyramid`.

    Returns:
        The features of each scan.
    """
    if options.network_levels and model is None:
        raise OptionsError(f"levels {', '.join(options.network_levels)} need a model; only {MIND!r} does without")
    report = on_progress or silent
    steps = 2 + (1 + max(1, options.noise_samples) if options.network_levels else 0) + (MIND in options.levels)
    report("preparing the scan", 0.0)
    rules = _specification(model, spec)
    body = options.part == "body"
    prepared: list[Volume] = [
        model.prepare(volume, body=body)
        if model is not None
        else prepare_volume(volume, rules, body=body, device=device)
        for volume in volumes
    ]
    levels: list[list[Level]] = [[] for _ in volumes]
    if model is not None and options.network_levels:

        def network_report(text: str, done: int) -> None:
            report(text, (1 + done) / steps)

        levels = network_levels(volumes, prepared, model, options, spare, device, network_report)
    if MIND in options.levels:
        report("computing MIND", (steps - 2) / steps)
        for mine, volume, scan in zip(levels, volumes, prepared, strict=True):
            seen = scan.cropped(*box_within(scan.grid, volume.grid))
            mine.append(mind_level(seen, name=MIND, numbers=options.numbers))
    made_by = _identity(model) if options.network_levels else {}
    provenance = {
        "meddift": installed_version("meddift"),
        "model": rules.name,
        **made_by,
        "options": {**asdict(options), "levels": list(options.levels)},
    }
    pyramids = []
    for mine, volume, scan, digest in zip(levels, volumes, prepared, digests, strict=True):
        key = digest or pyramid_key(volume.digest(), options, rules, modality=volume.modality, **made_by)
        pyramid = Pyramid(_in_order(mine, options), volume.grid, scan.grid, key, provenance)
        # The moments of the levels that are whitened by default are needed in every later run.
        whitened = pyramid.names if rules.defaults.whiten else [name for name in pyramid.names if name == MIND]
        pyramids.append(pyramid.with_moments(whitened))
    report("done", 1.0)
    return pyramids


def _in_order(levels: list[Level], options: ExtractionOptions) -> tuple[Level, ...]:
    """Finite levels in the type that is asked for, coarse to fine; the list is changed."""
    ends = _finite_ends(levels)
    if options.numbers == "float16":
        for number, reach in enumerate(ends):  # one after the other, so that each frees its float32 values
            levels[number] = _rounded(levels[number], reach)
    # Among levels of equal spacing those of the network come first, in their own order.
    return tuple(sorted(levels, key=lambda level: -round(level.grid.voxel_volume, 6)))


def _finite_ends(levels: Sequence[Level]) -> list[float]:
    """Largest magnitude of the features of each level.

    Raises:
        ModelError: if features hold NaN or infinity, which would make every comparison NaN.
    """
    import torch

    # Minimum and maximum suffice: NaN propagates, and an infinity is one of them.
    ends = torch.stack([torch.stack(torch.aminmax(level.tensor)).double() for level in levels]).tolist()
    for level, (least, largest) in zip(levels, ends, strict=True):
        if not (math.isfinite(least) and math.isfinite(largest)):
            raise ModelError(
                f"level {level.name!r} holds NaN or infinity; the weights may be damaged, or the precision too low: "
                "try precision float32"
            )
    return [max(-least, largest) for least, largest in ends]


def _rounded(level: Level, largest: float) -> Level:
    """A level with its features rounded to float16; unchanged if they exceed the range of float16.

    The relative error is at most 2^-11 down to 6e-5; smaller values are rounded to multiples of 6e-8.

    Args:
        level: The level.
        largest: Largest magnitude of its features.
    """
    import torch

    if largest > torch.finfo(torch.float16).max:
        return level
    with torch.inference_mode():
        return replace(level, values=level.tensor.half())


def _specification(model: DiffusionModel | None, spec: ModelSpec | None) -> ModelSpec:
    """The specification whose intensity and grid rules apply."""
    if model is not None:
        return model.spec
    return spec if spec is not None else find_spec("builtin")


def _identity(model: DiffusionModel | None) -> dict[str, str]:
    """Everything about a model besides its specification that features depend on."""
    if model is None:
        return {}
    return {"weights": model.weights_hash, "precision": str(model.precision), "device": str(model.device)}


def _sha256(content: Any) -> str:
    """sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
