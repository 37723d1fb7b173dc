"""`Matcher`: a model and options, set once. `matcher.pair(fixed, moving)` is where questions are asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.errors import OptionsError
from meddift.features import FeatureStore, Pyramid, extract_pyramid
from meddift.features.extraction import pyramid_key
from meddift.models import ModelSpec, find_spec
from meddift.models.weights import locate_weights
from meddift.pipeline.memory import EncodingPlan, estimate_memory, plan_encoding
from meddift.pipeline.options import Options
from meddift.system.device import check_device_name, choose_device

if TYPE_CHECKING:
    from meddift.models import DiffusionModel
    from meddift.pipeline.pair import Pair
    from meddift.volume import Volume

#: Called with the name of a stage in words and the share of the whole work that is done, 0 to 1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class _Identity:
    """What decides the features of a model, known without loading its network."""

    spec: ModelSpec
    weights_hash: str
    precision: str = "float32"


class Matcher:
    """Finds points of one scan in another.

    Args:
        model: Name of the catalogue, or path of a specification.
        preset: "default" or "paper".
        weights: Folder with the weights; None = those of the package or of meddift's store.
        device: "auto" (CUDA where it works, else CPU), "cpu", "cuda" or "cuda:N".
        store: Whether features are kept on disk and reused; a path says where.
        on_progress: Called as work goes on.
        **overrides: Fields of `Options`; None leaves the preset's value.

    Attributes:
        spec: The model's specification.
        options: All choices.
        store: Where features are kept, or None.
        device: Where tensors are computed.

    Raises:
        ModelError: if the model is unknown.
        OptionsError: if an option makes no sense for it, or the device is not there.
    """

    def __init__(
        self,
        model: str | ModelSpec = "builtin",
        preset: str = "default",
        *,
        weights: Path | str | None = None,
        device: str = "auto",
        store: bool | Path | str = True,
        on_progress: Progress | None = None,
        **overrides: Any,
    ) -> None:
        # Large tensors on large pages: a third of the time of memory-bound layers went into page faults. Read by
        # torch on Linux, when it first takes memory.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        self.spec = model if isinstance(model, ModelSpec) else find_spec(model)
        self.options = Options.for_preset(preset, **overrides)
        self.extraction = self.options.extraction(self.spec)
        unknown = [name for name in self.extraction.network_levels if name not in self.spec.levels]
        if unknown:
            raise OptionsError(
                f"{self.spec.name} has no level {', '.join(unknown)}; it has {', '.join(self.spec.levels)}, and mind"
            )
        if not 0 <= self.extraction.timestep < self.spec.schedule.steps:
            raise OptionsError(
                f"{self.spec.name} has timesteps 0 to {self.spec.schedule.steps - 1}, got {self.extraction.timestep}"
            )
        self._weights = None if weights is None else Path(weights)
        self._wanted_device = check_device_name(device)
        self.store = None if store is False else FeatureStore(None if store is True else store)
        self.report: Progress = on_progress or _silent

    @cached_property
    def device(self) -> str:
        """Where tensors are computed: "cpu" or "cuda:N"."""
        return choose_device(self._wanted_device)

    @cached_property
    def model(self) -> DiffusionModel:
        """The network with its weights; loaded when it is first needed, which takes some seconds."""
        from meddift.models import load_model

        return load_model(self.spec, weights=self._weights, device=self.device)

    @cached_property
    def weights_hash(self) -> str:
        """sha256 of the weights, without loading the network; "" where no network is needed."""
        if not self.extraction.network_levels:
            return ""
        return locate_weights(self.spec, self._weights).digest()

    def pair(self, fixed: Any, moving: Any) -> Pair:
        """Set the two scans between which points are matched.

        Args:
            fixed: The scan in which points are given: a path, Volume, SimpleITK or nibabel image.
            moving: The scan in which they are looked for.

        Returns:
            The pair; its features are computed when the first question is asked.

        Raises:
            ImageError: if a scan cannot be read or is not one 3D scalar image.
        """
        from meddift.io import as_volume
        from meddift.pipeline.pair import Pair

        started = time.perf_counter()
        self.report("reading the scans", 0.0)
        pair = Pair(self, self._said(as_volume(fixed)), self._said(as_volume(moving)))
        pair.timing["read"] = time.perf_counter() - started
        return pair

    def _said(self, volume: Volume) -> Volume:
        """The scan with the modality that the options give it."""
        if self.options.modality is None:
            return volume
        return replace(volume, modality={"ct": "CT", "mr": "MR", "other": "OT"}[self.options.modality])

    def pyramid(self, volume: Volume, *, role: str, progress: Progress | None = None) -> Pyramid:
        """The features of one scan, from the store where they are there.

        Args:
            volume: The scan.
            role: "fixed" or "moving"; decides the noise unless it is shared.
            progress: Called as work goes on.
        """
        identity: Any = _Identity(self.spec, self.weights_hash)
        key = pyramid_key(volume, identity, self.extraction, role=role, spec=self.spec)
        kept = None if self.store is None else self.store.get(key)
        if kept is not None:
            return kept
        model = self._fitting_model(volume) if self.extraction.network_levels else None
        made = extract_pyramid(
            volume, model, self.extraction, role=role, spec=self.spec, digest=key, on_progress=progress
        )
        if self.store is not None:
            self.store.put(made)
        return made

    def _fitting_model(self, volume: Volume) -> DiffusionModel:
        """The model, told to keep less where the whole would not fit into the memory that is left.

        Raises:
            MemoryLimitError: if even the least does not fit.
        """
        from meddift.system.memory import require_memory

        model, plan = self.model, self._encoding_plan(volume)
        if plan.spare:
            size = " x ".join(map(str, volume.grid.shape))
            require_memory(plan.needed_bytes, f"encoding a scan of {size} with {self.spec.name}")
            model.spare_memory()
            self.report(
                f"little memory is left: encoding in {plan.needed_bytes / 1e9:.1f} GB, in somewhat more time", 0.05
            )
        return model

    def _encoding_plan(self, volume: Volume) -> EncodingPlan:
        from meddift.system.memory import available_memory

        plan = plan_encoding(self.spec, volume.grid, available_memory())
        # Which device it will be is asked only where it matters: to find out loads torch.
        if plan.spare and self.device != "cpu":
            return plan_encoding(self.spec, volume.grid, None)
        return plan

    def plan(self, fixed: Volume, moving: Volume, count: int) -> dict[str, Any]:
        """What a match would do; reads no weights and loads no network.

        Args:
            fixed: The scan in which points are given.
            moving: The scan in which they are looked for.
            count: Number of points.

        Returns:
            Ready for JSON: model, options, lattices in words, stages, and an estimate of the peak memory in bytes.
        """
        estimate = estimate_memory(self.spec, self.extraction, self.options, fixed.grid, moving.grid, count)
        scans = {"fixed": (fixed, estimate.fixed_network), "moving": (moving, estimate.moving_network)}

        def encoding(volume: Volume) -> str:
            if not self.extraction.network_levels:
                return "none: no level of the network is asked for"
            return str(self._encoding_plan(volume))

        described = {
            role: {"scan": repr(volume.grid), "network": repr(network), "encoding": encoding(volume)}
            for role, (volume, network) in scans.items()
        }
        return {
            "model": self.spec.name,
            "options": self.options.describe(),
            "levels": list(self.extraction.levels),
            **described,
            "points": count,
            "memory_bytes": estimate.peak_bytes,
            "stages": [*estimate.stages],
        }


def _silent(stage: str, fraction: float) -> None:
    """Tell nobody."""
