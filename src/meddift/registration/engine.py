"""Fitting the displacement field between two scans: dense matching of candidates, and refinement of the best.

There may be several starts (from levels of the network, from MIND) and several kinds of descriptors. Self-consistency
does not tell which of them to trust: a network that was not trained on a contrast can be consistent and wrong.
Therefore every candidate is matched coarsely, then finely with the level with the finest detail, and the candidate
under which this level agrees best is chosen.
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
from meddift.system.timing import timed

#: Spacing of the control points of the refinement, mm, and its smoothness.
CONTROL_MM = 8.0
REFINED = Smoothness(bending=0.004, stretching=0.0001)
#: Gauss-Newton steps on the coarse grid, and with the fine level at its own resolution.
STEPS = (3, 5)


@dataclass
class FieldWork:
    """The fit of one field.

    Attributes:
        scans: The fixed and the moving scan.
        report: Called with stage and fraction as work goes on.
        timing: Name of a stage -> seconds spent so far.
    """

    scans: ComparedScans
    report: Progress
    timing: dict[str, float] = field(default_factory=dict)

    def fitted(self, starts: Sequence[Start], stages: Sequence[str]) -> Field:
        """Fit the field.

        Args:
            starts: Initial transforms; without dense matching only the first one is used.
            stages: Some of `register.STAGES`.

        Returns:
            The field; the affine of the first start if there is neither dense matching nor refinement.

        Raises:
            NoCorrespondenceError: if too few matches agree with their neighbours.
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
        """Refine the fields of all sliding groups to sub-voxel accuracy."""
        scans = self.scans
        self.report("refining", 0.7)
        control = ControlGrid.over(scans.field_grid, CONTROL_MM, device=scans.device)
        nodes = control.grid.voxel_centers_on(scans.device)
        straight = affine.apply(nodes)
        values = torch.stack(
            [control.fit((part.apply(nodes) - straight).reshape(*control.grid.shape, 3)) for part in current]
        )
        grid = scans.grid_of(FIELD_MM, moving=True)
        shown = FeatureMap(scans.mask_on(grid, moving=True).float()[..., None], grid)
        rows = scans.body.reshape(-1).nonzero()[:, 0]
        positions = scans.field_grid.voxel_centers_on(scans.device)[rows]
        group = scans.group_of(positions)
        # Voxels without a counterpart have no weight.
        weight = positions.new_ones(len(rows), dtype=torch.float32)
        if support is not None:
            weight = support.supported_on(scans.field_grid).float().reshape(-1)[rows]
        fine = scans.fixed.levels[scans.fine], scans.moving.levels[scans.fine]
        for maps, steps in ((scans.maps, STEPS[0]), (fine, STEPS[1])):
            places = Places(scans.field_grid, rows, unit(maps[0].at(positions)), weight, group)
            values = refine(places, maps[1], shown, affine, control, values, REFINED, steps=steps)
        begin = TensorField.sampled(affine, scans.field_grid, scans.device).values
        on_field = control.on(scans.field_grid)
        return tuple(TensorField(begin + on_field.expand(own), scans.field_grid) for own in values)
