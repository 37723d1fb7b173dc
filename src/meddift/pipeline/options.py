"""`Options`: every choice of a match, with two presets."""

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

#: More points than this are aligned at the nodes of a grid, where a field is fitted.
MANY = 5_000


@dataclass(frozen=True)
class Options:
    """How points are matched. Where a field is None, the model's specification decides.

    Attributes:
        preset: "default" is what measures best; "paper" does what the reference code of the paper does.
        timestep: How much noise the network expects.
        levels: Names of the levels that are compared, coarse to fine; "mind" is the hand-made one.
        noise_samples: Draws of noise that are averaged; 0 adds none.
        shared_noise: Whether both scans see the same draws.
        latent: Mean of the autoencoder's posterior, or one sample.
        spacing: Voxel size that the network is told: of the grid it sees, or of the scan as stored.
        whiten: Whether the network's levels are whitened. The hand-made level always is, except in "paper".
        prior: Where a point is expected: nowhere in particular ("none"), at the same world position ("identity"),
            where an affine puts it that most matches agree on, bent towards them ("affine"), or where a transform
            puts it.
        search_radius_mm: How far from there it is looked for; None = 20 mm under "affine", 35 under any other prior.
        search_grid: Answers lie on the voxels of the scan ("image") or of the network's input ("network") before they
            are refined.
        refine: Whether fine levels and neighbouring points decide in the end, between voxels.
        confidence: Whether each point is matched back, so that it can be said how sure it is.
        seed: Of all that is drawn.
        modality: What both scans are; None = what their files say, or else what their values can be.

    Raises:
        OptionsError: if a value makes no sense.
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
            raise OptionsError("a search radius needs a prior (identity, affine or a transform): around what else?")

    @classmethod
    def for_preset(cls, preset: str, **overrides: Any) -> Options:
        """The options of a preset, with some of them changed.

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
        """How far from the expected position a point is looked for, mm."""
        if self.search_radius_mm is not None:
            return self.search_radius_mm
        return 20.0 if self.prior == "affine" else 35.0

    def fits_field(self, extraction: ExtractionOptions) -> bool:
        """Whether points are aligned under a field that is fitted first, and not searched one by one."""
        asked = self.refine and self.search_radius_mm is None and self.prior != "none"
        return asked and MIND in extraction.levels

    def extraction(self, spec: ModelSpec) -> ExtractionOptions:
        """What has to be read from each scan with this model."""
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
    """A prior in words; of a transform also what tells it from every other, since long arrays are printed in part."""
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
    # Whatever else there is, is told apart by what it does to a cube as large as a patient.
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
