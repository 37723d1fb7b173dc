"""Registration of two scans: the transform, its inverse, and measures of their reliability."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from meddift.errors import OptionsError
from meddift.geometry import AffineTransform, Transform
from meddift.registration.compared import FIELD_MM, ComparedScans
from meddift.registration.diffeomorphic import VelocityField
from meddift.registration.engine import FieldWork
from meddift.registration.feature_map import DescribedScan
from meddift.registration.field import TensorField
from meddift.registration.fitted import Field
from meddift.registration.inverse import InverseResidual, invert
from meddift.registration.jacobian import folding, sd_log_jacobian
from meddift.registration.result import Registration
from meddift.registration.start import Start
from meddift.system.progress import Progress, silent
from meddift.volume import Volume

#: Stages of a registration, in order.
STAGES = ("affine", "dense", "refine")
#: The stages of a rigid registration.
RIGID = ("rigid",)
#: Number of points at which the inverse-consistency error is measured.
CHECKED = 4000


def register_scans(
    fixed: DescribedScan,
    moving: DescribedScan,
    starts: Sequence[Start],
    *,
    fixed_mask: Volume,
    moving_mask: Volume,
    stages: Sequence[str] = STAGES,
    diffeomorphic: bool = False,
    back: Sequence[Start] = (),
    field: Field | None = None,
    sliding: Volume | None = None,
    on_progress: Progress | None = None,
) -> Registration:
    """Fit one transform to two scans.

    Args:
        fixed: The fixed scan; its device is used.
        moving: The moving scan, on the same device.
        starts: Initial transforms, fixed to moving, found in one or several ways.
        fixed_mask: (X, Y, Z) bool, where the fixed scan is compared; elsewhere the transform is extrapolated smoothly.
        moving_mask: (X, Y, Z) bool, where the moving scan may be matched.
        stages: "affine", then optionally "dense", then optionally "refine"; or "rigid" alone.
        diffeomorphic: Whether the transform is the exponential of a stationary velocity field, which cannot fold; its
            inverse is the exponential of the negative field. Both are sampled every 4 mm, so the inverse-consistency
            error is not smaller than otherwise.
        back: Initial transforms, moving to fixed; if there are any, both directions are registered and their velocity
            fields averaged, so that exchanging the scans gives the inverse.
        field: The field of these stages and masks, if it has been fitted already.
        sliding: (X, Y, Z) bool, region of the fixed scan that may slide along the rest; ignored if the result is
            diffeomorphic.
        on_progress: Called with stage and fraction as work goes on.

    Returns:
        The registration.

    Raises:
        OptionsError: if the stages are invalid.
        NoCorrespondenceError: if the mask of the fixed scan is empty, or too few matches agree with their neighbours.
    """
    check_stages(stages)
    report = on_progress or silent
    smooth = diffeomorphic or bool(back)
    scans = ComparedScans(fixed, moving, fixed_mask, moving_mask, None if smooth else sliding)
    work = FieldWork(scans, report)
    found = work.fitted(starts, stages) if field is None else field
    if isinstance(found.transform, AffineTransform):
        return _finished(work, found, found.transform, None, tuple(stages))
    transform = TensorField.sampled(found.transform, scans.field_grid, scans.device)
    if not smooth:
        return _finished(work, found, transform, None, tuple(stages))
    straight = found.affine.inverted()
    velocity = VelocityField.of((transform, straight), scans.field_grid, scans.device)
    if back:
        other = ComparedScans(moving, fixed, moving_mask, fixed_mask)
        reverse = FieldWork(other, report, work.timing).fitted(back, stages)
        there = TensorField.sampled(reverse.transform, other.field_grid, scans.device)
        returning = invert(there, reverse.affine, scans.field_grid, scans.device)
        velocity = velocity.averaged(VelocityField.of((returning, straight), scans.field_grid, scans.device))
    forward = velocity.flow().then(found.affine)
    inverse_grid = scans.grid_of(FIELD_MM, moving=True)
    world = inverse_grid.voxel_centers_on(scans.device)
    backward = TensorField.moving(world, velocity.flow(-1.0).apply(straight.apply(world)), inverse_grid)
    return _finished(work, found, forward, backward, tuple(stages))


def check_stages(stages: Sequence[str]) -> None:
    """Raise OptionsError unless stages are `RIGID`, or some of `STAGES`, each once, in order, "affine" first."""
    if tuple(stages) == RIGID:
        return
    wanted = [stage for stage in STAGES if stage in stages]
    if list(stages) != wanted or "affine" not in stages:
        raise OptionsError(
            f"stages are affine, dense, refine in this order, and affine is always one of them, or rigid alone; "
            f"got {','.join(stages)}"
        )


def _finished(
    work: FieldWork,
    field: Field,
    transform: TensorField | AffineTransform,
    inverse: TensorField | None,
    stages: tuple[str, ...],
) -> Registration:
    """Measure a transform, compute its inverse if it is None, and collect the results in main memory."""
    scans = work.scans
    work.report("inverting", 0.9)
    started = time.perf_counter()
    grid = scans.field_grid
    dense = TensorField.sampled(transform, grid, scans.device)
    world = grid.voxel_centers_on(scans.device)
    # On its own grid the field needs no interpolation.
    counted = scans.counted(world + dense.values.reshape(-1, 3))
    if isinstance(transform, TensorField) and inverse is None:
        inverse = invert(transform, field.affine, scans.grid_of(FIELD_MM, moving=True), scans.device)
    final: Transform = transform if isinstance(transform, AffineTransform) else transform.as_field()
    back: Transform = final.inverted() if inverse is None else inverse.as_field()
    inside = (counted & scans.body.reshape(-1)).nonzero()[:, 0]
    residual = InverseResidual.of(final, back, world[inside[:: max(1, len(inside) // CHECKED)]].cpu().numpy())
    supported, uncertainty = counted, np.full(grid.shape, np.nan, dtype=np.float32)
    if field.support is not None:
        known = field.support.on(scans.device)
        supported, uncertainty = (
            known.supported_at(world),
            known.uncertainty_at(world).reshape(grid.shape).cpu().numpy(),
        )
    body = scans.body.cpu().numpy()
    determinant = Volume(dense.determinant().cpu().numpy(), grid)
    return Registration(
        transform=final,
        inverse=back,
        inverse_residual=residual,
        affine=field.affine,
        determinant=determinant,
        uncertainty=Volume(uncertainty, grid),
        supported=Volume((supported.reshape(grid.shape) & scans.body).cpu().numpy(), grid),
        body=Volume(body, grid),
        folding=folding(determinant.data[body]),
        sd_log_jacobian=sd_log_jacobian(determinant.data[body]),
        stages=stages,
        timing={**field.timing, **work.timing, "inverse": time.perf_counter() - started},
    )
