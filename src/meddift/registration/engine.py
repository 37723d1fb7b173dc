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

import numpy as np
import torch

from meddift.errors import NoCorrespondenceError
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Grid, Transform, nearest, sample
from meddift.matching.cost_volume import cost_volume
from meddift.matching.descriptors import unit
from meddift.registration.dense import couple
from meddift.registration.feature_map import DescribedScan, FeatureMap, fused_maps
from meddift.registration.field import TensorField
from meddift.registration.refine import Places, refine
from meddift.registration.smoothness import Smoothness
from meddift.registration.spline import ControlLattice
from meddift.registration.support import Support, judge_support
from meddift.system.progress import Progress
from meddift.system.timing import timed
from meddift.volume import Volume

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
#: Gauss-Newton steps on the coarse lattice, then with the fine level as it is.
STEPS = (3, 5)
#: Semantic levels with voxels larger than this, mm, say too little about a place to be compared densely.
COARSEST_MM = 10.0
#: With less of the body supported than this, the scans have nothing reliable in common.
LEAST_SUPPORT = 0.1
#: Two candidates that differ by less than this in the median, mm, are one.
ALIKE_MM = 2.0
#: Voxels at which candidates are compared.
COMPARED = 40_000


@dataclass(frozen=True, eq=False)
class Start:
    """Where points are expected, before anything was matched densely.

    Attributes:
        name: Which levels found it; for reports.
        transform: Fixed to moving.
        affine: Its affine part.
    """

    name: str
    transform: Transform
    affine: AffineTransform


@dataclass(frozen=True, eq=False)
class Field:
    """What dense stages have found.

    Attributes:
        transform: Fixed to moving; a `DisplacementField` where anything was matched densely, else the affine.
        affine: Its affine part.
        support: Where the scans have something in common; None where nothing was matched densely.
        evidence: Name of each candidate -> mean cosine of the finest level under it; the first was kept.
        timing: Seconds of each stage.
    """

    transform: Transform
    affine: AffineTransform
    support: Support | None
    evidence: dict[str, float]
    timing: dict[str, float]


@dataclass
class FieldWork:
    """One field under way, on the device on which descriptors are.

    Attributes:
        fixed: The fixed scan.
        moving: The moving scan, on the same device.
        fixed_mask: (X, Y, Z) bool, where the fixed scan is compared; elsewhere the transform is continued smoothly.
        moving_mask: (X, Y, Z) bool, what of the moving scan counts.
        report: Told how far the work is.
        timing: Seconds of each stage so far.

    Raises:
        NoCorrespondenceError: if the mask of the fixed scan is empty.
    """

    fixed: DescribedScan
    moving: DescribedScan
    fixed_mask: Volume
    moving_mask: Volume
    report: Progress
    timing: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lattices, masks on the device, and levels."""
        self.device = self.fixed.device
        self.field_grid = self.lattice(FIELD_MM)
        self._fixed_shown, self._moving_shown = (
            torch.from_numpy(np.ascontiguousarray(mask.data)).to(self.device)[..., None].float()
            for mask in (self.fixed_mask, self.moving_mask)
        )
        self.body = self._on(self.field_grid)
        levels = self.fixed.levels
        self.fine = MIND if MIND in levels else list(levels)[-1]
        self.semantic = [
            name for name, level in levels.items() if name != self.fine and level.grid.spacing.max() <= COARSEST_MM
        ]
        if not bool(self.body.any()):
            raise NoCorrespondenceError("the mask of the scan is empty: there is nothing to register")

    def lattice(self, spacing_mm: float, *, moving: bool = False) -> Grid:
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
            return Field(affine, affine, None, {}, dict(self.timing))
        support, evidence = None, dict[str, float]()
        if "dense" in stages:
            with timed(self.timing, "dense"):
                current, affine, support, evidence = self._dense(starts)
        else:
            current = TensorField.sampled(starts[0].transform, self.lattice(PASSES_MM[0]), self.device)
        if "refine" in stages:
            with timed(self.timing, "refine"):
                current = self._refined(current, affine, support)
        else:
            current = current.on(self.field_grid)
        return Field(current.as_field(), affine, support, evidence, dict(self.timing))

    def counted(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) bool, whether moving places lie in the field of view and the mask of the moving scan."""
        index = self.moving_mask.grid.world_to_index(positions)
        return self.moving.image_grid.contains(positions) & (nearest(self._moving_shown, index)[:, 0] > 0)

    # ------------------------------------------------------------------ dense matching

    @cached_property
    def _maps(self) -> tuple[FeatureMap, FeatureMap]:
        """The finest level of both scans on the lattices of the last pass."""
        return self._fused([])

    def _fused(self, semantic: Sequence[str]) -> tuple[FeatureMap, FeatureMap]:
        """The finest level, beside semantic ones."""
        grids = self.lattice(PASSES_MM[-1]), self.lattice(PASSES_MM[-1], moving=True)
        return fused_maps((self.fixed.levels, self.moving.levels), grids, semantic=semantic, fine=self.fine)

    def _dense(self, starts: Sequence[Start]) -> tuple[TensorField, AffineTransform, Support, dict[str, float]]:
        """Match every node around where it is expected, coarse to fine; of all candidates the one that fits best."""
        kinds = [(self.fine, self._maps)]
        if self.semantic:
            kinds.append(("network", self._fused(self.semantic)))
        coarse: list[tuple[str, Start, TensorField]] = []
        for number, start in enumerate(starts):
            self.report("matching every place, coarsely", 0.1 + 0.3 * number / len(starts))
            for name, maps in kinds:
                begin = TensorField.sampled(start.transform, self.lattice(PASSES_MM[0]), self.device)
                found, _ = self._pass(begin, maps, PASSES_MM[0])
                if all(self._apart(found, other) > ALIKE_MM for _, _, other in coarse):
                    coarse.append((f"start by {start.name}, field by {name}", start, found))
        best: tuple[float, TensorField, AffineTransform, Support] | None = None
        evidence = {}
        for number, (name, start, found) in enumerate(coarse):
            self.report("matching every place", 0.4 + 0.3 * number / len(coarse))
            fine, support = self._pass(found, self._maps, PASSES_MM[-1])
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

    def _apart(self, one: TensorField, other: TensorField) -> float:
        """Median distance of two fields on one lattice in the body, mm."""
        away = (one.values - other.values).norm(dim=-1)
        body = self._on(one.grid)
        return float((away[body] if bool(body.any()) else away).median())

    def _pass(
        self, current: TensorField, maps: tuple[FeatureMap, FeatureMap], spacing: float
    ) -> tuple[TensorField, Support]:
        """Match every node within a window around where a field puts it."""
        work = self.lattice(spacing)
        fixed, moving = maps
        if spacing != PASSES_MM[-1]:
            fixed, moving = fixed.resampled(work), moving.resampled(self.lattice(spacing, moving=True))
        places = current.apply(work.voxel_centers_on(self.device))
        shown = self.counted(places).reshape(work.shape)
        described = unit(moving.at(places)).reshape(*work.shape, -1) * shown[..., None]
        nodes = work.strided(STRIDE)
        wanted = self._on(nodes)
        if not bool(wanted.any()):  # a mask smaller than the distance of nodes
            wanted = torch.ones_like(wanted)
        volume = cost_volume(fixed.values, described, shown.float(), wanted, radius=RADIUS, stride=STRIDE)
        found = couple(volume, DENSE)
        centers = nodes.voxel_centers_on(self.device)
        result = current.apply(centers + work.vectors_to_world(found.displacement.double().reshape(-1, 3)))
        support = judge_support(volume, found, nodes, self.counted(result).reshape(nodes.shape))
        return TensorField.moving(centers, result, nodes), support

    def _agreement(self, current: TensorField) -> float:
        """Mean cosine of the finest level at voxels of the body, under a field; 0 where nothing is shown."""
        fixed, moving = self._maps
        rows = self._on(fixed.grid).reshape(-1).nonzero()[:, 0]
        rows = rows[:: max(1, len(rows) // COMPARED)]
        places = current.apply(fixed.grid.voxel_centers_on(self.device)[rows])
        cosine = (unit(moving.at(places)) * unit(fixed.values.reshape(-1, fixed.channels)[rows])).sum(dim=1)
        return float((cosine * self.counted(places)).mean())

    # ------------------------------------------------------------------ refinement

    def _refined(self, current: TensorField, affine: AffineTransform, support: Support | None) -> TensorField:
        """Bring descriptors into agreement between voxels."""
        lattice = ControlLattice.over(self.field_grid, CONTROL_MM, device=self.device)
        nodes = lattice.grid.voxel_centers_on(self.device)
        values = lattice.fit((current.apply(nodes) - affine.apply(nodes)).reshape(*lattice.grid.shape, 3))
        grid = self.lattice(FIELD_MM, moving=True)
        shown = FeatureMap(self._on(grid, moving=True).float()[..., None], grid)
        rows = self.body.reshape(-1).nonzero()[:, 0]
        positions = self.field_grid.voxel_centers_on(self.device)[rows]
        # Not where there is no counterpart.
        weight = self.body.float() if support is None else support.supported_on(self.field_grid).float()
        fine = self.fixed.levels[self.fine], self.moving.levels[self.fine]
        for number, (maps, steps) in enumerate(((self._maps, STEPS[0]), (fine, STEPS[1]))):
            self.report("refining", 0.7 + 0.1 * number)
            places = Places(self.field_grid, rows, unit(maps[0].at(positions)), weight[self.body])
            values = refine(places, maps[1], shown, affine, lattice, values, REFINED, steps=steps)
        smooth = lattice.on(self.field_grid).expand(values)
        straight = TensorField.sampled(affine, self.field_grid, self.device)
        return TensorField(straight.values + smooth, self.field_grid)

    def _on(self, grid: Grid, *, moving: bool = False) -> torch.Tensor:
        """(X, Y, Z) bool, a mask on another lattice: where a fourth of it or more is inside."""
        mask = self.moving_mask.grid if moving else self.fixed_mask.grid
        values = sample(
            self._moving_shown if moving else self._fixed_shown,
            mask.world_to_index(grid.voxel_centers_on(self.device)),
            fill=0.0,
        )
        return (values[:, 0] >= 0.25).reshape(grid.shape)
