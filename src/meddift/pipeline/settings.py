"""`Settings`: the model, options and runtime that all scans and pairs of a Matcher share."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from meddift.errors import MissingFileError, OptionsError
from meddift.features import ExtractionOptions
from meddift.features.code import installed_version
from meddift.features.extraction import MIND, pyramid_key
from meddift.models import ModelSpec, padded_for_card
from meddift.models.weights import locate_weights
from meddift.pipeline.memory import EncodingPlan, encoding_bytes, plan_encoding
from meddift.pipeline.options import Options
from meddift.pipeline.runtime import Runtime
from meddift.system.device import choose_precision
from meddift.system.once import once

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meddift.geometry import Grid
    from meddift.models import DiffusionModel


@dataclass(frozen=True, eq=False)
class Settings:
    """Everything besides the scans that features and results depend on.

    Attributes:
        spec: The model's specification.
        options: The options of the match.
        runtime: Device, precision, threads and store.
        weights: Folder with the weights; None = those of the package or of the model store.

    Raises:
        OptionsError: if an option is invalid for the model.
        MissingFileError: if the prior is a file that does not exist.
    """

    spec: ModelSpec
    options: Options
    runtime: Runtime
    weights: Path | None = None

    def __post_init__(self) -> None:
        """Check the options against the model."""
        unknown = [name for name in self.extraction.network_levels if name not in self.spec.levels]
        if unknown:
            raise OptionsError(
                f"{self.spec.name} has no level {', '.join(unknown)}; it has {', '.join(self.spec.levels)}, and mind"
            )
        if not 0 <= self.extraction.timestep < self.spec.schedule.steps:
            raise OptionsError(
                f"{self.spec.name} has timesteps 0 to {self.spec.schedule.steps - 1}, got {self.extraction.timestep}"
            )
        prior = self.options.prior
        if isinstance(prior, Path) and not prior.exists():
            raise MissingFileError(f"there is no transform file {prior}, which was given as the prior")

    @once
    def extraction(self) -> ExtractionOptions:
        """The options of feature extraction."""
        return self.options.extraction(self.spec)

    @once
    def network_spec(self) -> ModelSpec:
        """The specification by which scans are encoded: on a CUDA device with larger steps of padding. Loads PyTorch.

        The preset "paper" stays as it is.
        """
        return self._padded(on_card=bool(self.extraction.network_levels) and self.runtime.on_card)

    @property
    def planned_spec(self) -> ModelSpec:
        """As `network_spec`, for estimates: PyTorch is not loaded, see `Runtime.on_card_as_known`."""
        return self._padded(on_card=bool(self.extraction.network_levels) and self.runtime.on_card_as_known)

    def _padded(self, *, on_card: bool) -> ModelSpec:
        return padded_for_card(self.spec) if on_card and self.options.preset == "default" else self.spec

    @once
    def weights_hash(self) -> str:
        """sha256 of the weights, without loading the network; "" if no level of the network is used."""
        if not self.extraction.network_levels:
            return ""
        return locate_weights(self.spec, self.weights).digest()

    @once
    def model(self) -> DiffusionModel:
        """The network with its weights, loaded on first use."""
        from meddift.models import load_model

        return load_model(
            self.network_spec, weights=self.weights, device=self.runtime.network_device, precision=self.precision
        )

    @once
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Precision of the network."""
        wanted = self.runtime.precision
        if wanted == "auto" and self.options.preset == "paper":  # as in the reference code
            wanted = "float32"
        return choose_precision(wanted, self.runtime.network_device)

    @property
    def level_weights(self) -> Mapping[str, float]:
        """Name of a level -> its weight in the mean over levels; empty in the preset "paper" (all weights equal)."""
        return self.spec.defaults.level_weights if self.options.preset == "default" else {}

    @property
    def whitened_levels(self) -> tuple[str, ...]:
        """Names of the levels that are whitened."""
        names = self.extraction.network_levels if self.options.whitening(self.spec) else ()
        return (*names, MIND) if MIND in self.extraction.levels and self.options.preset == "default" else names

    @property
    def semantic_levels(self) -> tuple[str, ...]:
        """Names of the semantic levels: those of the network, or all levels if none is of the network."""
        return self.extraction.network_levels or self.extraction.levels

    def key(self, scan: str, *, modality: str = "") -> str:
        """Digest of everything that the features of a scan depend on.

        Args:
            scan: Digest of the scan.
            modality: Modality of the scan, as in `Volume.modality`.
        """
        runtime = self.runtime
        if not self.extraction.network_levels:
            return pyramid_key(scan, self.extraction, self.spec, modality=modality)
        return pyramid_key(
            scan,
            self.extraction,
            self.network_spec,
            modality=modality,
            weights=self.weights_hash,
            precision=self.precision,
            device=runtime.network_device,
        )

    def encoding_plan(self, grid: Grid) -> EncodingPlan:
        """How a scan on this grid is encoded in the free memory."""
        plan = plan_encoding(self.planned_spec, grid, self.runtime.memory_left())
        # The device is determined only if it matters, because that loads torch.
        if plan.spare and self.runtime.device != "cpu":
            return plan_encoding(self.planned_spec, grid, None)
        return plan

    def encodes_together(self, grids: Sequence[Grid]) -> bool:
        """Whether scans on these grids are encoded at once: on a CUDA device that has the memory for all of them.

        A processor is as fast with one scan after the other.
        """
        if not (self.extraction.network_levels and self.runtime.on_card):
            return False
        needed = sum(encoding_bytes(self.network_spec, grid) for grid in grids)
        return needed <= self.runtime.card_memory_left()

    def provenance(self) -> dict[str, Any]:
        """Model, options and versions that results depend on, ready for JSON."""
        packages = ("meddift", "torch", "monai", "numpy", "SimpleITK", "nibabel")
        return {
            "versions": {
                "python": platform.python_version(),
                **{name: installed_version(name) or "unknown" for name in packages},
            },
            "model": self.spec.name,
            "weights_sha256": self.weights_hash,
            "device": self.runtime.network_device,
            "precision": self.precision if self.extraction.network_levels else "float32",
            "options": self.options.describe(),
            "extraction": {
                "timestep": self.extraction.timestep,
                "levels": list(self.extraction.levels),
                "noise_samples": self.extraction.noise_samples,
                "whiten": self.options.whitening(self.spec),
            },
            "seed": self.options.seed,
        }
