"""Initial transforms of a pair before dense matching: as given by the user, or found by matching landmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from meddift.pipeline.level_scores import counted, place_shares, scored
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
#: The network matches every second of them, which is enough unless they are few. MIND finds fewer points, and needs
#: all of them.
NETWORK_EVERY, LEAST_POINTS = 2, 64


def prior_places(scan: EncodedScan) -> NDArray[np.float64]:
    """(N, 3) float64, world RAS mm: the landmarks of a scan, at most `PRIOR_POINTS`."""
    return scan.landmarks(PRIOR_POINTS)


def agreeing_shares(starts: Sequence[Start]) -> dict[str, float]:
    """Name of each start found by matching -> share of its landmarks whose matches agree with their neighbours."""
    return {start.name: start.transform.share for start in starts if isinstance(start.transform, MatchedPrior)}


@dataclass(frozen=True, eq=False)
class Starts:
    """The initial transforms of a pair.

    Attributes:
        found: The one with most agreeing matches first; none if points are searched everywhere.
        why_not: The reason if one was required but not found, else "".
        shares: Name of each level of the network -> share of the landmarks that it finds alone in the whole scan;
            empty if levels were not scored.
    """

    found: tuple[Start, ...] = ()
    why_not: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)


def find_starts(pair: ScanPair, *, prior: Transform | None, back: KnownField | None) -> Starts:
    """Find the initial transforms of a pair.

    Args:
        pair: The pair; the prior of its options applies if neither of the following is given.
        prior: Transform, fixed to moving, that is known to be correct to within a few mm.
        back: The results of the exchanged pair.

    Raises:
        TransformError: if the prior is a file that cannot be read.
    """
    if back is not None:
        way = NumericalInverse(back.field.transform, back.field.affine)
        return Starts((Start("the way back", way, back.field.affine.inverted()),))
    if prior is not None:
        return Starts((Start("prior", prior, _affine_of(pair, prior), near=True),))
    wanted = pair.settings.options.prior
    if isinstance(wanted, Path):
        from meddift.io import read_transform

        wanted = read_transform(wanted)
    if wanted == "none":
        return Starts()
    if wanted == "identity":
        wanted = AffineTransform.identity()
    if not isinstance(wanted, str):
        return Starts((Start("prior", wanted, _affine_of(pair, wanted)),))
    return _matched_starts(pair)


def _matched_starts(pair: ScanPair) -> Starts:
    """Starts found by matching landmarks over the whole scan: with the network's levels, and with MIND.

    If levels of the network do not find places on this pair, its start is found again without them.
    """
    pair.report("finding out how the scans lie to each other", 0.6)
    ways = [_Way.of_network(pair)]
    if pair.settings.extraction.network_levels and MIND in pair.fixed.pyramid.names:
        ways.append(_Way.of_mind(pair))

    def look(way: _Way) -> Start | str:
        try:
            matched = _matched_prior(pair, way)
        except NoCorrespondenceError as error:
            return str(error)
        return Start(way.name, matched, matched.affine)

    shares: dict[str, float] = {}
    with timed(pair.timing, "prior"):
        answers = side_by_side(ways, look, device=pair.settings.runtime.device)
        if scored(pair):
            shares = place_shares(pair, [answer for answer in answers if isinstance(answer, Start)])
            names = counted(shares)
            if len(names) < len(shares):
                answers[0] = look(_Way.of_network(pair, names))
    found = [answer for answer in answers if isinstance(answer, Start)]
    reasons = [answer for answer in answers if isinstance(answer, str)]
    found.sort(key=lambda start: -start.transform.share if isinstance(start.transform, MatchedPrior) else 0)
    return Starts(tuple(found), "" if found else reasons[0], shares)


@dataclass(frozen=True, eq=False)
class _Way:
    """A way of matching landmarks over the whole scan.

    Attributes:
        name: Name of the start.
        levels: The levels that are compared.
        grid: Grid that is searched.
        index_of: The index of these levels of a scan.
        every: Every n-th landmark is matched, unless that leaves fewer than `LEAST_POINTS`.
    """

    name: str
    levels: Pyramid
    grid: Grid
    index_of: Callable[[Side], SearchIndex]
    every: int

    @classmethod
    def of_network(cls, pair: ScanPair, names: Sequence[str] | None = None) -> _Way:
        """All levels of the network, or some; MIND where there are none."""
        semantic = pair.sides[0].semantic
        name = "network" if pair.settings.extraction.network_levels else MIND
        every = 1 if name == MIND else NETWORK_EVERY
        if names is None:
            return cls(name, semantic.pyramid, semantic.grid, lambda side: side.semantic, every)
        return cls(name, semantic.pyramid.select(names), semantic.grid, lambda side: side.of_levels(names), every)

    @classmethod
    def of_mind(cls, pair: ScanPair) -> _Way:
        """The MIND level on the voxels of dense matching."""
        levels, grid = pair.fixed.pyramid.select([MIND]), matching_grid(pair.fixed.grid, FIELD_MM)
        return cls(MIND, levels, grid, lambda side: side.blurred, 1)


def _matched_prior(pair: ScanPair, way: _Way) -> MatchedPrior:
    """A prior fitted to matches of landmarks found in one way, or read from the store."""
    settings = pair.settings
    seed = settings.options.seed
    decides = {
        **pair.decides(way.levels),
        "spacing": [round(float(value), 6) for value in way.grid.spacing],
        "points": PRIOR_POINTS,
        "seed": seed,
    }

    def match() -> MatchedPrior:
        fixed, moving = (way.index_of(side) for side in pair.sides)
        every = way.every if len(pair.landmarks) >= way.every * LEAST_POINTS else 1
        found = match_prior(fixed, moving, pair.landmarks[::every], seed=seed)
        if way.name != MIND and settings.options.fits_field(settings.extraction):
            # The field will need these masks: made here while MIND's start is still being matched.
            _ = pair.fixed.body, pair.fixed.lungs
        return found

    return keep_prior(settings.runtime.store, pair.fixed.pyramid.digest, decides, match)


def _affine_of(pair: ScanPair, transform: Transform) -> AffineTransform:
    """The least-squares affine approximation of a transform in the body of the fixed scan."""
    if isinstance(transform, AffineTransform):
        return transform
    return AffineTransform.fit(pair.body_places, transform.apply(pair.body_places))
