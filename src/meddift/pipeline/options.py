"""`Options`: all options of a match, with two presets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from meddift.errors import OptionsError
from meddift.features import ExtractionOptions
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Transform
from meddift.geometry.inverse import NumericalInverse

if TYPE_CHECKING:
    from meddift.models import ModelSpec

Preset = Literal["default", "paper"]

#: With more points than this, neighbourhoods are aligned at the nodes of a grid (see `align_many`).
MANY = 5_000


@dataclass(frozen=True)
class Options:
    """The options of a match. Where a field is None, the model's specification decides.

    Attributes:
        preset: "default", or "paper", which reproduces the public reference code of MedDIFT.
        timestep: Timestep of the diffusion model at which features are read.
        levels: Names of the levels that are compared, coarse to fine; "mind" is MIND-SSC, the others are decoder
            blocks of the network.
        noise_samples: Number of noise samples over which features are averaged; 0 = no noise is added.
        shared_noise: Whether both scans are encoded with the same noise samples.
        latent: Latent of the autoencoder: the "mean" of its posterior, or one "sample".
        spacing: Voxel size that is passed to the network: that of its input ("network"), or of the scan as stored
            ("original").
        whiten: Whether the network's levels are whitened. "mind" always is, except in the preset "paper".
        prior: Where points are expected: "none" searches the whole scan; "identity" expects the same world position;
            "affine" expects what an affine fitted robustly to matches predicts, corrected by the residuals of matches
            nearby; a transform, or the path of its file, says it directly.
        search_radius_mm: Radius of the search around the expected position, mm; None = 20 with "affine", 35 with any
            other prior.
        search_grid: Voxels on which a search looks: those of the scan ("image") or of the network's input ("network").
        refine: Whether positions are refined between voxels with fine levels and neighbouring points.
        confidence: Whether each point is matched back, which gives the inverse-consistency error.
        seed: Seed of all random numbers.
        modality: Modality of both scans; None = that of their files, or else inferred from their values.

    Raises:
        OptionsError: if a value is invalid.
    """

    preset: Preset = "default"
    timestep: int | None = None
    levels: tuple[str, ...] | None = None
    noise_samples: int | None = None
    shared_noise: bool = False
    latent: Literal["mean", "sample"] = "mean"
    spacing: Literal["network", "original"] | None = None
    whiten: bool | None = None
    prior: Literal["none", "identity", "affine"] | Transform | Path = "affine"
    search_radius_mm: float | None = None
    search_grid: Literal["image", "network"] = "network"
    refine: bool = True
    confidence: bool = True
    seed: int = 0
    modality: Literal["ct", "mr", "other"] | None = None

    def __post_init__(self) -> None:
        """Validate; a prior given as text that is no keyword is the path of a transform file."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise OptionsError(
                    f"{name} must be one of {', '.join(map(str, allowed))}, got {getattr(self, name)!r}"
                )
        if isinstance(self.prior, str) and self.prior not in ("none", "identity", "affine"):
            path = Path(self.prior)
            if not path.exists() and path.name == self.prior and not path.suffix:
                raise OptionsError(
                    f'a prior is "none", "identity", "affine", a transform or its file; there is no {self.prior!r}'
                )
            object.__setattr__(self, "prior", path)
        if not isinstance(self.prior, str | Path | Transform):
            raise OptionsError(f'a prior is "none", "identity", "affine", a transform or its file, got {self.prior!r}')
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))
            if not self.levels:
                raise OptionsError("at least one level is needed")
        radius = self.search_radius_mm
        if radius is not None and not (math.isfinite(radius) and radius > 0):
            raise OptionsError(f"a search radius must be more than 0 mm, got {radius}")
        if radius is not None and self.prior == "none":
            raise OptionsError("a search radius needs a prior around which to search: identity, affine or a transform")

    @classmethod
    def for_preset(cls, preset: str, **overrides: Any) -> Options:
        """The options of a preset, some of them replaced.

        Args:
            preset: "default" or "paper".
            **overrides: Fields by name; None leaves the preset's value.

        Raises:
            OptionsError: if the preset or a field does not exist.
        """
        if preset not in ("default", "paper"):
            raise OptionsError(f'a preset is "default" or "paper", got {preset!r}')
        known = {field.name for field in dataclasses.fields(cls)}
        strange = sorted(set(overrides) - known)
        if strange:
            raise OptionsError(f"unknown options {', '.join(strange)}; there are {', '.join(sorted(known))}")
        values = {**_PRESETS[preset], **{name: value for name, value in overrides.items() if value is not None}}
        return cls(**values)

    def radius_mm(self) -> float:
        """Radius of the search around an expected position, mm."""
        if self.search_radius_mm is not None:
            return self.search_radius_mm
        return 20.0 if self.prior == "affine" else 35.0

    def fits_field(self, extraction: ExtractionOptions) -> bool:
        """Whether a displacement field is fitted first and points are aligned under it, not searched one by one."""
        asked = self.refine and self.search_radius_mm is None and self.prior != "none"
        return asked and MIND in extraction.levels

    def extraction(self, spec: ModelSpec) -> ExtractionOptions:
        """The options of feature extraction with this model."""
        defaults = spec.defaults
        extra = defaults.extra_levels if self.preset == "default" else ()
        return ExtractionOptions(
            timestep=defaults.timestep if self.timestep is None else self.timestep,
            levels=(*defaults.levels, *extra) if self.levels is None else self.levels,
            noise_samples=defaults.noise_samples if self.noise_samples is None else self.noise_samples,
            latent=self.latent,
            seed=self.seed,
            spacing_source=spec.conditioning.spacing if self.spacing is None else self.spacing,
            shared_noise=self.shared_noise,
            part="body" if self.preset == "default" and spec.grid.kind == "respace" else "scan",
            numbers="float16" if self.preset == "default" else "float32",
        )

    def whitening(self, spec: ModelSpec) -> bool:
        """Whether the network's levels of this model are whitened."""
        return spec.defaults.whiten if self.whiten is None else self.whiten

    def describe(self) -> dict[str, Any]:
        """All options, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["prior"] = describe_prior(self.prior)
        values["levels"] = None if self.levels is None else list(self.levels)
        return values

    def digest(self) -> str:
        """sha256 of all options, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()


def describe_prior(prior: str | Path | Transform) -> str:
    """A prior in words; for a transform with a digest that identifies it, since long arrays are printed abridged."""
    if isinstance(prior, str | Path):
        return str(prior)
    if isinstance(prior, CompositeTransform):
        return f"CompositeTransform({', '.join(describe_prior(part) for part in prior.parts)})"
    if isinstance(prior, DisplacementField):
        content = hashlib.sha256(np.ascontiguousarray(prior.displacement).tobytes()).hexdigest()
        return f"DisplacementField({prior.grid!r}, affine {prior.grid.affine.tolist()}, sha256 {content})"
    if isinstance(prior, AffineTransform):
        return f"AffineTransform({prior.matrix.tolist()})"
    if isinstance(prior, NumericalInverse):
        return f"NumericalInverse({describe_prior(prior.transform)})"
    # Any other transform is identified by its values on a grid of points over the size of a patient.
    places = np.stack(np.meshgrid(*[np.linspace(-300, 300, 13)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    does = hashlib.sha256(np.ascontiguousarray(prior.apply(places)).tobytes()).hexdigest()
    return f"{type(prior).__name__}(sha256 of what it does {does})"


_CHOICES: dict[str, tuple[Any, ...]] = {
    "preset": ("default", "paper"),
    "latent": ("mean", "sample"),
    "spacing": (None, "network", "original"),
    "search_grid": ("image", "network"),
    "modality": (None, "ct", "mr", "other"),
}

_PRESETS: dict[str, dict[str, Any]] = {
    "default": {"preset": "default"},
    "paper": {
        "preset": "paper",
        "noise_samples": 1,
        "latent": "sample",
        "spacing": "original",
        "whiten": False,
        "prior": "none",
        "search_grid": "image",
        "refine": False,
    },
}
