"""The displacement field between two scans: candidates are matched densely, the one that fits best is refined.

Where the scans lie to each other may have been found in several ways (by levels of the network, by MIND), and places
may be compared by several kinds of descriptors. None is trusted for what it says of itself: a network that does not
know a contrast agrees with itself and is wrong. Every candidate is matched coarsely, then finely by the level with
the finest detail, and the candidate under which that level agrees best is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from meddift.geometry import AffineTransform
from meddift.matching.descriptors import unit
from meddift.registration.candidates import match_densely
from meddift.registration.compared import FIELD_MM, PASSES_MM, ComparedScans, Parts
from meddift.registration.feature_map import FeatureMap
from meddift.registration.field import TensorField
from meddift.registration.fitted import Field
from meddift.registration.refine import Places, refine
from meddift.registration.smoothness import Smoothness
from meddift.registration.spline import ControlGrid
from meddift.registration.start import Start
from meddift.registration.support import Support
from meddift.system.progress import Progress
from meddift.system.threads import side_by_side
from meddift.system.timing import timed

#: Distance of the control points of the refinement, mm, and how smooth it is.
CONTROL_MM = 8.0
REFINED = Smoothness(bending=0.004, stretching=0.0001)
#: Gauss-Newton steps on the coarse grid, then with the fine level as it is.
STEPS = (3, 5)


@dataclass
class FieldWork:
    """One field under way.

    Attributes:
        scans: The fixed and the moving scan.
        report: Told how far the work is.
        timing: Seconds of each stage so far.
    """

    scans: ComparedScans
    report: Progress
    timing: dict[str, float] = field(default_factory=dict)

    def fitted(self, starts: Sequence[Start], stages: Sequence[str]) -> Field:
        """The field, from the best of some starts.

        Raises:
            NoCorrespondenceError: if matches do not agree with their neighbours.
        """
        scans, affine = self.scans, starts[0].affine
        if "dense" not in stages and "refine" not in stages:
            return Field(affine, (affine,), None, affine, None, {}, dict(self.timing))
        support, evidence = None, dict[str, float]()
        if "dense" in stages:
            with timed(self.timing, "dense"):
                best, evidence = match_densely(scans, starts, self.report)
                current, affine, support = best.parts, best.affine, best.support
        else:
            begin = TensorField.sampled(starts[0].transform, scans.grid_of(PASSES_MM[0]), scans.device)
            current = (begin,) * scans.groups
        if "refine" in stages:
            with timed(self.timing, "refine"):
                current = self._refined(current, affine, support)
        else:
            current = tuple(part.on(scans.field_grid) for part in current)
        world = scans.field_grid.voxel_centers_on(scans.device)
        whole = TensorField.moving(world, scans.moved(current, world), scans.field_grid).as_field()
        parts = tuple(part.as_field() for part in current) if len(current) > 1 else (whole,)
        return Field(whole, parts, scans.sliding, affine, support, evidence, dict(self.timing))

    def _refined(self, current: Parts, affine: AffineTransform, support: Support | None) -> Parts:
        """Bring descriptors into agreement between voxels, on either side of what slides."""
        scans = self.scans
        group = scans.group_of(scans.field_grid.voxel_centers_on(scans.device)).reshape(scans.field_grid.shape)
        self.report("refining", 0.7)
        parts = [(part, scans.body & (group == number)) for number, part in enumerate(current)]
        return tuple(side_by_side(parts, lambda each: self._refined_part(*each, affine, support), device=scans.device))

    def _refined_part(
        self, current: TensorField, where: torch.Tensor, affine: AffineTransform, support: Support | None
    ) -> TensorField:
        """The same of one group of places: `where`, (X, Y, Z) bool on the grid of the field."""
        scans = self.scans
        control = ControlGrid.over(scans.field_grid, CONTROL_MM, device=scans.device)
        nodes = control.grid.voxel_centers_on(scans.device)
        values = control.fit((current.apply(nodes) - affine.apply(nodes)).reshape(*control.grid.shape, 3))
        grid = scans.grid_of(FIELD_MM, moving=True)
        shown = FeatureMap(scans.mask_on(grid, moving=True).float()[..., None], grid)
        rows = where.reshape(-1).nonzero()[:, 0]
        if len(rows) == 0:
            return current.on(scans.field_grid)
        positions = scans.field_grid.voxel_centers_on(scans.device)[rows]
        # Not where there is no counterpart.
        weight = where.float() if support is None else support.supported_on(scans.field_grid).float()
        fine = scans.fixed.levels[scans.fine], scans.moving.levels[scans.fine]
        for maps, steps in ((scans.maps, STEPS[0]), (fine, STEPS[1])):
            places = Places(scans.field_grid, rows, unit(maps[0].at(positions)), weight.reshape(-1)[rows])
            values = refine(places, maps[1], shown, affine, control, values, REFINED, steps=steps)
        smooth = control.on(scans.field_grid).expand(values)
        straight = TensorField.sampled(affine, scans.field_grid, scans.device)
        return TensorField(straight.values + smooth, scans.field_grid)
