"""The displacement field between two scans: candidates are matched densely, the one that fits best is refined.

Where the scans lie to each other may have been found in several ways (by levels of the network, by MIND), and places
may be compared by several kinds of descriptors. None is trusted for what it says of itself: a network that does not
know a contrast agrees with itself and is wrong. Every candidate is matched coarsely, then finely by the level with
the finest detail, and the candidate under which that level agrees best is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Grid, Transform, nearest, sample
from meddift.matching.cost_volume import cost_volume
from meddift.matching.descriptors import unit
from meddift.registration.dense import couple
from meddift.registration.feature_map import DescribedScan, FeatureMap, fine_maps, fused_maps
from meddift.registration.field import TensorField
from meddift.registration.refine import Places, refine
from meddift.registration.smoothness import Smoothness
from meddift.registration.spline import ControlGrid
from meddift.registration.support import Support, judge_support
from meddift.system.progress import Progress
from meddift.system.threads import side_by_side
from meddift.system.timing import timed
from meddift.volume import DeviceVolume, Volume

#: Voxels of the grids on which scans are compared densely, mm; one pass each.
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
#: Gauss-Newton steps on the coarse grid, then with the fine level as it is.
STEPS = (3, 5)
#: Semantic levels with voxels larger than this, mm, say too little about a place to be compared densely.
COARSEST_MM = 10.0
#: With less of the body supported than this, the scans have nothing reliable in common.
LEAST_SUPPORT = 0.1
#: Two starts, or two candidates, that differ by less than this in the median, mm, are one.
ALIKE_MM = 2.0
#: Voxels at which candidates are compared.
COMPARED = 40_000


#: One field for each group of places that may slide along the others.
Parts: TypeAlias = tuple[TensorField, ...]
#: Descriptors of the fixed and of the moving scan on grids of one spacing.
Maps: TypeAlias = tuple[FeatureMap, FeatureMap]


@dataclass(frozen=True, eq=False)
class Start:
    """Where points are expected, before anything was matched densely.

    Attributes:
        name: Which levels found it; for reports.
        transform: Fixed to moving.
        affine: Its affine part.
        near: Whether it is known to within some mm: then the level with the finest detail alone looks around it.
    """

    name: str
    transform: Transform
    affine: AffineTransform
    near: bool = False


@dataclass(frozen=True, eq=False)
class Field:
    """What dense stages have found.

    Attributes:
        transform: Fixed to moving; a `DisplacementField` where anything was matched densely, else the affine.
        parts: That of each group of places, on its own side and continued smoothly beyond; one where nothing slides.
        sliding: (X, Y, Z) bool, the places of the second group; None where there is one.
        affine: Its affine part.
        support: Where the scans have something in common; None where nothing was matched densely.
        evidence: Name of each candidate -> mean cosine of the finest level under it; the first was kept.
        timing: Seconds of each stage.
    """

    transform: Transform
    parts: tuple[Transform, ...]
    sliding: Volume | None
    affine: AffineTransform
    support: Support | None
    evidence: dict[str, float]
    timing: dict[str, float]

    def group_of(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) int64, to which of `parts` (N, 3) fixed world RAS mm belong."""
        if self.sliding is None:
            return np.zeros(len(positions), dtype=np.int64)
        return np.asarray(nearest(self.sliding.data, self.sliding.grid.world_to_index(positions)), dtype=np.int64)

    def apply(self, positions: NDArray[np.float64], group: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Map (N, 3) fixed world RAS mm, each by the part to which it belongs: `group`, or what `group_of` says."""
        group = self.group_of(positions) if group is None else group
        result = np.empty((len(positions), 3))
        for number, part in enumerate(self.parts):
            result[group == number] = part.apply(positions[group == number])
        return result


@dataclass
class FieldWork:
    """One field under way, on the device on which descriptors are.

    Attributes:
        fixed: The fixed scan.
        moving: The moving scan, on the same device.
        fixed_mask: (X, Y, Z) bool, where the fixed scan is compared; elsewhere the transform is continued smoothly.
        moving_mask: (X, Y, Z) bool, what of the moving scan counts.
        report: Told how far the work is.
        sliding: (X, Y, Z) bool, what of the fixed scan may slide along the rest, such as the lungs along the wall of
            the chest: fields are smooth on either side, and may jump between them. None = nothing.
        timing: Seconds of each stage so far.

    Raises:
        NoCorrespondenceError: if the mask of the fixed scan is empty.
    """

    fixed: DescribedScan
    moving: DescribedScan
    fixed_mask: Volume
    moving_mask: Volume
    report: Progress
    sliding: Volume | None = None
    timing: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Grids, masks on the device, and levels."""
        self.device = self.fixed.device
        self.field_grid = self.grid_of(FIELD_MM)
        self._fixed_shown, self._moving_shown = (
            self._sent(mask).float() for mask in (self.fixed_mask, self.moving_mask)
        )
        self.body = self._on(self.field_grid)
        self._slides = None if self.sliding is None else self._sent(self.sliding)
        levels = self.fixed.levels
        self.fine = MIND if MIND in levels else list(levels)[-1]
        self.semantic = [
            name for name, level in levels.items() if name != self.fine and level.grid.spacing.max() <= COARSEST_MM
        ]
        if not bool(self.body.any()):
            raise NoCorrespondenceError("the mask of the scan is empty: there is nothing to register")

    def _sent(self, mask: Volume) -> torch.Tensor:
        """(X, Y, Z, 1), a mask on the device."""
        return DeviceVolume.sent(mask, self.device).tensor.contiguous()[..., None]

    def grid_of(self, spacing_mm: float, *, moving: bool = False) -> Grid:
        """Over the field of view of a scan, along its axes."""
        grid = (self.moving if moving else self.fixed).image_grid
        return grid.reoriented("RAS")[0].respaced(spacing_mm)

    def fitted(self, starts: Sequence[Start], stages: Sequence[str]) -> Field:
        """The field, from the best of some starts.

        Raises:
            NoCorrespondenceError: if matches do not agree with their neighbours.
        """
        affine = starts[0].affine
        if "dense" not in stages and "refine" not in stages:
            return Field(affine, (affine,), None, affine, None, {}, dict(self.timing))
        support, evidence = None, dict[str, float]()
        if "dense" in stages:
            with timed(self.timing, "dense"):
                current, affine, support, evidence = self._dense(starts)
        else:
            begin = TensorField.sampled(starts[0].transform, self.grid_of(PASSES_MM[0]), self.device)
            current = (begin,) * self.groups
        if "refine" in stages:
            with timed(self.timing, "refine"):
                current = self._refined(current, affine, support)
        else:
            current = tuple(part.on(self.field_grid) for part in current)
        world = self.field_grid.voxel_centers_on(self.device)
        whole = TensorField.moving(world, self._moved(current, world), self.field_grid).as_field()
        parts = tuple(part.as_field() for part in current) if len(current) > 1 else (whole,)
        return Field(whole, parts, self.sliding, affine, support, evidence, dict(self.timing))

    @property
    def groups(self) -> int:
        """How many groups of places may slide along each other."""
        return 1 if self.sliding is None else 2

    def _group(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) int64, to which group (N, 3) fixed positions belong."""
        if self.sliding is None or self._slides is None:
            return torch.zeros(len(positions), dtype=torch.int64, device=self.device)
        return nearest(self._slides, self.sliding.grid.world_to_index(positions))[:, 0].long()

    def _moved(self, current: Parts, positions: torch.Tensor) -> torch.Tensor:
        """Map (N, 3) fixed positions, each by the part to which it belongs."""
        moved = current[0].apply(positions)
        if len(current) > 1:
            rows = self._group(positions).nonzero()[:, 0]
            moved[rows] = current[1].apply(positions[rows])
        return moved

    def counted(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) bool, whether moving places lie in the field of view and the mask of the moving scan."""
        index = self.moving_mask.grid.world_to_index(positions)
        return self.moving.image_grid.contains(positions) & (nearest(self._moving_shown, index)[:, 0] > 0)

    # ------------------------------------------------------------------ dense matching

    @cached_property
    def _maps(self) -> Maps:
        """The finest level of both scans on the grids of the last pass."""
        grids = self.grid_of(PASSES_MM[-1]), self.grid_of(PASSES_MM[-1], moving=True)
        return fine_maps((self.fixed, self.moving), grids, self.fine)

    def _coarse(self, maps: Maps) -> Maps:
        """The same on the grids of the first pass."""
        fixed, moving = maps
        return fixed.resampled(self.grid_of(PASSES_MM[0])), moving.resampled(self.grid_of(PASSES_MM[0], moving=True))

    def _dense(self, starts: Sequence[Start]) -> tuple[Parts, AffineTransform, Support, dict[str, float]]:
        """Match every node around where it is expected, coarse to fine; of all candidates the one that fits best."""
        begun: list[tuple[Start, Parts]] = []
        for start in starts:
            begin = (TensorField.sampled(start.transform, self.grid_of(PASSES_MM[0]), self.device),) * self.groups
            if all(self._apart(begin, other) > ALIKE_MM for _, other in begun):
                begun.append((start, begin))
        coarse = self._matched_coarsely(begun)
        self.report("matching every place", 0.4)
        finer = side_by_side(coarse, lambda each: self._pass(each[2], self._maps), device=self.device)
        best: tuple[float, Parts, AffineTransform, Support] | None = None
        evidence = {}
        for (name, start, _), (fine, support) in zip(coarse, finer, strict=True):
            evidence[name] = self._agreement(fine)
            if best is None or evidence[name] > best[0]:
                best = evidence[name], fine, start.affine, support
        assert best is not None
        _, fine, affine, support = best
        nodes = self._on(support.grid)
        # A mask smaller than the distance of nodes says nothing about its share.
        share = float(support.supported[nodes].float().mean()) if bool(nodes.any()) else 1.0
        if share < LEAST_SUPPORT:
            raise NoCorrespondenceError(
                f"only {100 * share:.0f} % of the fixed scan have matches that agree with their neighbours: "
                "the scans have no reliable correspondence"
            )
        return fine, affine, support, dict(sorted(evidence.items(), key=lambda item: -item[1]))

    def _matched_coarsely(self, begun: Sequence[tuple[Start, Parts]]) -> list[tuple[str, Start, Parts]]:
        """What each kind of descriptors makes of each start: its name, the start, and the field."""
        kinds = [(self.fine, self._coarse(self._maps))]
        if self.semantic and not all(start.near for start, _ in begun):
            kinds.append(("network", fused_maps((self.fixed.levels, self.moving.levels), kinds[0][1], self.semantic)))
        self.report("matching every place, coarsely", 0.1)
        tried = [
            (start, begin, name, maps) for start, begin in begun for name, maps in (kinds[:1] if start.near else kinds)
        ]
        passed = side_by_side(tried, lambda each: self._pass(each[1], each[3])[0], device=self.device)
        coarse: list[tuple[str, Start, Parts]] = []
        for (start, _, name, _), found in zip(tried, passed, strict=True):
            if all(self._apart(found, other) > ALIKE_MM for _, _, other in coarse):
                coarse.append((f"start by {start.name}, field by {name}", start, found))
        return coarse

    def _apart(self, one: Parts, other: Parts) -> float:
        """Median distance of two fields on one grid in the body, mm."""
        world = one[0].grid.voxel_centers_on(self.device)
        away = (self._moved(one, world) - self._moved(other, world)).norm(dim=-1)
        body = self._on(one[0].grid).reshape(-1)
        return float((away[body] if bool(body.any()) else away).median())

    def _pass(self, current: Parts, maps: Maps) -> tuple[Parts, Support]:
        """Match every node within a window around where a field puts it, on the grid of the fixed map."""
        fixed, moving = maps
        work = fixed.grid
        places = self._moved(current, work.voxel_centers_on(self.device))
        shown = self.counted(places).reshape(work.shape)
        described = unit(moving.at(places)).reshape(*work.shape, -1) * shown[..., None]
        nodes = work.strided(STRIDE)
        wanted = self._on(nodes)
        if not bool(wanted.any()):  # a mask smaller than the distance of nodes
            wanted = torch.ones_like(wanted)
        volume = cost_volume(fixed.values, described, shown.float(), wanted, radius=RADIUS, stride=STRIDE)
        centers = nodes.voxel_centers_on(self.device)
        group = None if self.sliding is None else self._group(centers)[wanted.reshape(-1)]
        found = couple(volume, DENSE, group=group, groups=self.groups)
        parts = tuple(
            TensorField.moving(
                centers, part.apply(centers + work.vectors_to_world(step.double().reshape(-1, 3))), nodes
            )
            for part, step in zip(current, found.displacements, strict=True)
        )
        result = self._moved(parts, centers)
        support = judge_support(volume, found, nodes, self.counted(result).reshape(nodes.shape))
        return parts, support

    def _agreement(self, current: Parts) -> float:
        """Mean cosine of the finest level at voxels of the body, under a field; 0 where nothing is shown."""
        fixed, moving = self._maps
        rows = self._on(fixed.grid).reshape(-1).nonzero()[:, 0]
        rows = rows[:: max(1, len(rows) // COMPARED)]
        places = self._moved(current, fixed.grid.voxel_centers_on(self.device)[rows])
        cosine = (unit(moving.at(places)) * unit(fixed.values.reshape(-1, fixed.channels)[rows])).sum(dim=1)
        return float((cosine * self.counted(places)).mean())

    # ------------------------------------------------------------------ refinement

    def _refined(self, current: Parts, affine: AffineTransform, support: Support | None) -> Parts:
        """Bring descriptors into agreement between voxels, on either side of what slides."""
        group = self._group(self.field_grid.voxel_centers_on(self.device)).reshape(self.field_grid.shape)
        self.report("refining", 0.7)
        parts = [(part, self.body & (group == number)) for number, part in enumerate(current)]
        return tuple(side_by_side(parts, lambda each: self._refined_part(*each, affine, support), device=self.device))

    def _refined_part(
        self, current: TensorField, where: torch.Tensor, affine: AffineTransform, support: Support | None
    ) -> TensorField:
        """The same of one group of places: `where`, (X, Y, Z) bool on the grid of the field."""
        control = ControlGrid.over(self.field_grid, CONTROL_MM, device=self.device)
        nodes = control.grid.voxel_centers_on(self.device)
        values = control.fit((current.apply(nodes) - affine.apply(nodes)).reshape(*control.grid.shape, 3))
        grid = self.grid_of(FIELD_MM, moving=True)
        shown = FeatureMap(self._on(grid, moving=True).float()[..., None], grid)
        rows = where.reshape(-1).nonzero()[:, 0]
        if len(rows) == 0:
            return current.on(self.field_grid)
        positions = self.field_grid.voxel_centers_on(self.device)[rows]
        # Not where there is no counterpart.
        weight = where.float() if support is None else support.supported_on(self.field_grid).float()
        fine = self.fixed.levels[self.fine], self.moving.levels[self.fine]
        for maps, steps in ((self._maps, STEPS[0]), (fine, STEPS[1])):
            places = Places(self.field_grid, rows, unit(maps[0].at(positions)), weight.reshape(-1)[rows])
            values = refine(places, maps[1], shown, affine, control, values, REFINED, steps=steps)
        smooth = control.on(self.field_grid).expand(values)
        straight = TensorField.sampled(affine, self.field_grid, self.device)
        return TensorField(straight.values + smooth, self.field_grid)

    def _on(self, grid: Grid, *, moving: bool = False) -> torch.Tensor:
        """(X, Y, Z) bool, a mask on another grid: where a fourth of it or more is inside."""
        mask = self.moving_mask.grid if moving else self.fixed_mask.grid
        values = sample(
            self._moving_shown if moving else self._fixed_shown,
            mask.world_to_index(grid.voxel_centers_on(self.device)),
            fill=0.0,
        )
        return (values[:, 0] >= 0.25).reshape(grid.shape)
