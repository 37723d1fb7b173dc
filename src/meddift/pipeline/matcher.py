"""`Matcher`: a model with its options. `matcher.pair(fixed, moving)` gives the pair that matches and registers."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from meddift.errors import OptionsError
from meddift.features import ExtractionOptions, FeatureStore
from meddift.models import ModelSpec, find_spec
from meddift.pipeline.encoding import encode_scan
from meddift.pipeline.options import Options
from meddift.pipeline.plan import plan_match
from meddift.pipeline.runtime import Runtime
from meddift.pipeline.scan import EncodedScan
from meddift.pipeline.settings import Settings
from meddift.system.device import Precision
from meddift.system.once import forget, known, once
from meddift.system.progress import Progress, silent
from meddift.system.timing import timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from meddift.geometry import Transform
    from meddift.matching import Matches
    from meddift.models import DiffusionModel
    from meddift.pipeline.known_field import KnownField
    from meddift.pipeline.pair import Pair
    from meddift.points import Points
    from meddift.volume import Volume


class Matcher:
    """Finds points of one scan in another.

    Any number of threads may use one Matcher, its scans and its pairs; see `Runtime`. Used in a `with` block, it frees
    the memory of the device at the end of the block.

    Args:
        model: Name of a model of the catalogue, path of a specification file, or a specification.
        preset: "default" or "paper"; see `Options`.
        weights: Folder with the weights; None = those of the package or of the model store.
        device: "auto" (CUDA where it works, else CPU), "cpu", "cuda", "cuda:N" or "mps"; see `Runtime`.
        store: True keeps features in the default store on disk, False keeps none; a path or a store says where.
        on_progress: Called with the name of a stage and the fraction of the work that is done, 0 to 1; an exception
            that it raises ends the work.
        precision: Precision of the network; see `Runtime`.
        threads: Number of threads to compute on; see `Runtime`.
        timestep: See `Options`, as for all arguments below; None keeps the preset's value.
        levels: See `Options`.
        noise_samples: See `Options`.
        shared_noise: See `Options`.
        latent: See `Options`.
        spacing: See `Options`.
        whiten: See `Options`.
        prior: See `Options`.
        search_radius_mm: See `Options`.
        search_grid: See `Options`.
        refine: See `Options`.
        confidence: See `Options`.
        seed: See `Options`.
        modality: See `Options`.

    Attributes:
        settings: Model, options and runtime.
        report: Called with the name of a stage and the fraction of the work that is done, 0 to 1.

    Raises:
        ModelError: if the model is unknown.
        OptionsError: if an option is invalid for the model, or the device is not available.
        MissingFileError: if the prior is a file that does not exist.
    """

    def __init__(
        self,
        model: str | ModelSpec = "builtin",
        preset: str = "default",
        *,
        weights: Path | str | None = None,
        device: str = "auto",
        store: bool | Path | str | FeatureStore = True,
        on_progress: Progress | None = None,
        precision: Precision = "auto",
        threads: int | None = None,
        timestep: int | None = None,
        levels: Sequence[str] | None = None,
        noise_samples: int | None = None,
        shared_noise: bool | None = None,
        latent: Literal["mean", "sample"] | None = None,
        spacing: Literal["network", "original"] | None = None,
        whiten: bool | None = None,
        prior: Literal["none", "identity", "affine"] | Transform | Path | str | None = None,
        search_radius_mm: float | None = None,
        search_grid: Literal["image", "network"] | None = None,
        refine: bool | None = None,
        confidence: bool | None = None,
        seed: int | None = None,
        modality: Literal["ct", "mr", "other"] | None = None,
    ) -> None:
        options = Options.for_preset(
            preset,
            timestep=timestep,
            levels=levels,
            noise_samples=noise_samples,
            shared_noise=shared_noise,
            latent=latent,
            spacing=spacing,
            whiten=whiten,
            prior=prior,
            search_radius_mm=search_radius_mm,
            search_grid=search_grid,
            refine=refine,
            confidence=confidence,
            seed=seed,
            modality=modality,
        )
        self.settings = Settings(
            spec=model if isinstance(model, ModelSpec) else find_spec(model),
            options=options,
            runtime=Runtime(device=device, precision=precision, store=store, threads=threads),
            weights=None if weights is None else Path(weights),
        )
        self.report: Progress = on_progress or silent
        self._made: weakref.WeakSet[EncodedScan | Pair] = weakref.WeakSet()

    def __repr__(self) -> str:
        """Model and preset."""
        return f"Matcher({self.spec.name!r}, {self.options.preset!r}, {self.settings.runtime!r})"

    def __enter__(self) -> Self:
        """The Matcher itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the device."""
        self.close()

    @property
    def spec(self) -> ModelSpec:
        """The model's specification."""
        return self.settings.spec

    @property
    def options(self) -> Options:
        """The options."""
        return self.settings.options

    @property
    def extraction(self) -> ExtractionOptions:
        """The options of feature extraction."""
        return self.settings.extraction

    @property
    def store(self) -> FeatureStore | None:
        """The store of features on disk; None = features are not stored."""
        return self.settings.runtime.store

    @property
    def device(self) -> str:
        """Device of all tensors outside the network: "cpu" or "cuda:N"."""
        return self.settings.runtime.device

    @property
    def model(self) -> DiffusionModel:
        """The network with its weights, loaded on first use."""
        return self.settings.model

    @property
    def weights_hashes(self) -> dict[str, str]:
        """Name of each model that may be used -> sha256 of its weights; "" where no level of a network is used.

        The network is not loaded.
        """
        return {settings.spec.name: settings.weights_hash for settings in self._every}

    @property
    def _every(self) -> tuple[Settings, ...]:
        """The settings of every model that may be used."""
        return (self.settings,) if self._for_others is None else (self.settings, self._for_others)

    @once
    def _for_others(self) -> Settings | None:
        """The settings of the model for scans that are not in Hounsfield units; None = one model for all scans."""
        other = self.spec.other_scans
        if not other or self.settings.weights is not None or not self.extraction.network_levels:
            return None
        return replace(self.settings, spec=find_spec(other))

    # ------------------------------------------------------------------ scans and pairs

    def encode(self, scan: Any) -> EncodedScan:
        """Read and encode a scan, for use in any number of pairs and threads.

        Args:
            scan: A path, `Volume`, or image of SimpleITK, nibabel, MONAI or TorchIO.

        Returns:
            The scan with its features computed.

        Raises:
            ImageError: if it cannot be read or is not one 3D scalar image.
            MeddiftError: if features cannot be computed.
        """
        encoded = self.scan(scan)
        self.settings.runtime.run(lambda: encoded.encode(self.report))
        return encoded

    def pair(
        self,
        fixed: Any,
        moving: Any,
        *,
        prior: Transform | None = None,
        back: KnownField | None = None,
        refined: bool = True,
    ) -> Pair:
        """Combine a fixed and a moving scan into a pair.

        If the model's specification names another model for scans that are not in Hounsfield units
        (`ModelSpec.other_scans`) and at least one of the scans is such a scan, that model encodes both.

        Args:
            fixed: The scan in which points are given: a path, `Volume`, image of SimpleITK, nibabel, MONAI or TorchIO,
                or encoded scan.
            moving: The scan that is searched, in any of the same forms.
            prior: Transform, fixed to moving, that is known to be correct to within a few mm; None = the prior of the
                options.
            back: `Pair.known_field` of the exchanged pair; its inverse is then used instead of fitting a field.
            refined: Whether the field is refined after dense matching. Without refinement errors may be larger near
                sliding surfaces.

        Returns:
            The pair. Scans that are not encoded yet are encoded on first use.

        Raises:
            ImageError: if a scan cannot be read or is not one 3D scalar image.
            OptionsError: if a scan was encoded with another model or other options.
        """
        from meddift.pipeline.pair import Pair

        timing: dict[str, float] = {}
        self.report("reading the scans", 0.0)
        with timed(timing, "read"):
            pair = Pair(*self._alike(fixed, moving), self.report, prior=prior, back=back, refined=refined)
        pair.timing.update(timing)
        self._made.add(pair)
        return pair

    def scan(self, scan: Any) -> EncodedScan:
        """Read a scan without encoding it yet: that happens on first use. `encode` encodes at once.

        Args:
            scan: A path, `Volume`, or image of SimpleITK, nibabel, MONAI or TorchIO; an encoded scan is returned
                unchanged.

        Raises:
            ImageError: if it cannot be read or is not one 3D scalar image.
            OptionsError: if it was encoded with another model or other options.
        """
        if isinstance(scan, EncodedScan):
            if not any(scan.settings is mine or scan.settings.key("") == mine.key("") for mine in self._every):
                raise OptionsError(
                    "this scan was encoded with another model or other options: encode it with the same Matcher"
                )
            return scan
        from meddift.io import as_volume

        volume = as_volume(scan)
        if self.options.modality is not None:
            volume = replace(volume, modality={"ct": "CT", "mr": "MR", "other": "OT"}[self.options.modality])
        read = self._to_be_encoded(volume, self.settings)
        if self._for_others is not None and not read.intensity.hounsfield:
            return self._to_be_encoded(volume, self._for_others)
        return read

    def _alike(self, fixed: Any, moving: Any) -> tuple[EncodedScan, EncodedScan]:
        """Both scans with the same model: if they need different ones, that for scans of any modality."""
        read = self.scan(fixed), self.scan(moving)
        if read[0].settings.spec.name == read[1].settings.spec.name or self._for_others is None:
            return read
        name = self._for_others.spec.name
        one, other = (
            scan if scan.settings.spec.name == name else self._to_be_encoded(scan.volume, self._for_others)
            for scan in read
        )
        return one, other

    def _to_be_encoded(self, volume: Volume, settings: Settings) -> EncodedScan:
        """A scan that is encoded on first use."""
        made = EncodedScan(volume, settings, partial(encode_scan, settings=settings, report=self.report))
        self._made.add(made)
        return made

    def close(self) -> None:
        """Free the memory of the device; anything that is needed later is loaded again."""
        for made in list(self._made):
            made.free()
        loaded = [settings for settings in self._every if known(settings, "model")]
        for settings in loaded:
            forget(settings, "model")
        if not loaded:
            return
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    # ------------------------------------------------------------------ what would be done

    def plan(self, fixed: Volume, moving: Volume, count: int) -> dict[str, Any]:
        """Describe what a match would do, without reading weights or loading a network.

        Args:
            fixed: The scan in which points are given.
            moving: The scan that is searched.
            count: Number of points.

        Returns:
            Ready for JSON: model, options, grids, stages, and the estimated peak memory in bytes.
        """
        return plan_match(self._alike(fixed, moving)[0].settings, fixed, moving, count)


def match(fixed: Any, moving: Any, points: Points | ArrayLike, **options: Any) -> Matches:
    """Find points of one scan in another with a Matcher that is used once.

    Args:
        fixed: The scan in which the points are given: a path, `Volume` or image.
        moving: The scan that is searched.
        points: `Points`, or an array of (N, 3) or (3,), world RAS mm, on the fixed scan.
        **options: Arguments of `Matcher`.

    Returns:
        One match for each point, in the same order.

    Raises:
        MeddiftError: as `Matcher`, `Matcher.pair` and `Pair.match`.
    """
    with Matcher(**options) as matcher:
        return matcher.pair(fixed, moving).match(points)
