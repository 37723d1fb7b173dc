"""The variants of an ablation: a base, and variants that change one choice of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from meddift.errors import OptionsError

if TYPE_CHECKING:
    from meddift.models import ModelSpec

#: Noise-to-signal ratios of the sweep; t = 20 of the paper's DDPM schedule corresponds to 0.18.
NOISE_TO_SIGNAL = (0.04, 0.1, 0.18, 0.35, 0.7, 1.5)
#: Numbers of averaged noise samples in the sweep.
DRAWS = (1, 2, 4, 8)
#: Labels of the variants that combine several levels.
NETWORK_LEVELS, ALL_LEVELS = "the network's levels", "all levels"
#: Search radius around each prior, mm.
RADII: Mapping[str, Sequence[float]] = {"identity": (35.0, 60.0), "affine": (10.0, 20.0, 35.0)}


@dataclass(frozen=True)
class Variant:
    """One variant of matching.

    Attributes:
        sweep: Name of the sweep, the choice that is varied.
        label: Short label for display.
        overrides: Fields of `Options` that differ from the base, ready for JSON.
    """

    sweep: str
    label: str
    overrides: Mapping[str, Any]


#: Name of a base -> its description and its options.
BASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "default": ("meddift's defaults: prior, refinement between voxels, hand-made level", {}),
    "search": (
        "the bare search: every voxel of the moving scan, no prior, whole voxels",
        {"prior": "none", "refine": False, "confidence": False},
    ),
}


def base_options(base: str, spec: ModelSpec) -> dict[str, Any]:
    """The options of a base.

    Args:
        base: One of `BASES`.
        spec: The model.

    Raises:
        OptionsError: if the base does not exist.
    """
    if base not in BASES:
        raise OptionsError(f"an ablation starts from {', '.join(BASES)}; got {base!r}")
    options = dict(BASES[base][1])
    # Bases other than the default use the levels of the network only, without the hand-crafted one.
    return options if base == "default" else {**options, "levels": list(spec.defaults.levels)}


def make_variants(base: str, spec: ModelSpec, sweeps: Sequence[str] | None = None) -> list[Variant]:
    """The base and all variants that differ from it in one choice.

    Args:
        base: One of `BASES`.
        spec: The model, whose levels and schedule decide which variants exist.
        sweeps: Names among `SWEEPS`; None = all of them.

    Raises:
        OptionsError: if a base or a sweep does not exist.
    """
    base_options(base, spec)
    chosen = list(SWEEPS) if sweeps is None else list(sweeps)
    strange = [name for name in chosen if name not in SWEEPS]
    if strange:
        raise OptionsError(f"there is no sweep {', '.join(strange)}; there are {', '.join(SWEEPS)}")
    found = [Variant("base", "base", {})]
    for name in SWEEPS:
        if name in chosen:
            found += SWEEPS[name](base, spec)
    return found


def _levels(base: str, spec: ModelSpec) -> list[Variant]:
    """Each level alone, all pairs, and all together."""
    names = [*spec.defaults.levels, *spec.defaults.extra_levels]
    groups: list[tuple[str, ...]] = [(name,) for name in names]
    groups += combinations(names, 2)
    found = [Variant("levels", " + ".join(group), {"levels": list(group)}) for group in groups]
    found.append(Variant("levels", NETWORK_LEVELS, {"levels": list(spec.defaults.levels)}))
    if spec.defaults.extra_levels:
        found.append(Variant("levels", ALL_LEVELS, {"levels": names}))
    return found


def _noise(base: str, spec: ModelSpec) -> list[Variant]:
    """No noise, and one noise sample at several noise levels, with the matching timestep given to the network."""
    from meddift.models.schedule import noise_to_signal, timestep_for

    first = timestep_for(spec.schedule, 0.0)
    found = [Variant("noise", "none", {"noise_samples": 0, "timestep": first})]
    for ratio in NOISE_TO_SIGNAL:
        step = timestep_for(spec.schedule, ratio)
        real = noise_to_signal(spec.schedule, step)
        found.append(Variant("noise", f"{real:.2f} (t = {step})", {"noise_samples": 1, "timestep": step}))
    return found


def _draws(base: str, spec: ModelSpec) -> list[Variant]:
    """Numbers of noise samples that are averaged."""
    found = [Variant("draws", "0 (no noise added)", {"noise_samples": 0})]
    return found + [Variant("draws", str(count), {"noise_samples": count}) for count in DRAWS]


def _sharing(base: str, spec: ModelSpec) -> list[Variant]:
    """Whether both scans get the same noise sample; one sample each."""
    return [
        Variant("sharing", words, {"noise_samples": 1, "shared_noise": shared})
        for words, shared in (("independent noise", False), ("shared noise", True))
    ]


def _latent(base: str, spec: ModelSpec) -> list[Variant]:
    """Mean of the latent posterior or a sample of it; no variants for a fixed latent transform."""
    if spec.latent.kind == "haar":
        return []
    return [Variant("latent", kind, {"latent": kind}) for kind in ("mean", "sample")]


def _spacing(base: str, spec: ModelSpec) -> list[Variant]:
    """The voxel size given to the network, if it is conditioned on one."""
    if not spec.unet.get("include_spacing_input"):
        return []
    words = {"network": "of the grid it sees", "original": "of the scan as stored"}
    return [Variant("spacing", text, {"spacing": kind}) for kind, text in words.items()]


def _whitening(base: str, spec: ModelSpec) -> list[Variant]:
    """Whether the features of the network's levels are whitened."""
    return [Variant("whitening", word, {"whiten": on}) for word, on in (("raw", False), ("whitened", True))]


def _prior(base: str, spec: ModelSpec) -> list[Variant]:
    """The prior position of the match, and the search radius around it."""
    found = [Variant("prior", "none, everywhere", {"prior": "none"})]
    for prior, radii in RADII.items():
        found += [
            Variant("prior", f"{prior}, {radius:g} mm", {"prior": prior, "search_radius_mm": radius})
            for radius in radii
        ]
    return found


def _subvoxel(base: str, spec: ModelSpec) -> list[Variant]:
    """Whole voxels, or subvoxel refinement by fine levels and neighbours."""
    return [
        Variant("subvoxel", "whole voxels of the network's input", {"refine": False, "search_grid": "network"}),
        Variant("subvoxel", "whole voxels of the scan", {"refine": False, "search_grid": "image"}),
        Variant("subvoxel", "refined", {"refine": True}),
    ]


#: Name of a sweep -> function that makes its variants for a base and a model.
SWEEPS: Mapping[str, Callable[[str, ModelSpec], list[Variant]]] = {
    "levels": _levels,
    "noise": _noise,
    "draws": _draws,
    "sharing": _sharing,
    "latent": _latent,
    "spacing": _spacing,
    "whitening": _whitening,
    "prior": _prior,
    "subvoxel": _subvoxel,
}
