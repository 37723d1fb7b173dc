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
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError, OptionsError
from meddift.features import Pyramid
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Grid, Transform, nearest
from meddift.matching.cost_volume import cost_volume
from meddift.matching.descriptors import unit
from meddift.registration.dense import as_world, couple
from meddift.registration.diffeomorphic import VelocityField
from meddift.registration.feature_map import FeatureMap, fused_maps
from meddift.registration.inverse import InverseResidual, invert
from meddift.registration.jacobian import folding, jacobian_determinant, sampled, sd_log_jacobian
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


def register_pyramids(
    fixed: Pyramid,
    moving: Pyramid,
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
        fixed: Features of the fixed scan.
        moving: Features of the moving scan.
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
    transform = work.fitted(start, stages)
    if transform is affine or not (diffeomorphic or back is not None):
        return work.finished(transform, None, tuple(stages))
    straight = affine.inverted()
    velocity = VelocityField.of(CompositeTransform((transform, straight)), work.field_grid)
    if back is not None:
        other = _Work(moving, fixed, straight, moving_mask, fixed_mask, report)
        returning = invert(other.fitted(back, stages), straight, work.field_grid)
        velocity = velocity.averaged(VelocityField.of(CompositeTransform((returning, straight)), work.field_grid))
        work.timing = {name: value + other.timing.get(name, 0.0) for name, value in work.timing.items()}
    transform = sampled(CompositeTransform((velocity.flow(), affine)), work.field_grid)
    inverse = CompositeTransform((straight, velocity.flow(-1.0)))
    return work.finished(transform, sampled(inverse, work.lattice(FIELD_MM, moving=True)), tuple(stages))


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

    fixed: Pyramid
    moving: Pyramid
    affine: AffineTransform
    fixed_mask: Volume
    moving_mask: Volume
    report: Progress
    timing: dict[str, float] = field(default_factory=dict)
    support: Support | None = None

    def __post_init__(self) -> None:
        self.field_grid = self.lattice(FIELD_MM)
        self.body = _on(self.fixed_mask, self.field_grid)
        names = self.fixed.names
        self.fine = MIND if MIND in names else names[-1]
        semantic = [n for n in names if n != MIND and float(self.fixed.level(n).grid.spacing.max()) <= COARSEST_MM]
        self.semantic = semantic or ([] if self.fine == MIND else [self.fine])

    def lattice(self, spacing_mm: float, *, moving: bool = False) -> Grid:
        """Over the field of view of a scan, along its axes."""
        grid = (self.moving if moving else self.fixed).image_grid
        return grid.reoriented("RAS")[0].respaced(spacing_mm)

    @cached_property
    def maps(self) -> tuple[FeatureMap, FeatureMap]:
        """Fused descriptors of both scans, on the lattices of the last dense pass."""
        grids = self.lattice(PASSES_MM[-1]), self.lattice(PASSES_MM[-1], moving=True)
        fine = self.fine if self.fine == MIND else None
        return fused_maps((self.fixed, self.moving), grids, semantic=self.semantic, fine=fine)

    def fitted(self, start: Transform, stages: Sequence[str]) -> Transform:
        """The affine, or a displacement field on the field's lattice."""
        if not self.body.any():
            raise NoCorrespondenceError("the mask of the scan is empty: there is nothing to register")
        if "dense" not in stages and "refine" not in stages:
            return self.affine
        current = sampled(start, self.lattice(PASSES_MM[0]))
        if "dense" in stages:
            current = self.dense(current)
        return self.refine(current) if "refine" in stages else sampled(current, self.field_grid)

    def dense(self, current: DisplacementField) -> DisplacementField:
        """Match every node around where it is expected, coarse to fine."""
        for number, spacing in enumerate(PASSES_MM):
            self.report("matching every place", 0.1 + 0.3 * number)
            with self._timed("dense"):
                current = self._dense_pass(current, spacing)
        if self.support is not None:
            nodes = _on(self.fixed_mask, self.support.grid)
            share = float(self.support.supported[nodes].mean()) if nodes.any() else 0.0
            if share < LEAST_SUPPORT:
                raise NoCorrespondenceError(
                    f"only {100 * share:.0f} % of the fixed scan have matches that agree with their neighbours: "
                    "the scans have no reliable correspondence"
                )
        return current

    def _dense_pass(self, current: DisplacementField, spacing: float) -> DisplacementField:
        work = self.lattice(spacing)
        last = spacing == PASSES_MM[-1]
        fixed, moving = self.maps
        if not last:
            fixed, moving = fixed.resampled(work), moving.resampled(self.lattice(spacing, moving=True))
        places = current.apply(work.voxel_centers().reshape(-1, 3))
        shown = torch.from_numpy(self._counted(places).reshape(work.shape))
        described = unit(moving.at(places)).reshape(*work.shape, -1) * shown[..., None]
        nodes = work.strided(STRIDE)
        wanted = _on(self.fixed_mask, nodes)
        if not wanted.any():  # a mask smaller than the distance of nodes
            return current
        volume = cost_volume(fixed.values, described, shown.float(), wanted, radius=RADIUS, stride=STRIDE)
        found = couple(volume, DENSE)
        moved = nodes.voxel_centers() + as_world(found.displacement, work)
        result = current.apply(moved.reshape(-1, 3)).reshape(moved.shape)
        if last:
            there = torch.from_numpy(self._counted(result.reshape(-1, 3)).reshape(nodes.shape))
            self.support = judge_support(volume, found, nodes, there)
        return DisplacementField(np.moveaxis(result - nodes.voxel_centers(), -1, 0).astype(np.float32), nodes)

    def refine(self, current: DisplacementField) -> DisplacementField:
        """Bring descriptors into agreement between voxels."""
        with self._timed("refine"):
            lattice = ControlLattice.over(self.field_grid, CONTROL_MM)
            nodes = lattice.grid.voxel_centers().reshape(-1, 3)
            beyond = (current.apply(nodes) - self.affine.apply(nodes)).reshape(*lattice.grid.shape, 3)
            values = lattice.fit(torch.from_numpy(beyond))
            shown = self._shown_map()
            rows = np.flatnonzero(self.body)
            positions = self.field_grid.index_to_world(np.argwhere(self.body))
            weight = torch.from_numpy(self._weights(self.field_grid)[self.body])
            fine = [
                FeatureMap(torch.from_numpy(p.level(self.fine).features), p.level(self.fine).grid)
                for p in (self.fixed, self.moving)
            ]
            for number, (maps, steps) in enumerate(((self.maps, STEPS[0]), ((fine[0], fine[1]), STEPS[1]))):
                self.report("refining", 0.7 + 0.1 * number)
                places = Places(self.field_grid, torch.from_numpy(rows), unit(maps[0].at(positions)), weight)
                values = refine(places, maps[1], shown, self.affine, lattice, values, REFINED, steps=steps)
            smooth = lattice.on(self.field_grid).expand(values).numpy()
            straight = sampled(self.affine, self.field_grid).displacement
            return DisplacementField(straight + np.moveaxis(smooth, -1, 0), self.field_grid)

    def finished(self, transform: Transform, inverse: Transform | None, stages: tuple[str, ...]) -> Registration:
        """Measure what came out; find the inverse where it is not known."""
        self.report("inverting", 0.9)
        with self._timed("inverse"):
            dense = transform if isinstance(transform, DisplacementField) else sampled(transform, self.field_grid)
            positions = self.field_grid.index_to_world(np.argwhere(self.body))
            inside = self._counted(transform.apply(positions))
            some = positions[inside][:: max(1, int(inside.sum()) // CHECKED)]
            if isinstance(transform, AffineTransform):
                inverse = transform.inverted()
            elif inverse is None:
                inverse = invert(transform, self.affine, self.lattice(FIELD_MM, moving=True))
            residual = InverseResidual.of(transform, inverse, some)
        determinant = jacobian_determinant(dense)
        in_body = determinant.data[self.body]
        grid = self.field_grid
        if self.support is None:
            moved = transform.apply(grid.voxel_centers().reshape(-1, 3))
            supported = self._counted(moved).reshape(grid.shape)
            uncertainty = np.full(grid.shape, np.nan, dtype=np.float32)
        else:
            supported, uncertainty = self.support.supported_on(grid), self.support.uncertainty_on(grid)
        return Registration(
            transform=transform,
            inverse=inverse,
            inverse_residual=residual,
            affine=self.affine,
            determinant=determinant,
            uncertainty=Volume(uncertainty, grid),
            supported=Volume(supported & self.body, grid),
            body=Volume(self.body, grid),
            folding=folding(in_body),
            sd_log_jacobian=sd_log_jacobian(in_body),
            stages=stages,
            timing=dict(self.timing),
        )

    def _weights(self, grid: Grid) -> NDArray[np.float32]:
        """How much places count: not where there is no counterpart."""
        if self.support is None:
            return np.ones(grid.shape, dtype=np.float32)
        return self.support.supported_on(grid).astype(np.float32)

    def _shown_map(self) -> FeatureMap:
        grid = self.lattice(FIELD_MM, moving=True)
        values = _on(self.moving_mask, grid).astype(np.float32)[..., None]
        return FeatureMap(torch.from_numpy(values), grid)

    def _counted(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(N,) bool, whether moving places lie in the field of view and the mask of the moving scan."""
        grid = self.moving_mask.grid
        inside = self.moving.image_grid.contains(positions)
        return np.asarray(inside & nearest(self.moving_mask.data, grid.world_to_index(positions)))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timing[stage] = self.timing.get(stage, 0.0) + time.perf_counter() - started


def _on(mask: Volume, grid: Grid) -> NDArray[np.bool_]:
    """A mask on another lattice: where a fourth of it or more is inside."""
    result = np.empty(grid.shape, dtype=bool)
    for i, centres in enumerate(grid.planes()):
        world = centres.reshape(-1, 3)
        values = mask.at(world)
        result[i] = ((values >= 0.25) & mask.grid.contains(world)).reshape(grid.shape[1:])
    return result


def _silent(stage: str, fraction: float) -> Any:
    """Tell nobody."""
