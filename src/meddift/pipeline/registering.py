"""What `Pair.register` does: the prior, the masks, and the rest by `meddift.registration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from meddift.body import body_of, foreground_of
from meddift.errors import GeometryError, NoCorrespondenceError
from meddift.geometry import AffineTransform, Transform
from meddift.matching.prior import MatchedPrior
from meddift.models.intensity import IntensityChoice
from meddift.registration import Registration, register_pyramids
from meddift.registration.inverse import NumericalInverse
from meddift.registration.register import check_stages
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.pipeline.pair import Pair


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
    masks = [
        _mask(volume, choice, mask, role, symmetric)
        for volume, choice, mask, role in zip(
            (pair.fixed, pair.moving), pair.intensity, (fixed_mask, moving_mask), ("fixed", "moving"), strict=True
        )
    ]
    fixed, moving = pair.pyramids
    start = pair.prior
    if start is None:
        raise NoCorrespondenceError(
            pair.without_prior
            or 'registration needs to know roughly how the scans lie to each other: prior="none" does not say it'
        )
    result = register_pyramids(
        fixed,
        moving,
        start,
        _affine_of(start, masks[0]),
        fixed_mask=masks[0],
        moving_mask=masks[1],
        stages=tuple(stages),
        diffeomorphic=diffeomorphic,
        back=_swapped(start) if symmetric else None,
        on_progress=pair.report,
    )
    pair.report("done", 1.0)
    made = {"stages": list(stages), "diffeomorphic": diffeomorphic or symmetric, "symmetric": symmetric}
    timing = {**pair.timing, **result.timing}
    return replace(result, timing=timing, provenance={**pair.provenance, "registration": made})


def _mask(volume: Volume, choice: IntensityChoice, mask: Volume | None, role: str, symmetric: bool) -> Volume:
    """The mask that was given, or the body in the fixed scan and everything in the moving one."""
    if mask is not None:
        if mask.data.ndim != 3:
            raise GeometryError(f"the {role} mask must have three axes, got data of shape {mask.data.shape}")
        given = Volume(np.asarray(mask.data > 0), mask.grid)
        if not given.data.any():
            raise NoCorrespondenceError(f"the {role} mask is empty: nothing in it is above 0")
        return given
    # Of the moving scan everything counts: a mask found automatically may miss what is needed.
    if role == "fixed" or symmetric:
        return body_of(volume) if choice.hounsfield else foreground_of(volume)
    return Volume(np.ones(volume.grid.shape, dtype=bool), volume.grid)


def _swapped(start: Transform) -> Transform:
    """Where moving points are expected in the fixed scan."""
    if isinstance(start, MatchedPrior):
        return start.swapped()
    return start.inverted() if isinstance(start, AffineTransform) else NumericalInverse.of(start)


def _affine_of(start: Transform, mask: Volume) -> AffineTransform:
    """The affine closest to a transform within a mask."""
    if isinstance(start, MatchedPrior):
        return start.affine
    if isinstance(start, AffineTransform):
        return start
    voxels = np.argwhere(mask.data)
    positions = mask.grid.index_to_world(voxels[:: max(1, len(voxels) // 2000)])
    return AffineTransform.fit(positions, start.apply(positions))
