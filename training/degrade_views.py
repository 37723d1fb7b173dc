"""What a view shows: another contrast, kernel, slice thickness, dose and field of view, drawn for each view."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from contrast import bias_field, generator_on, interp, random_map, send
from training_scans import AIR_HU, TOP_HU, Scan, shown

if TYPE_CHECKING:
    from views import View

#: How often a view of CT starts from the scan as it came, where there are versions without its noise.
AS_IT_CAME = 0.25
#: How often a view is shown with a random map of contrast: of CT, of MR.
REMAPPED = {"CT": 0.35, "MR": 0.45}
#: Of MR that is not: how often the mapped values pass the window of CT; otherwise they are shown as the package does.
WINDOWED = 0.3
#: What is shown for 0 HU.
ZERO_SHOWN = float(shown(torch.tensor(0.0)))
#: Shown values for one HU of noise in soft tissue.
SHOWN_PER_HU = 0.4 / 450


def render(view: View, scan: Scan, generator: torch.Generator, *, version: int, contrast: float = 1.0) -> None:
    """Make the images of a view: sample a version, then change what another scanner would show otherwise.

    Args:
        view: To be shown; its images are set.
        scan: What it shows.
        generator: Decides everything.
        version: Of the scan.
        contrast: Factor of how often contrast is mapped, 0 to 1.
    """
    hu = sample_scan((scan.hu, *scan.others)[version], scan.spacing_mm, view.places())
    view.plain = shown(hu)
    if scan.modality == "CT":
        hu = _another_ct(hu, generator)
    if _chance(generator, contrast * REMAPPED[scan.modality]):
        image = interp(shown(hu), *random_map(scan.classes[version], generator))
        scale, in_hu = SHOWN_PER_HU, False
    elif scan.modality == "MR":
        image = shown(hu) if _chance(generator, WINDOWED) else (hu - AIR_HU) / (TOP_HU - AIR_HU)
        scale, in_hu = SHOWN_PER_HU, False
    else:
        image, scale, in_hu = hu, 1.0, True
    if not in_hu and _chance(generator, 0.6):
        image = (image * bias_field(view.shape, generator, device=image.device)).clamp(0, 1)
    image = _another_scanner(image, generator, noise_per_hu=scale, any_axis=not in_hu)
    image = shown(image) if in_hu else image.clamp(0, 1)
    cut = _cut(view, generator)
    if cut is not None:
        # Beyond the field of view some scanners write air, others 0 HU.
        fill = 0.0 if not in_hu or _chance(generator, 0.7) else ZERO_SHOWN
        image = image.masked_fill(cut, fill)
        view.plain = view.plain.masked_fill(cut, 0)
    view.image = image


def sample_scan(hu: torch.Tensor, spacing_mm: float, x: torch.Tensor) -> torch.Tensor:
    """HU at (..., 3) scan mm (origin at voxel 0); air beyond the scan."""
    factor, shift = _to_grid(tuple(hu.shape), spacing_mm, hu.device)
    grid = torch.addcmul(shift, x.flip(-1), factor)
    value = F.grid_sample(
        (hu - AIR_HU)[None, None], grid.reshape(1, -1, 1, 1, 3), padding_mode="zeros", align_corners=False
    )
    return value.reshape(x.shape[:-1]) + AIR_HU


@lru_cache(maxsize=1024)
def _to_grid(shape: tuple[int, ...], spacing_mm: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and shift, (3,) each and last axis first, from scan mm to the coordinates of `grid_sample`."""
    size = torch.tensor(shape, dtype=torch.float32).flip(0)
    return (2 / (spacing_mm * size)).to(device), (1 / size - 1).to(device)


def change_lung_density(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Parenchyma with more or less air in it, by up to a factor of two, more so behind or before; vessels stay.

    As in `meddift_lab.synthetic.density`: HU + 1000 is multiplied; between -700 and 0 HU the change fades out.
    """
    share = (-image / 700).clamp(0, 1)
    overall = _uniform(generator, -0.55, 0.45)
    across = torch.linspace(-1, 1, image.shape[1], device=image.device)[None, :, None]
    across = across * _uniform(generator, -0.3, 0.3)
    # Beyond 1.6 thin vessels would end darker than the lung around them.
    factor = (overall + across).exp().clamp(0.4, 1.6)
    return (image + 1000) * (1 + share * (factor - 1)) - 1000


def thicken(image: torch.Tensor, axis: int, slices: int) -> torch.Tensor:
    """The image as thick slices along an axis would show it: averaged, then interpolated back."""
    n = image.shape[axis]
    moved = image.movedim(axis, -1)[None, None]
    missing = -n % slices
    if missing:
        moved = F.pad(moved, (0, missing, 0, 0, 0, 0), mode="replicate")
    thin = F.avg_pool3d(moved, (1, 1, slices))
    whole = F.interpolate(thin, size=moved.shape[2:], mode="trilinear", align_corners=False)
    return whole[0, 0, ..., :n].movedim(-1, axis)


def draw_versions(scan: Scan, generator: torch.Generator, *, contrast: float) -> tuple[int, int]:
    """Which versions of a scan two views start from; MR of two contrasts in the share `contrast` of the cases."""
    first, second = _draw_version(scan, generator), _draw_version(scan, generator)
    another = _chance(generator, contrast)
    return first, second if another or scan.modality == "CT" else first


def _draw_version(scan: Scan, generator: torch.Generator) -> int:
    """Any contrast of MR; of CT mostly a version without its noise."""
    if not scan.others:
        return 0
    if scan.modality == "MR":
        return int(torch.randint(1 + len(scan.others), (), generator=generator))
    if _chance(generator, AS_IT_CAME):
        return 0
    return 1 + int(torch.randint(len(scan.others), (), generator=generator))


def _another_ct(hu: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """More or less air in the lungs; another calibration, contrast phase, tissue composition."""
    if _chance(generator, 0.7):
        hu = change_lung_density(hu, generator)
    knots = torch.tensor([-1000.0, -850, -500, -100, 60, 250, 1200])
    jitter = torch.tensor([5.0, 35, 50, 25, 25, 80, 150]) * torch.randn(7, generator=generator)
    return hu + interp(hu, knots, jitter)


def _another_scanner(
    image: torch.Tensor, generator: torch.Generator, *, noise_per_hu: float, any_axis: bool
) -> torch.Tensor:
    """Another kernel, slice thickness and dose."""
    if _chance(generator, 0.5):
        image = _blur(image, _uniform(generator, 0.3, 0.9))
    elif _chance(generator, 0.3):  # a sharp kernel
        image = image + _uniform(generator, 0.2, 0.8) * (image - _blur(image, 0.7))
    if _chance(generator, 0.4):
        axis = int(torch.randint(3, (), generator=generator)) if any_axis else 2
        image = thicken(image, axis, int(torch.randint(2, 4, (), generator=generator)))  # 4 or 6 mm
    here = generator_on(image.device, generator)
    noise = torch.randn(image.shape, generator=here, device=image.device)
    if _chance(generator, 0.7):
        noise = _blur(noise, _uniform(generator, 0.35, 0.8))
    level = noise_per_hu * math.exp(_uniform(generator, math.log(5), math.log(70)))
    return image + noise * (level / noise.std())


def _cut(view: View, generator: torch.Generator) -> torch.Tensor | None:
    """What a view does not show, to be broadcast: beyond a circle, or beyond a plane; None = it shows all."""
    kind = float(torch.rand((), generator=generator))
    reach = [n * view.spacing_mm / 2 for n in view.shape]
    axes = [(torch.arange(n, device=view.center.device) - (n - 1) / 2) * view.spacing_mm for n in view.shape]
    if kind < 0.2:
        x, y = ((_uniform(generator, -0.5, 0.5)) * half for half in reach[:2])
        radius = _uniform(generator, 0.75, 1.2) * max(reach[:2])
        away = (axes[0] - x).square()[:, None] + (axes[1] - y).square()
        return (away >= radius**2)[:, :, None]
    if kind < 0.35:
        axis = int(torch.randint(3, (), generator=generator))
        side = 1 if _chance(generator, 0.5) else -1
        beyond = side * axes[axis] > _uniform(generator, 0.3, 0.8) * reach[axis]
        return beyond.reshape([-1 if i == axis else 1 for i in range(3)])
    return None


def _blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smoothed by a Gaussian along all axes."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    (kernel,) = send(image.device, kernel / kernel.sum())
    result = image[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        padding = [0, 0, 0, 0, 0, 0]
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        result = F.conv3d(F.pad(result, padding, mode="replicate"), kernel.reshape(shape))
    return result[0, 0]


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _chance(generator: torch.Generator, probability: float) -> bool:
    return float(torch.rand((), generator=generator)) < probability
