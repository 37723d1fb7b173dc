"""From a scan as it was read to the numbers and the grid that a network was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.body import body_box
from meddift.errors import ImageError
from meddift.geometry import Grid
from meddift.models.intensity import choose_intensity
from meddift.models.spec import GridPolicy, Intensity, ModelSpec
from meddift.volume import DeviceVolume, Volume

if TYPE_CHECKING:
    from torch import Tensor

#: On a CUDA device scans are padded to a multiple of so many voxels, so that scans of a cohort, and mostly those of a
#: pair, share a few shapes: cuDNN chooses a way to compute every convolution of the network anew for each shape, some
#: milliseconds each. For 161 to 224 voxels along each axis, a multiple of 16 adds 12 % to the volume on average, 32
#: adds 27 %, and 64 adds 56 %, all of which is kept and searched later.
CARD_MULTIPLE = 32

#: Margin around the patient that is kept, mm; descriptors are compared up to about this far around a place.
MARGIN_MM = 20.0


def prepare_volume(
    volume: Volume,
    spec: ModelSpec,
    *,
    grid_policy: GridPolicy | None = None,
    body: bool = False,
    device: str = "cpu",
) -> DeviceVolume:
    """Turn a scan to RAS, apply the intensity rule and bring it onto the network's grid.

    With `resize_128` the intensity rule comes first and the resize is that of
    `torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`, as in MAISI's own preprocessing.
    With `respace` the scan is resampled first, so that antialiasing averages intensities and not windowed
    values, then the rule is applied, then padding is added on both sides. Works without weights.

    Args:
        volume: (X, Y, Z) scan, any real type: HU for CT.
        spec: The model.
        grid_policy: Overrides the model's own grid rule.
        body: Whether to crop a CT to the box around the patient with a margin of `MARGIN_MM`, which leaves out air
            and table. With `respace` only.
        device: Device of the computation and of the result.

    Returns:
        (X', Y', Z') float32; its Grid says where the network's voxels lie.

    Raises:
        ImageError: if the scan is not one 3D channel, holds values that are not finite, or (percentile rule)
            has no contrast.
    """
    policy = grid_policy or spec.grid
    scan = _checked(volume).reoriented("RAS")
    choice = choose_intensity(scan, spec)
    window = Window(choice.rule, scan.data)
    sent = DeviceVolume.sent(scan, device)
    if policy.kind == "resize_128":
        return resize_trilinear(DeviceVolume(window(sent.tensor), scan.grid), resized_128(scan.grid.shape))
    sent = sent.resampled_along_axes(scan.grid.respaced(policy.spacing_mm))
    kept = sent.grid.cropped(*body_box(sent, MARGIN_MM)) if body and choice.hounsfield else sent.grid
    padded, _ = kept.padded_to_multiple(int(np.lcm(policy.multiple, spec.multiple)))
    first = np.rint(sent.grid.world_to_index(padded.index_to_world([0, 0, 0]))).astype(int)
    values = DeviceVolume(window(sent.tensor), sent.grid)
    return values.cropped(first.reshape(3).tolist(), padded.shape, fill=policy.padding)


def padded_for_card(spec: ModelSpec) -> ModelSpec:
    """The same model with scans padded to `CARD_MULTIPLE`; unchanged if scans are resized to few shapes anyway."""
    if spec.grid.kind != "respace":
        return spec
    return replace(spec, grid=replace(spec.grid, multiple=int(np.lcm(spec.grid.multiple, CARD_MULTIPLE))))


def network_grid(grid: Grid, spec: ModelSpec, *, grid_policy: GridPolicy | None = None) -> Grid:
    """The grid that `prepare_volume` would return, without touching a voxel; for estimates of memory and time."""
    policy = grid_policy or spec.grid
    turned, _, _ = grid.reoriented("RAS")
    if policy.kind == "resize_128":
        return turned.resized(resized_128(turned.shape))
    return turned.respaced(policy.spacing_mm).padded_to_multiple(int(np.lcm(policy.multiple, spec.multiple)))[0]


def resized_128(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The nearest multiple of 128 for each axis, at least 128; halves go to the even multiple (as in MAISI)."""
    sizes = [max(round(n / 128), 1) * 128 for n in shape]
    return sizes[0], sizes[1], sizes[2]


def resize_trilinear(volume: DeviceVolume, shape: tuple[int, int, int]) -> DeviceVolume:
    """Resize over the same field of view without antialiasing: torch's trilinear, align_corners=False."""
    if volume.grid.shape == shape:
        return volume
    import torch

    data = volume.tensor.float()[None, None]
    resized = torch.nn.functional.interpolate(data, size=shape, mode="trilinear", align_corners=False)
    return DeviceVolume(resized[0, 0], volume.grid.resized(shape))


class Window:
    """An intensity rule with its percentiles computed for one scan.

    Args:
        rule: The model's rule.
        data: The scan's voxels as stored; percentiles are those of all of them.

    Raises:
        ImageError: if the rule uses percentiles and the scan has no contrast.
    """

    def __init__(self, rule: Intensity, data: NDArray[np.generic]) -> None:
        self.clamped = rule.kind == "window"
        if self.clamped:
            self.at = np.array([knot[0] for knot in rule.knots], dtype=np.float32)
            self.values = np.array([knot[1] for knot in rule.knots], dtype=np.float32)
            return
        low, high = np.percentile(data.astype(np.float32, copy=False), rule.percentiles)
        if not high > low:
            raise ImageError(
                f"the scan has no contrast: its percentiles {rule.percentiles[0]:g} and {rule.percentiles[1]:g} "
                f"are both {low:g}"
            )
        self.at = np.array([low, high], dtype=np.float32)
        self.values = np.array([0.0, 1.0], dtype=np.float32)

    def __call__(self, data: Tensor) -> Tensor:
        """Apply the rule to (X, Y, Z) data of any type; float32 on the same device."""
        import torch

        result = torch.empty(data.shape, dtype=torch.float32, device=data.device)
        # Slab by slab on a processor, whose cache is small.
        parts = 1 if data.device.type == "cpu" else len(data)
        for given, slab in zip(torch.split(data, parts), torch.split(result, parts), strict=True):
            if len(self.at) > 2:
                slab.copy_(self._interpolated(given.double()))
                continue
            # Two knots: MONAI's ScaleIntensityRange in its own order of operations, so that values agree to the bit.
            slab.copy_(given).sub_(float(self.at[0])).div_(float(self.at[1] - self.at[0]))
            slab.mul_(float(self.values[1] - self.values[0])).add_(float(self.values[0]))
            if self.clamped:
                slab.clamp_(*sorted(map(float, self.values)))
        return result

    def _interpolated(self, values: Tensor) -> Tensor:
        """Piecewise-linear interpolation between the knots; beyond them the outer values."""
        import torch

        at, told = (torch.from_numpy(each.astype(np.float64)).to(values.device) for each in (self.at, self.values))
        upper = torch.searchsorted(at, values.contiguous(), right=True).clamp_(1, len(at) - 1)
        low = at[upper - 1]
        share = ((values - low) / (at[upper] - low)).clamp_(0, 1)
        return torch.lerp(told[upper - 1], told[upper], share)


def _checked(volume: Volume) -> Volume:
    """The scan; ImageError if it is not one 3D channel of finite real numbers."""
    if volume.data.ndim != 3:
        raise ImageError(f"a model takes one 3D scan of one channel, got data of shape {volume.data.shape}")
    kind = volume.data.dtype.kind
    if kind not in "biuf":
        raise ImageError(f"a model takes a scan of real numbers, got {volume.data.dtype}")
    if kind == "f" and not np.isfinite(volume.data).all():
        count = int((~np.isfinite(volume.data)).sum())
        raise ImageError(
            f"{count} voxels of the scan are not finite; replace them (air in CT: -1000 HU) before matching"
        )
    return volume
