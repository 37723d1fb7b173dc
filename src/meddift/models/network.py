"""`DiffusionModel`: a latent diffusion model that encodes scans to latents and latents to feature maps."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from meddift.errors import GeometryError, OptionsError
from meddift.models import schedule as noise
from meddift.models.haar import haar_forward
from meddift.models.prepare import prepare_volume
from meddift.models.spec import REGIONS, GridPolicy, ModelSpec
from meddift.system.device import Precision, beside_network, choose_device, choose_precision
from meddift.volume import DeviceVolume, Volume

#: Held while PyTorch's settings for CUDA differ from those of the program.
_CUDNN_SETTINGS = threading.RLock()

#: MAISI multiplies one-hot regions and spacings in mm by this factor before they enter the network.
CONDITION_SCALE = 100.0


class DiffusionModel:
    """A latent diffusion model with its weights on a device; made by `load_model`.

    It never changes after it was created: any number of threads may use it at the same time.

    Args:
        spec: What the model is.
        unet: The U-Net with its weights, in evaluation mode.
        encoder: For a learned latent stage: a module that maps (1, 1, X, Y, Z) to mean and standard deviation.
        scale_factor: Latents are multiplied by it.
        weights_hash: sha256 of the weights files.
        device: "cpu", "cuda", "cuda:N" or "mps".
        precision: float32 gives the same answers everywhere; bfloat16 is faster where the device computes
            in it; auto takes bfloat16 only on such devices.

    Attributes:
        spec: As given.
        weights_hash: As given.
        scale_factor: As given.
        device: torch.device.
        precision: "float32" or "bfloat16".

    Raises:
        OptionsError: if the device or the precision is unknown or not there.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        unet: torch.nn.Module,
        encoder: torch.nn.Module | None,
        scale_factor: float,
        weights_hash: str,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.spec = spec
        self.device = torch.device(choose_device(device))
        self.precision = choose_precision(precision, str(self.device))
        self.scale_factor = scale_factor
        self.weights_hash = weights_hash
        # In reduced precision, oneDNN and cuDNN convolve several times as fast with channels last in memory.
        self._layout = torch.channels_last_3d if self.precision == "bfloat16" else torch.contiguous_format
        self._unet: torch.nn.Module = unet.to(self.device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._encoder: torch.nn.Module | None = None
        if encoder is not None:
            self._encoder = encoder.to(self.device).to(memory_format=self._layout)  # type: ignore[call-overload]

    def __repr__(self) -> str:
        """Name, device and weights in words."""
        return f"DiffusionModel({self.spec.name}, {self.device}, {self.precision}, weights {self.weights_hash[:12]})"

    # ------------------------------------------------------------------ the three steps

    def prepare(self, volume: Volume, *, grid_policy: GridPolicy | None = None, body: bool = False) -> DeviceVolume:
        """Reorient to RAS, apply the intensity rule and resample to the network's grid; see `prepare_volume`.

        Args:
            volume: (X, Y, Z) scan.
            grid_policy: Overrides the model's own grid rule.
            body: Whether to crop a CT to the box around the patient.

        Returns:
            (X', Y', Z') float32, on the device.

        Raises:
            ImageError: if the scan is not one finite 3D channel.
        """
        device = beside_network(str(self.device))
        return prepare_volume(volume, self.spec, grid_policy=grid_policy, body=body, device=device)

    def encode(
        self,
        prepared: Volume,
        *,
        latent: Literal["mean", "sample"] = "mean",
        seed: int = 0,
        spare: bool = False,
    ) -> DeviceVolume:
        """Compress a prepared scan to its latent.

        Args:
            prepared: (X, Y, Z) float32 Volume from `prepare`.
            latent: The mean of the autoencoder's posterior, or one sample of it. A Haar latent has no spread.
            seed: Seed of the sample; equal seeds give equal samples on every device.
            spare: Whether to use as little memory as possible; results are the same and take more time.

        Returns:
            (C, x, y, z) float32, multiplied by the scale factor, on the grid of the latent's voxels, in world RAS mm.

        Raises:
            GeometryError: if the shape is not a multiple of what the network needs.
            OptionsError: if `latent` is neither of the two.
        """
        if latent not in ("mean", "sample"):
            raise OptionsError(f'latent must be "mean" or "sample", got {latent!r}')
        image = DeviceVolume.sent(prepared, self.device).tensor
        shape = tuple(image.shape)
        if len(shape) != 3 or any(n % self.spec.multiple for n in shape):
            raise GeometryError(
                f"{self.spec.name} needs three axes that are multiples of {self.spec.multiple}, got shape {shape}; "
                "pass what prepare() returned"
            )
        grid = prepared.grid.downsampled(self.spec.latent.stride)
        if self._encoder is None:
            return DeviceVolume(haar_forward(image.float()) * self.scale_factor, grid)
        with self._computing():
            mean, deviation = self._encoder(image.float()[None, None], spare=spare)
            code = mean.float()
            if latent == "sample":
                code = code + deviation.float() * self._noise(code.shape, seed)
            code = code * self.scale_factor
        return DeviceVolume(code[0], grid)

    def levels(
        self,
        latent: Volume,
        *,
        timestep: int,
        levels: Sequence[str],
        noise_seed: int | None,
        spacing: ArrayLike | None = None,
    ) -> dict[str, DeviceVolume]:
        """The feature maps of one latent; see `levels_of`.

        Args:
            latent: (C, x, y, z) float32 from `encode`.
            timestep: As for `levels_of`.
            levels: As for `levels_of`.
            noise_seed: Seed of the noise; None = no noise is added.
            spacing: (3,) mm along the RAS axes; None = that of the grid that the network sees.

        Returns:
            For each name (C, x, y, z) float32 over the same field of view, on the device, in the order asked for.

        Raises:
            OptionsError: as `levels_of`.
            GeometryError: as `levels_of`.
        """
        return self.levels_of(
            [latent], timestep=timestep, levels=levels, noise_seeds=[noise_seed], spacings=[spacing]
        )[0]

    def levels_of(
        self,
        latents: Sequence[Volume],
        *,
        timestep: int,
        levels: Sequence[str],
        noise_seeds: Sequence[int | None],
        spacings: Sequence[ArrayLike | None],
    ) -> list[dict[str, DeviceVolume]]:
        """Add noise to latents, run the U-Net once for all of them and read its feature maps.

        Each latent gets the maps that it would get alone, up to rounding.

        Args:
            latents: One or more (C, x, y, z) float32 from `encode`, of equal shape.
            timestep: Integer in the model's own schedule.
            levels: Names among `spec.levels`.
            noise_seeds: For each latent the seed of its noise, which is the same on every device; None = no noise is
                added, while the latent is still scaled as at that timestep.
            spacings: For each latent (3,) mm along the RAS axes, an input of networks that take one; None = that of
                the grid that the network sees.

        Returns:
            For each latent and name (C, x, y, z) float32 over the same field of view, on the device, in the order
            asked for.

        Raises:
            OptionsError: if the timestep or a level does not exist.
            GeometryError: if the latents are not of this model or differ in shape, or a spacing is not three positive
                numbers.
        """
        unknown = [name for name in levels if name not in self.spec.levels]
        if unknown or not levels:
            raise OptionsError(
                f"levels {unknown} do not exist in {self.spec.name}; it has {', '.join(self.spec.levels)}"
            )
        keep, add = noise.signal_and_noise(self.spec.schedule, timestep)
        told = [self._conditions(latent, spacing) for latent, spacing in zip(latents, spacings, strict=True)]
        codes = [self._noisy(latent, keep, add, seed) for latent, seed in zip(latents, noise_seeds, strict=True)]
        if len({code.shape for code in codes}) != 1:
            raise GeometryError(f"latents of one batch have one shape, got {[tuple(code.shape) for code in codes]}")
        x = torch.stack(codes).contiguous(memory_format=self._layout)
        del codes
        with self._computing():
            maps = self._unet(
                levels,
                x=x,
                timesteps=torch.full((len(x),), int(timestep), device=self.device),
                **{name: torch.cat([each[name] for each in told]) for name in told[0]},
            )
        found: list[dict[str, DeviceVolume]] = [{} for _ in latents]
        for name in list(maps):
            batch = maps.pop(name)  # frees a map in reduced precision before the next is converted
            for mine, latent, tensor in zip(found, latents, batch, strict=True):
                mine[name] = DeviceVolume(tensor.float(), latent.grid.resized(tensor.shape[1:]))
        return found

    # ------------------------------------------------------------------ noise in words that all schedules share

    def noise_to_signal(self, timestep: int) -> float:
        """Noise factor over signal factor at a timestep; the same ratio means the same noise for ddpm and rflow."""
        return noise.noise_to_signal(self.spec.schedule, timestep)

    def timestep_for(self, noise_to_signal: float) -> int:
        """The timestep of this model whose noise-to-signal ratio is closest."""
        return noise.timestep_for(self.spec.schedule, noise_to_signal)

    # ------------------------------------------------------------------ internals

    def _noisy(self, latent: Volume, keep: float, add: float, seed: int | None) -> torch.Tensor:
        """(C, x, y, z) float32 on the device: a latent as it is at a timestep; without noise if there is no seed."""
        multiple = self.spec.multiple // self.spec.latent.stride
        given = DeviceVolume.sent(latent, self.device).tensor
        shape = tuple(given.shape)
        if len(shape) != 4 or shape[0] != self.spec.latent.channels or any(n % multiple for n in shape[1:]):
            raise GeometryError(
                f"{self.spec.name} needs latents of {self.spec.latent.channels} channels on axes that are multiples "
                f"of {multiple}, got shape {shape}"
            )
        code = given.float() * keep
        return code if seed is None else code + add * self._noise(code.shape, seed)

    def _noise(self, shape: Sequence[int], seed: int) -> torch.Tensor:
        """Standard normal numbers, drawn on the CPU so that every device sees the same."""
        generator = torch.Generator(device="cpu").manual_seed(int(seed))
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(self.device)

    def _conditions(self, latent: Volume, spacing: ArrayLike | None) -> dict[str, torch.Tensor]:
        """The further inputs that this U-Net takes: regions, spacing, class."""
        told: dict[str, torch.Tensor] = {}
        conditioning, options = self.spec.conditioning, self.spec.unet
        for end, region in (("top", conditioning.top_region), ("bottom", conditioning.bottom_region)):
            if options.get(f"include_{end}_region_index_input"):
                one_hot = torch.zeros(1, len(REGIONS), device=self.device)
                one_hot[0, REGIONS.index(region)] = CONDITION_SCALE
                told[f"{end}_region_index_tensor"] = one_hot
        if options.get("num_class_embeds"):
            told["class_labels"] = torch.tensor([conditioning.class_label], device=self.device)
        if options.get("include_spacing_input"):
            values = (
                latent.grid.spacing / self.spec.latent.stride if spacing is None else np.asarray(spacing, dtype=float)
            )
            if values.shape != (3,) or not (np.isfinite(values).all() and (values > 0).all()):
                raise GeometryError(f"a spacing is three positive numbers in mm, got {spacing!r}")
            told["spacing_tensor"] = torch.tensor(values * CONDITION_SCALE, dtype=torch.float32, device=self.device)[
                None
            ]
        return told

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute without gradients, in the chosen precision, and on CUDA without TF32."""
        reduced = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=reduced):
            if self.device.type != "cuda":
                yield
                return
            # These settings hold for all threads, so one thread computes at a time. This costs nothing, because
            # the threads share the card.
            cudnn = torch.backends.cudnn
            with (
                _CUDNN_SETTINGS,
                cudnn.flags(
                    enabled=cudnn.enabled,
                    benchmark=cudnn.benchmark,
                    deterministic=cudnn.deterministic,
                    allow_tf32=reduced,
                ),
            ):
                yield
