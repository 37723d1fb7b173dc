"""Where points are expected before two scans are matched densely: as was told, or found by matching some places."""

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
from meddift.pipeline.direction import BLURRED_MM, Side
from meddift.pipeline.kept_prior import keep_prior
from meddift.registration.start import Start
from meddift.system.threads import side_by_side
from meddift.system.timing import timed

if TYPE_CHECKING:
    from meddift.pipeline.known_field import KnownField
    from meddift.pipeline.scan import EncodedScan
    from meddift.pipeline.scan_pair import ScanPair

#: Places that are matched to find out how the scans lie to each other.
PRIOR_POINTS = 256


def prior_places(scan: EncodedScan) -> NDArray[np.float64]:
    """(N, 3) float64, world RAS mm: the places with texture that are matched, at most `PRIOR_POINTS`."""
    return scan.landmarks(PRIOR_POINTS)


def agreeing_shares(starts: Sequence[Start]) -> dict[str, float]:
    """Name of each start that was found by matching -> share of the places whose matches agree with neighbours."""
    return {
        start.name: len(start.transform.anchors) / PRIOR_POINTS
        for start in starts
        if isinstance(start.transform, MatchedPrior)
    }


def find_starts(pair: ScanPair, *, prior: Transform | None, back: KnownField | None) -> tuple[tuple[Start, ...], str]:
    """Where points are expected, found in one or several ways.

    Args:
        pair: The scans, and the options, which say what is expected where nothing is known of the pair.
        prior: Fixed to moving, where that is known of this pair to within some mm.
        back: The field from the moving to the fixed scan, where that is known.

    Returns:
        The starts, that on which most matches agree first; empty where points are looked for everywhere. And why
        there is none although one was wanted, else "".
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
    """By matching places with texture anywhere: by the network, and by the hand-made level."""
    pair.report("finding out how the scans lie to each other", 0.6)
    learned = bool(pair.settings.extraction.network_levels)
    semantic = pair.sides[0].semantic
    ways: list[tuple[str, Pyramid, Grid, Callable[[Side], SearchIndex]]] = [
        ("network" if learned else MIND, semantic.pyramid, semantic.grid, lambda side: side.semantic)
    ]
    if learned and MIND in pair.fixed.pyramid.names:
        mind = pair.fixed.pyramid.select([MIND])
        ways.append((MIND, mind, mind.levels[0].grid.coarsened(BLURRED_MM), lambda side: side.blurred))

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
    """By some levels of the fixed scan on a grid, or from the store, which saves making them ready."""
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
        return match_prior(fixed, moving, pair.landmarks, seed=seed)

    return keep_prior(settings.runtime.store, pair.fixed.pyramid.digest, decides, match)


def _affine_of(pair: ScanPair, transform: Transform) -> AffineTransform:
    """The affine closest to a transform in the body of the fixed scan."""
    if isinstance(transform, AffineTransform):
        return transform
    return AffineTransform.fit(pair.body_places, transform.apply(pair.body_places))
