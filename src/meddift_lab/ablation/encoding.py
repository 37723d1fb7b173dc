"""Caches for ablations: latents on disk and feature pyramids in memory, shared by many variants of matching."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meddift.features import ExtractionOptions, Pyramid, extract_pyramid
from meddift.features.extraction import MIND
from meddift.geometry import Grid
from meddift.pipeline.matcher import Matcher
from meddift.pipeline.scan import EncodedScan
from meddift.pipeline.settings import Settings
from meddift.system.atomic import atomic_write
from meddift.system.progress import Progress
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.models import DiffusionModel


class LatentKeeper:
    """A wrapper of a diffusion model that caches the latents of scans on disk.

    Args:
        model: The model, to which everything else is delegated.
        folder: Folder of the latents; created if it does not exist.
    """

    def __init__(self, model: DiffusionModel, folder: Path) -> None:
        self._model = model
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        """Delegate all other attributes to the model."""
        return getattr(self._model, name)

    def encode(self, prepared: Volume, *, latent: str = "mean", seed: int = 0, spare: bool = False) -> Volume:
        """Encode a scan as `DiffusionModel.encode` does, or read the cached latent from disk."""
        # The latent depends on the seed only if it is sampled from a posterior with non-zero variance.
        drawn = latent == "sample" and self._model.spec.latent.kind != "haar"
        parts = [prepared.digest(), self._model.spec.digest(), self._model.weights_hash, seed if drawn else ""]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        path = self._folder / f"{key}.npz"
        if path.is_file():
            with np.load(path) as stored:
                return Volume(stored["data"], Grid(tuple(stored["data"].shape[1:]), stored["affine"]))
        made = self._model.encode(prepared, latent=latent, seed=seed, spare=spare)  # type: ignore[arg-type]
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, data=made.data, affine=made.grid.affine)
        return made


class Encodings:
    """A cache in memory of feature pyramids with all levels.

    Args:
        keeper: The model with cached latents.
        levels: All levels that any variant may use.
        count: Largest number of pyramids in the cache.
    """

    def __init__(self, keeper: LatentKeeper, levels: tuple[str, ...], *, count: int = 2) -> None:
        self.keeper = keeper
        self._levels = levels
        self._count = count
        self._kept: OrderedDict[str, Pyramid] = OrderedDict()

    def pyramid(self, volume: Volume, options: ExtractionOptions) -> Pyramid:
        """The pyramid of a scan with all levels, extracted with the options except for their choice of levels."""
        network = tuple(name for name in self._levels if name != MIND)
        everything = replace(options, levels=network)
        parts = [volume.digest(), everything.digest()]
        learned = self._get(parts, lambda: self._extract(volume, everything))
        if MIND not in self._levels:
            return learned
        made = self._get(
            [volume.digest(), MIND],
            lambda: extract_pyramid(volume, None, replace(options, levels=(MIND,)), spec=self.keeper.spec),
        )
        levels = sorted((*learned.levels, *made.levels), key=lambda level: -round(level.grid.voxel_volume, 6))
        moments = {**learned.moments, **made.moments}
        return replace(learned, levels=tuple(levels), moments=moments, digest=self._key(parts))

    def _extract(self, volume: Volume, options: ExtractionOptions) -> Pyramid:
        model: Any = self.keeper
        return extract_pyramid(volume, model, options)

    def _get(self, parts: list[str], make: Any) -> Pyramid:
        key = self._key(parts)
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 2 * self._count:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    @staticmethod
    def _key(parts: list[str]) -> str:
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class AblationMatcher(Matcher):
    """A matcher that takes its features from `Encodings`."""

    def __init__(self, encodings: Encodings, model: str, **overrides: Any) -> None:
        super().__init__(model, "default", store=False, device="cpu", **overrides)
        self._encodings = encodings

    def _to_be_encoded(self, volume: Volume, settings: Settings) -> EncodedScan:
        """A scan that is encoded on first use: the levels that this variant compares, out of all of them."""

        def make(volume: Volume, *, digest: str, progress: Progress | None) -> Pyramid:
            return self._encodings.pyramid(volume, settings.extraction).select(settings.extraction.levels)

        made = EncodedScan(volume, settings, make)
        self._made.add(made)
        return made
