"""Two views of one scan with exact correspondence: deformed, rescaled, cropped, and shown anew independently.

A view is a box of voxels. `View.to_scan` takes its millimetres (origin in the middle of the box) to scan
millimetres: `g(y) = center + M (y + u(y))`, with M a rotation and scaling and u a smooth displacement. A point
of one view is carried into the other through the scan, by inverting g with fixed-point iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from contrast import generator_on
from degrade_views import draw_versions, render
from training_scans import AIR_HU, Scan, shown

#: Edges of boxes relative to the cube root of their voxels: few shapes, so that a GPU plans its convolutions once.
SHAPES = ((1.0, 1.0, 1.0), (1.25, 1.25, 0.64), (1.25, 0.9, 0.9), (0.9, 1.25, 0.9), (0.8, 0.8, 1.56))
#: So many pairs show a larger part of the body, by this factor in voxels.
LARGE_SHARE, LARGE = 0.05, 4
#: Shown values above this are body: lungs in CT, all but the noise around the head in MR.
BODY_SHOWN = {"CT": 0.028, "MR": 0.07}


@dataclass
class View:
    """A view of a scan.

    Attributes:
        shape: Voxels along each axis.
        spacing_mm: Of the view's voxels, before `matrix` scales them.
        center: (3,) scan mm, where the middle of the box lies.
        matrix: (3, 3) rotation and scaling.
        fields: Displacements u: (1, 3, a, b, c) control values in mm over the box.
        image: (X, Y, Z) what the network is shown, 0 to 1, after all changes; set by `render`.
        plain: (X, Y, Z) what it would be shown without any but the cut field of view; set by `render`.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    center: torch.Tensor
    matrix: torch.Tensor
    fields: list[torch.Tensor]
    image: torch.Tensor | None = None
    plain: torch.Tensor | None = None

    @property
    def half_extent(self) -> torch.Tensor:
        """(3,) mm from the middle of the box to its faces."""
        return torch.tensor(self.shape, dtype=torch.float32, device=self.center.device) * self.spacing_mm / 2

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

    def from_scan(self, x: torch.Tensor, *, iterations: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3) scan mm to view mm, and the (N,) residual in mm."""
        target = (x - self.center) @ torch.linalg.inv(self.matrix).T
        y = target.clone()
        for _ in range(iterations):
            y = target - self.displacement(y)
        return y, (self.to_scan(y) - x).norm(dim=-1)

    def lattice(self) -> torch.Tensor:
        """(X, Y, Z, 3) view mm of the voxel centres."""
        axes = [(torch.arange(n, device=self.center.device) - (n - 1) / 2) * self.spacing_mm for n in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def draw_shape(generator: torch.Generator, *, budget: int) -> tuple[tuple[int, int, int], bool]:
    """One of few boxes of about `budget` voxels, each axis a multiple of 16 voxels; whether it is a large one."""
    large = float(torch.rand((), generator=generator)) < LARGE_SHARE
    budget *= LARGE if large else 1
    edges = SHAPES[int(torch.randint(len(SHAPES), (), generator=generator))]
    a, b, c = (max(32, round(edge * budget ** (1 / 3) / 16) * 16) for edge in edges)
    return (a, b, c), large


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def random_view(scan: Scan, center: torch.Tensor, generator: torch.Generator, *, shape: tuple[int, int, int]) -> View:
    """A view around a scan point, without its image."""
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
    device = scan.hu.device
    matrix = (rotation @ torch.diag(scale)).to(device)
    return View(shape, scan.spacing_mm, center.to(device), matrix, [field.to(device) for field in fields])


def pick_points(view: View, modality: str, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3) view mm: half where there is texture (vessels, edges), half anywhere in the body; sub-voxel."""
    values = view.plain[None, None]
    mean = F.avg_pool3d(values, 3, 1, 1)
    spread = (F.avg_pool3d(values * values, 3, 1, 1) - mean * mean).clamp(min=0).sqrt().flatten()
    body = (F.avg_pool3d((values > BODY_SHOWN[modality]).float(), 5, 1, 2) > 0.5).flatten().float()
    here = generator_on(values.device, generator)
    texture = torch.multinomial((spread.clamp(max=0.15) * body) + 1e-9, count // 2, generator=here)
    anywhere = torch.multinomial(body + 1e-9, count - count // 2, generator=here)
    place = torch.stack(torch.unravel_index(torch.cat([texture, anywhere]), view.shape), 1).float()
    place = place + torch.rand(place.shape, generator=here, device=place.device) - 0.5
    half = (torch.tensor(view.shape, dtype=torch.float32, device=place.device) - 1) / 2
    return (place - half) * view.spacing_mm


@dataclass
class ViewPair:
    """Two views with corresponding points.

    Attributes:
        views: The two views, rendered.
        points: Two (N, 3) tensors, view mm; row i shows the same anatomy in both.
        extra: (M, 3) view mm in the second view: points without a partner, as negatives: far and wide, and a
            centimetre or two beside true ones, where mistakes are made.
        modality: Of the scan.
    """

    views: tuple[View, View]
    points: tuple[torch.Tensor, torch.Tensor]
    extra: torch.Tensor
    modality: str


def draw_scan(scans: Sequence[Scan], generator: torch.Generator, *, mr_share: float) -> Scan:
    """A scan: MR in this share of the cases where there is any, larger ones more often."""
    kinds = {scan.modality for scan in scans}
    wanted = "MR" if float(torch.rand((), generator=generator)) < mr_share else "CT"
    among = [scan for scan in scans if scan.modality == wanted or len(kinds) == 1]
    weights = torch.tensor([s.weight * float(s.hu.numel()) ** 0.5 for s in among])
    return among[int(torch.multinomial(weights, 1, generator=generator))]


def make_pair(
    scans: Sequence[Scan],
    generator: torch.Generator,
    *,
    shape: tuple[int, int, int],
    count: int,
    mr_share: float = 0.5,
    contrast: float = 1.0,
) -> ViewPair:
    """Draw a scan and two views of it that overlap, with corresponding points.

    Args:
        scans: To draw from.
        generator: Decides everything.
        shape: Voxels of a view along each axis.
        count: Points; some come more than once where fewer, but at least 64, are seen in both views.
        mr_share: Share of pairs that show MR, where there are scans of both kinds.
        contrast: How much views differ in contrast, 0 (as their scanners made them, MR in one contrast) to 1.
    """
    while True:
        scan = draw_scan(scans, generator, mr_share=mr_share)
        size = torch.tensor(scan.hu.shape, dtype=torch.float32) * scan.spacing_mm
        center = (0.2 + 0.6 * torch.rand(3, generator=generator)) * size
        first = random_view(scan, center, generator, shape=shape)
        shift = (torch.rand(3, generator=generator) * 2 - 1) * 0.5 * first.half_extent.cpu()
        second = random_view(scan, center + shift, generator, shape=shape)
        versions = draw_versions(scan, generator, contrast=contrast)
        render(first, scan, generator, version=versions[0], contrast=contrast)
        points = pick_points(first, scan.modality, 4 * count, generator)
        x = first.to_scan(points)
        other, residual = second.from_scan(x)
        inside = (
            (residual < 0.2)
            & (other.abs() < second.half_extent - 2).all(-1)
            & (points.abs() < first.half_extent - 2).all(-1)
            & ((x > 0) & (x < size.to(x.device))).all(-1)
        )
        if int(inside.sum()) < 64:
            continue
        render(second, scan, generator, version=versions[1], contrast=contrast)
        # A point that a cut field of view has erased, or that this contrast does not show, has no partner.
        seen = F.grid_sample(
            second.plain[None, None],
            (other / second.half_extent).flip(-1).reshape(1, -1, 1, 1, 3),
            align_corners=False,
        ).flatten()
        keep = torch.nonzero(inside & (seen > float(shown(torch.tensor(AIR_HU + 20))))).flatten()
        if len(keep) < 64:
            continue
        order = torch.randperm(len(keep), generator=generator)
        keep = keep[order[torch.arange(count) % len(keep)].to(keep.device)]
        far = pick_points(second, scan.modality, 3 * count, generator)
        beside = other[keep].repeat(3, 1)
        step = torch.randn(beside.shape, generator=generator)
        step = step / step.norm(dim=1, keepdim=True) * (8 + 17 * torch.rand(len(step), 1, generator=generator))
        near = (beside + step.to(beside.device)).clamp(-second.half_extent, second.half_extent)
        return ViewPair((first, second), (points[keep], other[keep]), torch.cat([far, near]), scan.modality)
