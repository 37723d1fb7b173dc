"""`Matcher`: a model and options, set once. `matcher.pair(fixed, moving)` is where questions are asked."""

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
        model: Name of the catalogue, or path of a specification.
        preset: "default" or "paper".
        weights: Folder with the weights; None = those of the package or of meddift's store.
        device: "auto" (CUDA where it works, else CPU), "cpu", "cuda", "cuda:N" or "mps"; see `Runtime`.
        store: Whether features are kept on disk and reused; a path or a store says where.
        on_progress: Called with the name of a stage and the share of the work that is done; what it raises ends the
            work.
        precision: Of the network; see `Runtime`.
        threads: On how many threads is computed; see `Runtime`.
        timestep: This and all that follow are fields of `Options`; None leaves the preset's value.
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
        report: Told the name of a stage and the share of the whole work that is done, 0 to 1.

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
        """All choices."""
        return self.settings.options

    @property
    def extraction(self) -> ExtractionOptions:
        """What is read from each scan."""
        return self.settings.extraction

    @property
    def store(self) -> FeatureStore | None:
        """Where features are kept, or None."""
        return self.settings.runtime.store

    @property
    def device(self) -> str:
        """Where tensors are computed: "cpu" or "cuda:N"."""
        return self.settings.runtime.device

    @property
    def model(self) -> DiffusionModel:
        """The network with its weights; loaded when it is first needed, which takes some seconds."""
        return self.settings.model

    @property
    def weights_hashes(self) -> dict[str, str]:
        """Name of each model that may be used -> sha256 of its weights, without loading the network.

        "" where no network is needed.
        """
        return {settings.spec.name: settings.weights_hash for settings in self._every}

    @property
    def _every(self) -> tuple[Settings, ...]:
        """Those of every model that may be used."""
        return (self.settings,) if self._for_others is None else (self.settings, self._for_others)

    @once
    def _for_others(self) -> Settings | None:
        """Those of the model for scans that are not in Hounsfield units; None = one model for all."""
        other = self.spec.other_scans
        if not other or self.settings.weights is not None or not self.extraction.network_levels:
            return None
        return replace(self.settings, spec=find_spec(other))

    # ------------------------------------------------------------------ scans and pairs

    def encode(self, scan: Any) -> EncodedScan:
        """Read and encode a scan, to be used in any number of pairs and threads.

        Args:
            scan: A path, Volume, SimpleITK or nibabel image.

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
        """Set the two scans between which points are matched.

        Where the model leaves scans that are not in Hounsfield units to another one (`ModelSpec.other_scans`), that
        one describes both scans as soon as one of them is such a scan.

        Args:
            fixed: The scan in which points are given: a path, Volume, SimpleITK or nibabel image, or encoded scan.
            moving: The scan in which they are looked for.
            prior: Where points are expected, fixed to moving, where that is known of this pair to within some mm;
                None = as the options say.
            back: `Pair.known_field` of the same scans the other way: then no field is fitted, its inverse is taken.
            refined: Whether the field is refined after dense matching; without, points come out as well in the mean,
                but may lie farther off beside what slides.

        Returns:
            The pair; features of scans that are not encoded yet are computed when the first question is asked.

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
        """Read a scan that is encoded when it is first needed; see `encode`, which does so at once.

        Args:
            scan: A path, Volume, SimpleITK or nibabel image; an encoded scan comes back as it is.

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
        """Two scans of one model: where they are of two, both of the one that knows all scans."""
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
        """A scan, encoded when it is first needed."""
        made = EncodedScan(volume, settings, partial(encode_scan, settings=settings, report=self.report))
        self._made.add(made)
        return made

    def close(self) -> None:
        """Free the memory of the device. What is asked later loads what it needs again."""
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
        """What a match would do; reads no weights and loads no network.

        Args:
            fixed: The scan in which points are given.
            moving: The scan in which they are looked for.
            count: Number of points.

        Returns:
            Ready for JSON: model, options, grids in words, stages, and an estimate of the peak memory in bytes.
        """
        return plan_match(self._alike(fixed, moving)[0].settings, fixed, moving, count)


def match(fixed: Any, moving: Any, points: Points | ArrayLike, **options: Any) -> Matches:
    """Find points of one scan in another, in one line.

    Args:
        fixed: The scan in which the points are given: a path, Volume or image.
        moving: The scan in which they are looked for.
        points: Points, or (N, 3) or (3,) numbers, world RAS mm, on the fixed scan.
        **options: Arguments of `Matcher`.

    Raises:
        MeddiftError: what `Matcher`, `Matcher.pair` and `Pair.match` raise.
    """
    with Matcher(**options) as matcher:
        return matcher.pair(fixed, moving).match(points)
