"""Initial transforms of a pair before dense matching: as given by the user, or found by matching landmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError
from meddift.features import Pyramid
from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Grid, Transform
from meddift.geometry.inverse import NumericalInverse
from meddift.matching import SearchIndex
from meddift.matching.prior import MatchedPrior, match_prior
from meddift.pipeline.direction import Side
from meddift.pipeline.kept_prior import keep_prior
from meddift.registration.compared import FIELD_MM, matching_grid
from meddift.registration.start import Start
from meddift.system.threads import side_by_side
from meddift.system.timing import timed

if TYPE_CHECKING:
    from meddift.pipeline.known_field import KnownField
    from meddift.pipeline.scan import EncodedScan
    from meddift.pipeline.scan_pair import ScanPair

#: Number of landmarks that are matched to find the initial transforms.
PRIOR_POINTS = 256
#: The network matches every second of them in the first round, which searches everywhere: enough for an affine.
FIRST_EVERY = 2


def prior_places(scan: EncodedScan) -> NDArray[np.float64]:
    """(N, 3) float64, world RAS mm: the landmarks of a scan, at most `PRIOR_POINTS`."""
    return scan.landmarks(PRIOR_POINTS)


def agreeing_shares(starts: Sequence[Start]) -> dict[str, float]:
    """Name of each start found by matching -> share of the landmarks whose matches agree with their neighbours."""
    return {
        start.name: len(start.transform.anchors) / PRIOR_POINTS
        for start in starts
        if isinstance(start.transform, MatchedPrior)
    }


def find_starts(pair: ScanPair, *, prior: Transform | None, back: KnownField | None) -> tuple[tuple[Start, ...], str]:
    """Find the initial transforms of a pair.

    Args:
        pair: The pair; the prior of its options applies if neither of the following is given.
        prior: Transform, fixed to moving, that is known to be correct to within a few mm.
        back: The results of the exchanged pair.

    Returns:
        The starts, the one with most agreeing matches first (none if points are searched everywhere), and the reason
        if a start was required but not found, else "".

    Raises:
        TransformError: if the prior is a file that cannot be read.
    """
    if back is not None:
        way = NumericalInverse(back.field.transform, back.field.affine)
        return (Start("the way back", way, back.field.affine.inverted()),), ""
    if prior is not None:
        return (Start("prior", prior, _affine_of(pair, prior), near=True),), ""
    wanted = pair.settings.options.prior
    if isinstance(wanted, Path):
        from meddift.io import read_transform

        wanted = read_transform(wanted)
    if wanted == "none":
        return (), ""
    if wanted == "identity":
        wanted = AffineTransform.identity()
    if not isinstance(wanted, str):
        return (Start("prior", wanted, _affine_of(pair, wanted)),), ""
    return _matched_starts(pair)


def _matched_starts(pair: ScanPair) -> tuple[tuple[Start, ...], str]:
    """Starts found by matching landmarks over the whole scan: with the network's levels, and with MIND."""
    pair.report("finding out how the scans lie to each other", 0.6)
    learned = bool(pair.settings.extraction.network_levels)
    semantic = pair.sides[0].semantic
    ways: list[tuple[str, Pyramid, Grid, Callable[[Side], SearchIndex]]] = [
        ("network" if learned else MIND, semantic.pyramid, semantic.grid, lambda side: side.semantic)
    ]
    if learned and MIND in pair.fixed.pyramid.names:
        mind = pair.fixed.pyramid.select([MIND])
        ways.append((MIND, mind, matching_grid(pair.fixed.grid, FIELD_MM), lambda side: side.blurred))

    def look(way: tuple[str, Pyramid, Grid, Callable[[Side], SearchIndex]]) -> Start | str:
        name, levels, grid, index_of = way
        try:
            matched = _matched_prior(pair, levels, grid, index_of)
        except NoCorrespondenceError as error:
            return str(error)
        return Start(name, matched, matched.affine)

    with timed(pair.timing, "prior"):
        answers = side_by_side(ways, look, device=pair.settings.runtime.device)
    found = [answer for answer in answers if isinstance(answer, Start)]
    reasons = [answer for answer in answers if isinstance(answer, str)]
    found.sort(key=lambda start: -len(start.transform.anchors) if isinstance(start.transform, MatchedPrior) else 0)
    return tuple(found), "" if found else reasons[0]


def _matched_prior(
    pair: ScanPair, levels: Pyramid, grid: Grid, index_of: Callable[[Side], SearchIndex]
) -> MatchedPrior:
    """A prior fitted to matches of landmarks with some levels, or read from the store."""
    settings = pair.settings
    seed = settings.options.seed
    decides = {
        **pair.decides(levels),
        "spacing": [round(float(value), 6) for value in grid.spacing],
        "points": PRIOR_POINTS,
        "seed": seed,
    }

    def match() -> MatchedPrior:
        fixed, moving = (index_of(side) for side in pair.sides)
        mind = levels.names == (MIND,)
        # A global search with MIND finds fewer points, and needs all of them.
        found = match_prior(fixed, moving, pair.landmarks, seed=seed, every=1 if mind else FIRST_EVERY)
        if mind and settings.options.fits_field(settings.extraction):
            # The field will need these masks: made here while the other start is still being matched.
            _ = pair.fixed.body, pair.fixed.lungs
        return found

    return keep_prior(settings.runtime.store, pair.fixed.pyramid.digest, decides, match)


def _affine_of(pair: ScanPair, transform: Transform) -> AffineTransform:
    """The least-squares affine approximation of a transform in the body of the fixed scan."""
    if isinstance(transform, AffineTransform):
        return transform
    return AffineTransform.fit(pair.body_places, transform.apply(pair.body_places))
