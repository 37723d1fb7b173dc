"""Registering two scans by their pyramids: where the matched prior puts things, dense matching, refinement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from meddift.errors import NoCorrespondenceError, OptionsError
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Grid, Transform, nearest, sample
from meddift.matching.cost_volume import cost_volume
from meddift.matching.descriptors import unit
from meddift.registration.dense import couple
from meddift.registration.diffeomorphic import VelocityField
from meddift.registration.feature_map import DescribedScan, FeatureMap, fused_maps
from meddift.registration.field import TensorField, carried
from meddift.registration.inverse import InverseResidual, invert
from meddift.registration.jacobian import folding, jacobian_determinant, sd_log_jacobian
from meddift.registration.refine import Places, refine
from meddift.registration.result import Registration
from meddift.registration.smoothness import Smoothness
from meddift.registration.spline import ControlLattice
from meddift.registration.support import Support, judge_support
from meddift.volume import Volume

#: What can be done, in this order.
STAGES = ("affine", "dense", "refine")
#: Called with the name of a stage in words and the share of the work that is done, 0 to 1.
Progress = Callable[[str, float], None]

#: Voxels of the lattices on which scans are compared densely, mm; one pass each.
PASSES_MM = (8.0, 4.0)
#: Nodes lie on every second voxel; each is looked for within so many voxels.
STRIDE, RADIUS = 2, 3
#: How smooth dense displacements are (see `Smoothness`).
DENSE = Smoothness(bending=0.3)
#: Voxels of the displacement field that comes out, mm.
FIELD_MM = 4.0
#: Distance of the control points of the refinement, mm, and how smooth it is.
CONTROL_MM = 8.0
REFINED = Smoothness(bending=0.004, stretching=0.0001)
#: Gauss-Newton steps with fused descriptors on the coarse lattice, then with the fine level.
STEPS = (3, 5)
#: Semantic levels with voxels larger than this, mm, say too little about a place to be compared densely.
COARSEST_MM = 10.0
#: With less of the body supported than this, the scans have nothing reliable in common.
LEAST_SUPPORT = 0.1
#: Points at which the inverse is checked.
CHECKED = 4000


def register_scans(
    fixed: DescribedScan,
    moving: DescribedScan,
    start: Transform,
    affine: AffineTransform,
    *,
    fixed_mask: Volume,
    moving_mask: Volume,
    stages: Sequence[str] = STAGES,
    diffeomorphic: bool = False,
    back: Transform | None = None,
    on_progress: Progress | None = None,
) -> Registration:
    """Fit one transform to two scans.

    Args:
        fixed: The fixed scan; everything is computed on the device on which its descriptors are.
        moving: The moving scan, on the same device.
        start: Where points are expected, fixed to moving.
        affine: Affine part of that.
        fixed_mask: (X, Y, Z) bool, where the fixed scan is compared; elsewhere the transform is continued smoothly.
        moving_mask: (X, Y, Z) bool, what of the moving scan counts.
        stages: "affine", then "dense", then "refine".
        diffeomorphic: Whether the result is the flow of a velocity field, which cannot fold and has an exact inverse.
        back: Where points are expected the other way, moving to fixed: then both directions are registered and the
            mean of their velocities taken, so that exchanging the scans gives the inverse. None = one direction.
        on_progress: Called as work goes on.

    Raises:
        OptionsError: if stages make no sense.
        NoCorrespondenceError: if the masks are empty, or matches do not agree with their neighbours.
    """
    check_stages(stages)
    report = on_progress or _silent
    work = _Work(fixed, moving, affine, fixed_mask, moving_mask, report)
    if "dense" not in stages and "refine" not in stages:
        return work.finished(affine, None, tuple(stages))
    transform = work.fitted(start, stages)
    if not diffeomorphic and back is None:
        return work.finished(transform, None, tuple(stages))
    straight = affine.inverted()
    velocity = VelocityField.of((transform, straight), work.field_grid, work.device)
    if back is not None:
        other = _Work(moving, fixed, straight, moving_mask, fixed_mask, report)
        returning = invert(other.fitted(back, stages), straight, work.field_grid, work.device)
        velocity = velocity.averaged(VelocityField.of((returning, straight), work.field_grid, work.device))
        work.timing = {name: value + other.timing.get(name, 0.0) for name, value in work.timing.items()}
    forward = velocity.flow().then(affine)
    inverse_grid = work.lattice(FIELD_MM, moving=True)
    world = inverse_grid.voxel_centers_on(work.device)
    backward = TensorField.moving(world, velocity.flow(-1.0).apply(straight.apply(world)), inverse_grid)
    return work.finished(forward, backward, tuple(stages))


def check_stages(stages: Sequence[str]) -> None:
    """Raise OptionsError unless stages are some of `STAGES`, each once, in order, beginning with "affine"."""
    wanted = [stage for stage in STAGES if stage in stages]
    if list(stages) != wanted or "affine" not in stages:
        raise OptionsError(
            f"stages are affine, dense, refine in this order, and affine is always one of them; got {','.join(stages)}"
        )


@dataclass
class _Work:
    """One registration under way."""

    fixed: DescribedScan
    moving: DescribedScan
    affine: AffineTransform
    fixed_mask: Volume
    moving_mask: Volume
    report: Progress
    timing: dict[str, float] = field(default_factory=dict)
    support: Support | None = None

    def __post_init__(self) -> None:
        self.device = self.fixed.device
        self.field_grid = self.lattice(FIELD_MM)
        self._fixed_shown, self._moving_shown = (
            torch.from_numpy(np.ascontiguousarray(mask.data)).to(self.device)[..., None].float()
            for mask in (self.fixed_mask, self.moving_mask)
        )
        self.body = self._on(self.field_grid)
        levels = self.fixed.levels
        self.fine = MIND if MIND in levels else list(levels)[-1]
        coarse = [name for name, level in levels.items() if name != MIND and level.grid.spacing.max() <= COARSEST_MM]
        self.semantic = coarse or ([] if self.fine == MIND else [self.fine])
        if not bool(self.body.any()):
            raise NoCorrespondenceError("the mask of the scan is empty: there is nothing to register")

    def lattice(self, spacing_mm: float, *, moving: bool = False) -> Grid:
        """Over the field of view of a scan, along its axes."""
        grid = (self.moving if moving else self.fixed).image_grid
        return grid.reoriented("RAS")[0].respaced(spacing_mm)

    @cached_property
    def maps(self) -> tuple[FeatureMap, FeatureMap]:
        """Fused descriptors of both scans, on the lattices of the last dense pass."""
        grids = self.lattice(PASSES_MM[-1]), self.lattice(PASSES_MM[-1], moving=True)
        fine = self.fine if self.fine == MIND else None
        return fused_maps((self.fixed.levels, self.moving.levels), grids, semantic=self.semantic, fine=fine)

    def fitted(self, start: Transform, stages: Sequence[str]) -> TensorField:
        """Displacements on the field's lattice."""
        current = TensorField.sampled(start, self.lattice(PASSES_MM[0]), self.device)
        if "dense" in stages:
            current = self.dense(current)
        return self.refine(current) if "refine" in stages else current.on(self.field_grid)

    def dense(self, current: TensorField) -> TensorField:
        """Match every node around where it is expected, coarse to fine."""
        for number, spacing in enumerate(PASSES_MM):
            self.report("matching every place", 0.1 + 0.3 * number)
            with self._timed("dense"):
                current = self._dense_pass(current, spacing)
        if self.support is not None:
            nodes = self._on(self.support.grid)
            share = float(self.support.supported[nodes].float().mean()) if bool(nodes.any()) else 0.0
            if share < LEAST_SUPPORT:
                raise NoCorrespondenceError(
                    f"only {100 * share:.0f} % of the fixed scan have matches that agree with their neighbours: "
                    "the scans have no reliable correspondence"
                )
        return current

    def _dense_pass(self, current: TensorField, spacing: float) -> TensorField:
        work = self.lattice(spacing)
        last = spacing == PASSES_MM[-1]
        fixed, moving = self.maps
        if not last:
            fixed, moving = fixed.resampled(work), moving.resampled(self.lattice(spacing, moving=True))
        places = current.apply(work.voxel_centers_on(self.device))
        shown = self._counted(places).reshape(work.shape)
        described = unit(moving.at(places)).reshape(*work.shape, -1) * shown[..., None]
        nodes = work.strided(STRIDE)
        wanted = self._on(nodes)
        if not bool(wanted.any()):  # a mask smaller than the distance of nodes
            return current
        volume = cost_volume(fixed.values, described, shown.float(), wanted, radius=RADIUS, stride=STRIDE)
        found = couple(volume, DENSE)
        centers = nodes.voxel_centers_on(self.device)
        moved = centers + work.vectors_to_world(found.displacement.double().reshape(-1, 3))
        result = current.apply(moved)
        if last:
            self.support = judge_support(volume, found, nodes, self._counted(result).reshape(nodes.shape))
        return TensorField.moving(centers, result, nodes)

    def refine(self, current: TensorField) -> TensorField:
        """Bring descriptors into agreement between voxels."""
        with self._timed("refine"):
            lattice = ControlLattice.over(self.field_grid, CONTROL_MM, device=self.device)
            nodes = lattice.grid.voxel_centers_on(self.device)
            beyond = (current.apply(nodes) - self.affine.apply(nodes)).reshape(*lattice.grid.shape, 3)
            values = lattice.fit(beyond)
            shown = self._shown_map()
            world = self.field_grid.voxel_centers_on(self.device)
            rows = self.body.reshape(-1).nonzero()[:, 0]
            positions = world[rows]
            weight = self._weights()[self.body]
            fine = self.fixed.levels[self.fine], self.moving.levels[self.fine]
            for number, (maps, steps) in enumerate(((self.maps, STEPS[0]), (fine, STEPS[1]))):
                self.report("refining", 0.7 + 0.1 * number)
                places = Places(self.field_grid, rows, unit(maps[0].at(positions)), weight)
                values = refine(places, maps[1], shown, self.affine, lattice, values, REFINED, steps=steps)
            smooth = lattice.on(self.field_grid).expand(values)
            straight = TensorField.sampled(self.affine, self.field_grid, self.device)
            return TensorField(straight.values + smooth, self.field_grid)

    def finished(
        self, transform: TensorField | AffineTransform, inverse: TensorField | None, stages: tuple[str, ...]
    ) -> Registration:
        """Measure what came out; find the inverse where it is not known. Brings the answer into main memory."""
        self.report("inverting", 0.9)
        with self._timed("inverse"):
            dense = TensorField.sampled(transform, self.field_grid, self.device)
            world = self.field_grid.voxel_centers_on(self.device)
            counted = self._counted(carried(transform, world))
            if isinstance(transform, TensorField) and inverse is None:
                inverse = invert(transform, self.affine, self.lattice(FIELD_MM, moving=True), self.device)
            final: Transform = transform if isinstance(transform, AffineTransform) else transform.as_field()
            back: Transform = final.inverted() if inverse is None else inverse.as_field()
            inside = world[counted & self.body.reshape(-1)].cpu().numpy()
            residual = InverseResidual.of(final, back, inside[:: max(1, len(inside) // CHECKED)])
        grid, body = self.field_grid, self.body.cpu().numpy()
        if self.support is None:
            supported = counted.reshape(grid.shape)
            uncertainty = np.full(grid.shape, np.nan, dtype=np.float32)
        else:
            supported, uncertainty = self.support.supported_on(grid), self.support.uncertainty_on(grid).cpu().numpy()
        determinant = jacobian_determinant(dense.as_field())
        return Registration(
            transform=final,
            inverse=back,
            inverse_residual=residual,
            affine=self.affine,
            determinant=determinant,
            uncertainty=Volume(uncertainty, grid),
            supported=Volume((supported & self.body).cpu().numpy(), grid),
            body=Volume(body, grid),
            folding=folding(determinant.data[body]),
            sd_log_jacobian=sd_log_jacobian(determinant.data[body]),
            stages=stages,
            timing=dict(self.timing),
        )

    def _weights(self) -> torch.Tensor:
        """(X, Y, Z) float32, how much places of the field's lattice count: not where there is no counterpart."""
        if self.support is None:
            return torch.ones(self.field_grid.shape, device=self.device)
        return self.support.supported_on(self.field_grid).float()

    def _shown_map(self) -> FeatureMap:
        grid = self.lattice(FIELD_MM, moving=True)
        return FeatureMap(self._on(grid, moving=True).float()[..., None], grid)

    def _counted(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) bool, whether moving places lie in the field of view and the mask of the moving scan."""
        index = self.moving_mask.grid.world_to_index(positions)
        return self.moving.image_grid.contains(positions) & (nearest(self._moving_shown, index)[:, 0] > 0)

    def _on(self, grid: Grid, *, moving: bool = False) -> torch.Tensor:
        """(X, Y, Z) bool, a mask on another lattice: where a fourth of it or more is inside."""
        mask = self.moving_mask.grid if moving else self.fixed_mask.grid
        values = sample(
            self._moving_shown if moving else self._fixed_shown,
            mask.world_to_index(grid.voxel_centers_on(self.device)),
            fill=0.0,
        )
        return (values[:, 0] >= 0.25).reshape(grid.shape)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timing[stage] = self.timing.get(stage, 0.0) + time.perf_counter() - started


def _silent(stage: str, fraction: float) -> Any:
    """Tell nobody."""
