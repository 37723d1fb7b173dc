"""What `Pair.register` does: the prior, the masks, and the rest by `meddift.registration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from meddift.errors import GeometryError, NoCorrespondenceError, OptionsError
from meddift.geometry import AffineTransform, Transform
from meddift.matching.prior import MatchedPrior
from meddift.registration import Registration, register_scans
from meddift.registration.feature_map import DescribedScan, FeatureMap
from meddift.registration.register import check_stages
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.pipeline.direction import Side
    from meddift.pipeline.pair import Pair
    from meddift.pipeline.scan import EncodedScan


def register_pair(
    pair: Pair,
    *,
    stages: Sequence[str],
    fixed_mask: Volume | None,
    moving_mask: Volume | None,
    diffeomorphic: bool,
    symmetric: bool,
) -> Registration:
    """See `Pair.register`."""
    check_stages(stages)
    if pair.settings.options.prior == "none":
        raise OptionsError(
            'registration needs to know roughly how the scans lie to each other: prior="none" does not say it'
        )
    masks = [
        _mask(scan, mask, name, automatic=name == "fixed" or symmetric)
        for scan, mask, name in ((pair.fixed, fixed_mask, "fixed"), (pair.moving, moving_mask, "moving"))
    ]
    start = pair.prior
    if start is None:
        raise NoCorrespondenceError(pair.without_prior)
    fixed, moving = (_described(side) for side in pair.sides)
    result = register_scans(
        fixed,
        moving,
        start,
        _affine_of(start, masks[0]),
        fixed_mask=masks[0],
        moving_mask=masks[1],
        stages=tuple(stages),
        diffeomorphic=diffeomorphic,
        back=start.inverted() if symmetric else None,
        on_progress=pair.report,
    )
    pair.report("done", 1.0)
    made = {"stages": list(stages), "diffeomorphic": diffeomorphic or symmetric, "symmetric": symmetric}
    timing = {**pair.timing, **result.timing}
    return replace(result, timing=timing, provenance={**pair.provenance, "registration": made})


def _described(side: Side) -> DescribedScan:
    """All levels of a scan on the device, whitened where they are compared so."""
    scan, whitening = side.scan, side.every.whitening
    levels = {
        level.name: FeatureMap(
            whitening[level.name].whiten(scan.tensors[level.name])
            if level.name in whitening
            else scan.tensors[level.name],
            level.grid,
        )
        for level in scan.pyramid.levels
    }
    return DescribedScan(levels, scan.grid)


def _mask(scan: EncodedScan, mask: Volume | None, name: str, *, automatic: bool) -> Volume:
    """The mask that was given, or the body in the fixed scan and everything in the moving one."""
    if mask is not None:
        if mask.data.ndim != 3:
            raise GeometryError(f"the {name} mask must have three axes, got data of shape {mask.data.shape}")
        given = Volume(np.asarray(mask.data > 0), mask.grid)
        if not given.data.any():
            raise NoCorrespondenceError(f"the {name} mask is empty: nothing in it is above 0")
        return given
    # Of the moving scan everything counts: a mask found automatically may miss what is needed.
    return scan.body if automatic else Volume(np.ones(scan.grid.shape, dtype=bool), scan.grid)


def _affine_of(start: Transform, mask: Volume) -> AffineTransform:
    """The affine closest to a transform within a mask."""
    if isinstance(start, MatchedPrior):
        return start.affine
    if isinstance(start, AffineTransform):
        return start
    voxels = np.argwhere(mask.data)
    positions = mask.grid.index_to_world(voxels[:: max(1, len(voxels) // 2000)])
    return AffineTransform.fit(positions, start.apply(positions))
