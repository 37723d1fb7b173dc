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

from contrast import generator_on, send
from degrade_views import draw_versions, render
from training_scans import AIR_HU, Scan, shown

#: Edges of boxes relative to the cube root of their voxels: few shapes, so that a GPU plans its convolutions once.
SHAPES = ((1.0, 1.0, 1.0), (1.25, 1.25, 0.64), (1.25, 0.9, 0.9), (0.9, 1.25, 0.9), (0.8, 0.8, 1.56))
#: So many pairs show a larger part of the body, by this factor in voxels.
LARGE_SHARE, LARGE = 0.05, 4
#: Shown values above this are body: lungs in CT, all but the noise around the head in MR.
BODY_SHOWN = {"CT": 0.028, "MR": 0.07}
#: What is shown for a little more than air.
JUST_SHOWN = float(shown(torch.tensor(AIR_HU + 20)))
#: Points that have to be seen in both views at least.
FEWEST = 64


@dataclass
class View:
    """A view of a scan.

    Attributes:
        shape: Voxels along each axis.
        spacing_mm: Of the view's voxels, before `matrix` scales them.
        center: (3,) scan mm, where the middle of the box lies.
        matrix: (3, 3) rotation and scaling.
        inverse: (3, 3) of `matrix`.
        reach: (3,) mm from the middle of the box to the centres of its outermost voxels.
        half_extent: (3,) mm from the middle of the box to its faces.
        field: (1, 3, a, b, c) control values of the displacement u in mm, evenly from the first to the last voxel.
        control: (1, 3, a, b, c) scan mm of the same places.
        image: (X, Y, Z) what the network is shown, 0 to 1, after all changes; set by `render`.
        plain: (X, Y, Z) what it would be shown without any but the cut field of view; set by `render`.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    center: torch.Tensor
    matrix: torch.Tensor
    inverse: torch.Tensor
    reach: torch.Tensor
    half_extent: torch.Tensor
    field: torch.Tensor
    control: torch.Tensor
    image: torch.Tensor | None = None
    plain: torch.Tensor | None = None

    def to_scan(self, y: torch.Tensor) -> torch.Tensor:
        """(..., 3) view mm to scan mm; u is constant beyond the box."""
        grid = (y / self.reach).flip(-1).reshape(1, 1, 1, -1, 3)
        moved = F.grid_sample(self.field, grid, mode="bilinear", padding_mode="border", align_corners=True)
        return self.center + (y + moved.reshape(3, -1).T.reshape(y.shape)) @ self.matrix.T

    def from_scan(self, x: torch.Tensor, *, iterations: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3) scan mm to view mm, and the (N,) residual in mm."""
        target = (x - self.center) @ self.inverse.T
        # In the coordinates of `grid_sample`, so that a round is two operations.
        field = (self.field / self.reach[:, None, None, None]).flip(1)
        target = (target / self.reach).flip(-1)[None, None, None]
        y = target
        for _ in range(iterations):
            moved = F.grid_sample(field, y, mode="bilinear", padding_mode="border", align_corners=True)
            y = target - moved.permute(0, 2, 3, 4, 1)
        back = y[0, 0, 0].flip(-1) * self.reach
        return back, (self.to_scan(back) - x).norm(dim=-1)

    def lattice(self) -> torch.Tensor:
        """(X, Y, Z, 3) view mm of the voxel centres."""
        axes = [(torch.arange(n, device=self.center.device) - (n - 1) / 2) * self.spacing_mm for n in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def places(self) -> torch.Tensor:
        """(X, Y, Z, 3) scan mm of the voxel centres: as `to_scan` of `lattice`, without either."""
        return F.interpolate(self.control, size=self.shape, mode="trilinear", align_corners=True)[0].movedim(0, -1)


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
    # One field of their sum, with a control value every fourth voxel.
    size = [n // 4 + 1 for n in shape]
    field = sum(F.interpolate(f, size=size, mode="trilinear", align_corners=True) for f in fields)
    matrix = rotation @ torch.diag(scale)
    reach = (torch.tensor(shape) - 1) / 2 * scan.spacing_mm
    axes = [torch.linspace(-float(r), float(r), n) for r, n in zip(reach, size, strict=True)]
    moved = torch.stack(torch.meshgrid(*axes, indexing="ij")) + field[0]
    control = (torch.einsum("ij,jabc->iabc", matrix, moved) + center[:, None, None, None])[None]
    tensors = send(
        scan.hu.device, center, matrix, torch.linalg.inv(matrix), reach, reach + scan.spacing_mm / 2, field, control
    )
    return View(shape, scan.spacing_mm, *tensors)


def pick_points(view: View, modality: str, count: int, here: torch.Generator) -> torch.Tensor:
    """(count, 3) view mm: half where there is texture (vessels, edges), half anywhere in the body; sub-voxel.

    Args:
        view: Rendered.
        modality: Of its scan.
        count: Points; a voxel may be drawn again.
        here: A generator of the view's device.
    """
    values = view.plain[None, None]
    mean = F.avg_pool3d(values, 3, 1, 1)
    spread = (F.avg_pool3d(values * values, 3, 1, 1) - mean * mean).clamp_(0, 0.15**2).sqrt_().flatten()
    body = (F.avg_pool3d((values > BODY_SHOWN[modality]).float(), 5, 1, 2) > 0.5).flatten().float()
    # Twice the inverse of a cumulative sum: what `multinomial` does takes a sort and waits for the device.
    chances = torch.stack([spread * body, body]).add_(1e-9).cumsum(1, dtype=torch.float64)
    wanted = torch.rand(2, -(-count // 2), generator=here, device=values.device, dtype=torch.float64)
    flat = torch.searchsorted(chances, wanted * chances[:, -1:]).clamp_(max=spread.numel() - 1).flatten()[:count]
    across, along = view.shape[1] * view.shape[2], view.shape[2]
    place = torch.stack([flat // across, flat // along % view.shape[1], flat % along], 1)
    jitter = torch.rand(count, 3, generator=here, device=values.device) - 0.5
    return (place + jitter) * view.spacing_mm - view.reach


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
        reach = torch.tensor(shape, dtype=torch.float32) * scan.spacing_mm / 2
        shift = (torch.rand(3, generator=generator) * 2 - 1) * 0.5 * reach
        second = random_view(scan, center + shift, generator, shape=shape)
        versions = draw_versions(scan, generator, contrast=contrast)
        here = generator_on(scan.hu.device, generator)
        render(first, scan, generator, version=versions[0], contrast=contrast)
        render(second, scan, generator, version=versions[1], contrast=contrast)
        points = pick_points(first, scan.modality, 4 * count, here)
        x = first.to_scan(points)
        other, residual = second.from_scan(x)
        low, high = send(x.device, torch.zeros(3), size)
        # A point that a cut field of view has erased, or that this contrast does not show, has no partner.
        seen = F.grid_sample(
            second.plain[None, None],
            (other / second.half_extent).flip(-1).reshape(1, -1, 1, 1, 3),
            align_corners=False,
        ).flatten()
        inner = first.half_extent - 2
        within = ((other.abs() < inner) & (points.abs() < inner) & (x > low) & (x < high)).all(-1)
        keep = within & (residual < 0.2) & (seen > JUST_SHOWN)
        found = keep.sum()
        # All in random order, those to keep first.
        order = (torch.rand(len(points), generator=here, device=x.device) - keep.float()).argsort()
        keep = order[torch.arange(count, device=x.device) % found.clamp(min=1)]
        far = pick_points(second, scan.modality, 3 * count, here)
        beside = other[keep].repeat(3, 1)
        step = torch.randn(beside.shape, generator=here, device=x.device)
        length = 8 + 17 * torch.rand(len(step), 1, generator=here, device=x.device)
        near = beside + F.normalize(step, dim=1) * length
        near = near.maximum(-second.half_extent).minimum(second.half_extent)
        pair = ViewPair((first, second), (points[keep], other[keep]), torch.cat([far, near]), scan.modality)
        if int(found) >= FEWEST:  # the one time that it is waited for the device
            return pair
