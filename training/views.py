"""Two views of one scan with exact correspondence: deformed, rescaled, cropped and re-noised independently.

A view is a box of voxels. `View.to_scan` takes its millimetres (origin in the middle of the box) to scan
millimetres: `g(y) = center + M (y + u(y))`, with M a rotation and scaling and u a smooth displacement. A point
of one view is carried into the other through the scan, by inverting g with fixed-point iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from training_scans import Scan

AIR_HU = -1000.0


@dataclass
class View:
    """A view of a scan.

    Attributes:
        shape: Voxels along each axis.
        spacing_mm: Of the view's voxels, before `matrix` scales them.
        center: (3,) scan mm, where the middle of the box lies.
        matrix: (3, 3) rotation and scaling.
        fields: Displacements u: (1, 3, a, b, c) control values in mm over the box.
        image: (X, Y, Z) HU after all changes; set by `render`.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    center: torch.Tensor
    matrix: torch.Tensor
    fields: list[torch.Tensor]
    image: torch.Tensor | None = None

    @property
    def half_extent(self) -> torch.Tensor:
        """(3,) mm from the middle of the box to its faces."""
        return torch.tensor(self.shape, dtype=torch.float32) * self.spacing_mm / 2

    def displacement(self, y: torch.Tensor) -> torch.Tensor:
        """(..., 3) mm of u at (..., 3) view mm; constant beyond the box."""
        grid = (y / self.half_extent).flip(-1).reshape(1, 1, 1, -1, 3)
        total = torch.zeros_like(y).reshape(-1, 3)
        for field in self.fields:
            value = F.grid_sample(field, grid, mode="bilinear", padding_mode="border", align_corners=True)
            total = total + value.reshape(3, -1).T
        return total.reshape(y.shape)

    def to_scan(self, y: torch.Tensor) -> torch.Tensor:
        """(..., 3) view mm to scan mm."""
        return self.center + (y + self.displacement(y)) @ self.matrix.T

    def from_scan(self, x: torch.Tensor, *, iterations: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3) scan mm to view mm, and the (N,) residual in mm."""
        target = (x - self.center) @ torch.linalg.inv(self.matrix).T
        y = target.clone()
        for _ in range(iterations):
            y = target - self.displacement(y)
        return y, (self.to_scan(y) - x).norm(dim=-1)

    def lattice(self) -> torch.Tensor:
        """(X, Y, Z, 3) view mm of the voxel centres."""
        axes = [(torch.arange(n) - (n - 1) / 2) * self.spacing_mm for n in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


#: How often a view starts from the scan as it came, where there are versions without its noise.
AS_IT_CAME = 0.25


def sample_scan(hu: torch.Tensor, spacing_mm: float, x: torch.Tensor) -> torch.Tensor:
    """HU at (..., 3) scan mm (origin at voxel 0); air beyond the scan."""
    size = torch.tensor(hu.shape, dtype=torch.float32)
    grid = (((x / spacing_mm) * 2 + 1) / size - 1).flip(-1)
    value = F.grid_sample(
        (hu - AIR_HU)[None, None], grid.reshape(1, -1, 1, 1, 3), padding_mode="zeros", align_corners=False
    )
    return value.reshape(x.shape[:-1]) + AIR_HU


def random_shape(generator: torch.Generator, *, budget: int) -> tuple[int, int, int]:
    """A box from about 100 mm up to a chest, each axis a multiple of 16 voxels, at most `budget` voxels."""
    choices = [48, 64, 80, 96, 112, 128, 144, 160, 176]
    while True:
        picked = [choices[int(i)] for i in torch.randint(len(choices), (3,), generator=generator)]
        if 0.25 * budget <= math.prod(picked) <= budget:
            return (picked[0], picked[1], picked[2])


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def random_view(scan: Scan, center: torch.Tensor, generator: torch.Generator, *, budget: int) -> View:
    """A view around a scan point, without its image."""
    shape = random_shape(generator, budget=budget)
    angles = (torch.rand(3, generator=generator) * 2 - 1) * math.radians(15)
    rotation = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        turn = torch.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        rotation = turn @ rotation
    scale = math.exp(_uniform(generator, -0.14, 0.14)) * torch.exp(torch.randn(3, generator=generator) * 0.04)
    fields = []
    # A slow, large warp (breathing, posture) and a quicker, smaller one; both far from folding.
    for control_mm, amplitude in ((110.0, _uniform(generator, 0, 11)), (45.0, _uniform(generator, 0, 3.5))):
        control = [max(2, round(n * 2.0 / control_mm) + 1) for n in shape]
        fields.append(torch.randn(1, 3, *control, generator=generator).clamp(-2, 2) * amplitude)
    # Breathing: squeezed or stretched along the body, by up to a third, differently along the way.
    control = [max(2, round(n * 2.0 / 90.0) + 1) for n in shape]
    breath = torch.zeros(1, 3, *control)
    along = torch.randn(control[2], generator=generator).clamp(-1.5, 1.5) * _uniform(generator, 0, 12)
    breath[:, 2] = along + torch.randn(1, *control, generator=generator).clamp(-1.5, 1.5) * 3
    fields.append(breath)
    return View(shape, scan.spacing_mm, center, rotation @ torch.diag(scale), fields)


def _blur(image: torch.Tensor, sigma: float, axes: tuple[int, ...] = (0, 1, 2)) -> torch.Tensor:
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    result = image[None, None]
    for axis in axes:
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        padding = [0, 0, 0, 0, 0, 0]
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        result = F.conv3d(F.pad(result, padding, mode="replicate"), kernel.reshape(shape))
    return result[0, 0]


def interp(values: torch.Tensor, knots: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """Piecewise-linear map, clamped outside the knots."""
    right = torch.bucketize(values, knots).clamp(1, len(knots) - 1)
    left = right - 1
    part = ((values - knots[left]) / (knots[right] - knots[left])).clamp(0, 1)
    return heights[left] + part * (heights[right] - heights[left])


def change_lung_density(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Parenchyma with more or less air in it, by up to a factor of two, more so behind or before; vessels stay.

    As in `meddift_lab.synthetic.density`: HU + 1000 is multiplied; between -700 and 0 HU the change fades out.
    """
    share = (-image / 700).clamp(0, 1)
    overall = _uniform(generator, -0.55, 0.45)
    across = torch.linspace(-1, 1, image.shape[1])[None, :, None] * _uniform(generator, -0.3, 0.3)
    # Beyond 1.6 thin vessels would end darker than the lung around them.
    factor = (overall + across).exp().clamp(0.4, 1.6)
    return (image + 1000) * (1 + share * (factor - 1)) - 1000


def render(view: View, scan: Scan, generator: torch.Generator) -> None:
    """Make the image of a view: sample, then another scanner, kernel, slice thickness, dose and field of view."""

    def chance(probability: float) -> bool:
        return float(torch.rand((), generator=generator)) < probability

    version = scan.hu
    if scan.others and not chance(AS_IT_CAME):
        version = scan.others[int(torch.randint(len(scan.others), (), generator=generator))]
    image = sample_scan(version, scan.spacing_mm, view.to_scan(view.lattice()))
    if chance(0.7):
        image = change_lung_density(image, generator)
    # HU jitter: another calibration, contrast phase, tissue composition.
    knots = torch.tensor([-1000.0, -850, -500, -100, 60, 250, 1200])
    jitter = torch.tensor([5.0, 35, 50, 25, 25, 80, 150]) * torch.randn(7, generator=generator)
    image = image + interp(image, knots, jitter)
    if chance(0.5):
        image = _blur(image, _uniform(generator, 0.3, 0.9))
    elif chance(0.3):  # a sharp kernel
        image = image + _uniform(generator, 0.2, 0.8) * (image - _blur(image, 0.7))
    if chance(0.4):
        thickness = int(torch.randint(2, 4, (), generator=generator))  # 4 or 6 mm
        if view.shape[2] % thickness == 0 or thickness == 2:
            thin = F.avg_pool3d(image[None, None], (1, 1, thickness))
            image = F.interpolate(thin, size=view.shape, mode="trilinear", align_corners=False)[0, 0]
    noise = torch.randn(view.shape, generator=generator)
    if chance(0.7):
        noise = _blur(noise, _uniform(generator, 0.35, 0.8))
    level = math.exp(_uniform(generator, math.log(5), math.log(70)))
    image = image + noise * (level / noise.std())
    if chance(0.25):  # reconstruction circle or a cut field of view
        y = view.lattice()[..., :2]
        middle = (torch.rand(2, generator=generator) - 0.5) * view.half_extent[:2]
        radius = _uniform(generator, 0.75, 1.2) * float(view.half_extent[:2].max())
        image = torch.where((y - middle).norm(dim=-1) < radius, image, torch.tensor(AIR_HU))
    view.image = image.clamp(AIR_HU, 3000)


def pick_points(image: torch.Tensor, lattice: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3) view mm: half where there is texture (vessels, edges), half anywhere in the body; sub-voxel."""
    shown = interp(image, torch.tensor([-1000.0, -200, 250, 1500]), torch.tensor([0.0, 0.45, 0.85, 1.0]))[None, None]
    mean = F.avg_pool3d(shown, 3, 1, 1)
    spread = (F.avg_pool3d(shown * shown, 3, 1, 1) - mean * mean).clamp(min=0).sqrt().flatten()
    body = (F.avg_pool3d(((image > -950) & (image < 2000)).float()[None, None], 5, 1, 2) > 0.5).flatten().float()
    texture = torch.multinomial((spread.clamp(max=0.15) * body) + 1e-9, count // 2, generator=generator)
    anywhere = torch.multinomial(body + 1e-9, count - count // 2, generator=generator)
    picked = lattice.reshape(-1, 3)[torch.cat([texture, anywhere])]
    return picked + (torch.rand(picked.shape, generator=generator) - 0.5) * 2.0


@dataclass
class ViewPair:
    """Two views with corresponding points.

    Attributes:
        views: The two views, rendered.
        points: Two (N, 3) tensors, view mm; row i shows the same anatomy in both.
        extra: (M, 3) view mm in the second view: points without a partner, as negatives: far and wide, and a
            centimetre or two beside true ones, where mistakes are made.
    """

    views: tuple[View, View]
    points: tuple[torch.Tensor, torch.Tensor]
    extra: torch.Tensor


def make_pair(scans: list[Scan], generator: torch.Generator, *, budget: int, count: int) -> ViewPair:
    """Draw a scan and two views of it that overlap, and at least 64 corresponding points."""
    weights = torch.tensor([s.weight * float(s.hu.numel()) ** 0.5 for s in scans])
    while True:
        scan = scans[int(torch.multinomial(weights, 1, generator=generator))]
        size = torch.tensor(scan.hu.shape, dtype=torch.float32) * scan.spacing_mm
        center = (0.2 + 0.6 * torch.rand(3, generator=generator)) * size
        first = random_view(scan, center, generator, budget=budget)
        shift = (torch.rand(3, generator=generator) * 2 - 1) * 0.5 * first.half_extent
        second = random_view(scan, center + shift, generator, budget=budget)
        render(first, scan, generator)
        points = pick_points(first.image, first.lattice(), 4 * count, generator)
        x = first.to_scan(points)
        other, residual = second.from_scan(x)
        inside = (
            (residual < 0.2)
            & (other.abs() < second.half_extent - 2).all(-1)
            & (points.abs() < first.half_extent - 2).all(-1)
            & ((x > 0) & (x < size)).all(-1)
        )
        if int(inside.sum()) < 64:
            continue
        render(second, scan, generator)
        # A point that a cut field of view has erased has no partner.
        seen = F.grid_sample(
            (second.image - AIR_HU)[None, None],
            (other / second.half_extent).flip(-1).reshape(1, -1, 1, 1, 3),
            align_corners=False,
        ).flatten()
        keep = torch.nonzero(inside & (seen > 20)).flatten()
        if len(keep) < 64:
            continue
        keep = keep[torch.randperm(len(keep), generator=generator)[:count]]
        far = pick_points(second.image, second.lattice(), 3 * count, generator)
        beside = other[keep].repeat(3, 1)
        step = torch.randn(beside.shape, generator=generator)
        step = step / step.norm(dim=1, keepdim=True) * (8 + 17 * torch.rand(len(step), 1, generator=generator))
        near = (beside + step).clamp(-second.half_extent, second.half_extent)
        return ViewPair((first, second), (points[keep], other[keep]), torch.cat([far, near]))
