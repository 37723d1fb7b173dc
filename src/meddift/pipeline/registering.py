"""The work of `Pair.register`: starts and masks of the pair are passed on to `meddift.registration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from meddift.errors import GeometryError, NoCorrespondenceError, OptionsError
from meddift.geometry import AffineTransform
from meddift.matching import fit_robust_affine
from meddift.matching.prior import MatchedPrior
from meddift.registration import Registration, register_scans
from meddift.registration.register import RIGID, STAGES, check_stages
from meddift.registration.start import Start
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """Register a pair; see `Pair.register` for arguments and errors."""
    check_stages(stages)
    if pair.settings.options.prior == "none":
        raise OptionsError(
            'registration needs to know roughly how the scans lie to each other: prior="none" does not say it'
        )
    given = [_given(mask, name) for mask, name in ((fixed_mask, "fixed"), (moving_mask, "moving"))]
    if not pair.starts:
        raise NoCorrespondenceError(pair.without_prior)
    masks = [
        _automatic(scan, body=body) if mask is None else mask
        for scan, mask, body in zip((pair.fixed, pair.moving), given, (True, symmetric), strict=True)
    ]
    starts = (_rigid(pair),) if tuple(stages) == RIGID else pair.starts
    whole = (
        tuple(stages) == STAGES and fixed_mask is None and moving_mask is None and not diffeomorphic and not symmetric
    )
    result = register_scans(
        *pair.described,
        starts,
        fixed_mask=masks[0],
        moving_mask=masks[1],
        stages=tuple(stages),
        diffeomorphic=diffeomorphic,
        back=[_reversed(start) for start in starts] if symmetric else (),
        # With all stages and no masks this is the field that `match` uses.
        field=pair.field if whole else None,
        sliding=pair.fixed.lungs,
        on_progress=pair.report,
    )
    pair.report("done", 1.0)
    made = {"stages": list(stages), "diffeomorphic": diffeomorphic or symmetric, "symmetric": symmetric}
    timing = {**pair.timing, **result.timing}
    provenance = {**pair.provenance, "registration": made}
    return replace(
        result,
        timing=timing,
        provenance=provenance,
        scans=(pair.fixed.volume, pair.moving.volume),
        drawing=partial(_draw, pair),
    )


def _draw(pair: Pair, registration: Registration) -> Figure:
    from meddift.pipeline.picture import draw_registration

    return draw_registration(pair.fixed.volume, pair.moving.volume, registration)


def _given(mask: Volume | None, name: str) -> Volume | None:
    """The given mask as (X, Y, Z) bool; None if none was given."""
    if mask is None:
        return None
    if mask.data.ndim != 3:
        raise GeometryError(f"the {name} mask must have three axes, got data of shape {mask.data.shape}")
    given = Volume(np.asarray(mask.data > 0), mask.grid)
    if not given.data.any():
        raise NoCorrespondenceError(f"the {name} mask is empty: nothing in it is above 0")
    return given


def _automatic(scan: EncodedScan, *, body: bool) -> Volume:
    """(X, Y, Z) bool, the body or else the whole scan: an automatic mask might leave out anatomy that is needed."""
    return scan.body if body else Volume(np.ones(scan.grid.shape, dtype=bool), scan.grid)


def _rigid(pair: Pair) -> Start:
    """A rigid start: fitted robustly to the matches of the first start, or closest to the given prior in the body."""
    start = pair.starts[0]
    if isinstance(start.transform, MatchedPrior):
        fixed, moving = start.transform.matches
        seed = pair.settings.options.seed
        rigid = fit_robust_affine(fixed, moving, tolerance_mm=20.0, seed=seed, rigid=True).transform
    else:
        places = pair.body_places
        rigid = AffineTransform.fit_rigid(places, start.transform.apply(places))
    return Start(start.name, rigid, rigid)


def _reversed(start: Start) -> Start:
    """The inverse of a start: from the moving to the fixed scan."""
    return Start(start.name, start.transform.inverted(), start.affine.inverted())
