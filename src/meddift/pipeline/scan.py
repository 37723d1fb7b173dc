"""`EncodedScan`: one scan with everything that is computed from this scan alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from meddift.body import body_of, foreground_of, lung_mask
from meddift.geometry import nearest, resample_axes
from meddift.geometry.sampling import chunks
from meddift.models import prepare_volume
from meddift.models.intensity import IntensityChoice, choose_intensity
from meddift.pipeline.landmarks import textured_points
from meddift.system.once import forget, once
from meddift.system.progress import Progress
from meddift.volume import DeviceVolume, Volume

if TYPE_CHECKING:
    import torch

    from meddift.features import Level, Pyramid, Whitening
    from meddift.geometry import Grid
    from meddift.matching import SearchIndex
    from meddift.pipeline.settings import Settings

#: Intensities above this, HU, are tissue; air outside the patient is at -1000 HU, lung above -950 HU.
AIR_HU = -950.0

#: Lungs smaller than this, mm^3, are ignored.
LEAST_LUNGS_MM3 = 500_000.0


class MakePyramid(Protocol):
    """A function that computes the features of a scan, or reads them from a store."""

    def __call__(self, volume: Volume, *, digest: str, progress: Progress | None) -> Pyramid:
        """The features of a scan with this digest."""
        ...


class EncodedScan:
    """One scan with its features, masks and indexes; made by `Matcher.encode`.

    It may be the fixed scan of one pair and the moving scan of another. It is immutable, and any number of threads may
    use it: values that are computed on first use are computed by one thread while others wait.

    Args:
        volume: The scan.
        settings: Model, options and runtime.
        make: Computes the features.

    Attributes:
        volume: As above.
        settings: As above.
    """

    def __init__(self, volume: Volume, settings: Settings, make: MakePyramid) -> None:
        self.volume = volume
        self.settings = settings
        self._make = make
        self._pyramid: Pyramid | None = None
        self._encoding = threading.RLock()
        self._averages: dict[tuple[str, tuple[int, ...], bytes], torch.Tensor] = {}

    def __repr__(self) -> str:
        """The scan, the model, and whether features have been computed."""
        state = "encoded" if self.is_encoded else "not encoded yet"
        return f"EncodedScan({self.volume!r}, {self.settings.spec.name}, {state})"

    @property
    def grid(self) -> Grid:
        """The scan's own grid."""
        return self.volume.grid

    @once
    def digest(self) -> str:
        """sha256 of voxel values and geometry, 64 hexadecimal digits."""
        return self.volume.digest()

    @once
    def intensity(self) -> IntensityChoice:
        """The intensity rule for this scan, with the reason for choosing it."""
        return choose_intensity(self.volume, self.settings.spec)

    @property
    def is_encoded(self) -> bool:
        """Whether the features have been computed."""
        return self._pyramid is not None

    def encode(self, on_progress: Progress | None = None) -> Pyramid:
        """The feature maps with the weights of their levels, computed on first use.

        Args:
            on_progress: Called with stage and fraction while features are computed.

        Raises:
            MeddiftError: if features cannot be computed.
        """
        if self._pyramid is None:
            with self._encoding:
                if self._pyramid is None:
                    made = self._make(self.volume, digest=self.digest, progress=on_progress)
                    self._pyramid = made.weighted(self.settings.level_weights)
        return self._pyramid

    def encode_with(self, other: EncodedScan, make: Callable[[], Sequence[Pyramid] | None]) -> None:
        """Compute the features of two scans at once; nothing is done if one of them has been encoded.

        Args:
            other: The other scan.
            make: Computes the features of this scan and of the other; None = each is to be encoded alone.
        """
        # In one order whoever asks, so that no two threads wait for each other.
        first, second = sorted((self, other), key=id)
        with first._encoding, second._encoding:
            made = None if self.is_encoded or other.is_encoded else make()
            for scan, pyramid in zip((self, other), made or (), strict=made is not None):
                scan._pyramid = pyramid.weighted(scan.settings.level_weights)

    @property
    def pyramid(self) -> Pyramid:
        """The feature maps; see `encode`."""
        return self.encode()

    @once
    def tensors(self) -> dict[str, torch.Tensor]:
        """Name of each level -> (X, Y, Z, C) on the device, float32 or float16 as in `pyramid`; shared on the CPU."""
        device = self.settings.runtime.device
        return {level.name: level.tensor.to(device) for level in self.pyramid.levels}

    def level(self, name: str) -> Level:
        """One level of the pyramid, on the device."""
        return replace(self.pyramid.level(name), values=self.tensors[name])

    def averaged(self, name: str, grid: Grid) -> torch.Tensor:
        """A level resampled (averaged where coarser) to a parallel grid, kept for other pairs.

        Args:
            name: Name of the level.
            grid: A grid whose axes are parallel to those of the level.

        Returns:
            (X, Y, Z, C) float32 on the device.
        """
        key = name, grid.shape, grid.affine.tobytes()
        if key not in self._averages:
            self._averages[key] = resample_axes(self.tensors[name], self.pyramid.level(name).grid, grid)
        return self._averages[key]

    @once
    def body(self) -> Volume:
        """(X, Y, Z) bool, mask of the patient including lungs and gas; True everywhere if no body is found."""
        sent = self._sent
        return body_of(sent) if self.intensity.hounsfield else foreground_of(sent)

    @once
    def lungs(self) -> Volume | None:
        """(X, Y, Z) bool, mask of the lungs in CT, which slide along the chest wall; None without lungs."""
        if not self.intensity.hounsfield:
            return None
        found = lung_mask(self._sent)
        return found if float(found.tensor.sum()) * found.grid.voxel_volume > LEAST_LUNGS_MM3 else None

    @property
    def _sent(self) -> DeviceVolume:
        """A temporary copy of the scan on the device."""
        return DeviceVolume.sent(self.volume, self.settings.runtime.device)

    def landmarks(self, count: int) -> NDArray[np.float64]:
        """(N, 3) float64, world RAS mm: at most `count` points with strong texture, spread over the scan."""
        prepared = prepare_volume(self.volume, self.settings.spec, device=self.settings.runtime.device)
        return textured_points(prepared, count, within=self.grid)

    def index(self, names: tuple[str, ...], kind: str, whitening: Mapping[str, Whitening]) -> SearchIndex:
        """A search index of some levels.

        Args:
            names: Names of the levels.
            kind: The grid that is searched; see `search_grid`.
            whitening: Name of a level -> its whitening, which depends on the other scan too.
        """
        from meddift.matching import SearchIndex, search_grid

        pyramid = self.pyramid.select(names)
        chosen = {name: tensor for name, tensor in self.tensors.items() if name in names}
        return SearchIndex(
            pyramid, search_grid(self.pyramid, kind=kind), self.settings.runtime.device, whitening, chosen
        )

    def in_body(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points lie in the patient and not in the surrounding air.

        Points with tissue within a few mm are inside, and so is gas that the body encloses (airways, bowel).

        Args:
            positions: (N, 3) float64, world RAS mm, inside the scan.

        Returns:
            (N,) bool; always True for scans that are not in Hounsfield units.
        """
        if len(positions) == 0 or not self.intensity.hounsfield:
            return np.ones(len(positions), dtype=bool)
        around = np.array([[x, y, z] for x in (-5, 0, 5) for y in (-5, 0, 5) for z in (-5, 0, 5)], dtype=float)
        inside = np.empty(len(positions), dtype=bool)
        for rows in chunks(len(positions)):
            values = self.volume.at((positions[rows, None] + around).reshape(-1, 3)).reshape(-1, len(around))
            inside[rows] = (values > AIR_HU).mean(axis=1) >= 0.1
        if not inside.all():  # the mask of the body is computed only if it is needed
            body = self.body
            inside[~inside] = nearest(body.data, body.grid.world_to_index(positions[~inside]))
        return inside

    def free(self) -> None:
        """Free the memory on the device; data are copied there again when needed."""
        if self._pyramid is not None:
            self._pyramid = self._pyramid.in_main_memory()
        forget(self, "tensors")
        self._averages.clear()
