"""Scores of the network's levels on a pair of scans, each alone, at the scales at which a field is started and fitted.

What a level says of itself does not tell whether it is right: levels that read a position from the border of the field
of view agree with each other and are wrong together. So the places that all levels and all starts propose for a
landmark are compared by MIND, which knows nothing of the network, and the one whose surroundings fit best is held
against what each level says alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.features.extraction import MIND
from meddift.geometry import AffineTransform, Transform
from meddift.matching.locate import Located, locate_nearby
from meddift.matching.maps import search_maps
from meddift.pipeline.kept import keep
from meddift.registration.candidates import RADIUS
from meddift.registration.compared import PASSES_MM, matched_densely
from meddift.registration.start import Start
from meddift.system.threads import side_by_side

if TYPE_CHECKING:
    from meddift.pipeline.scan_pair import ScanPair

#: About so many landmarks are asked; with fewer than the least number levels are not scored.
PLACES, LEAST_PLACES = 64, 16
#: Distance within which a level has found the place of a landmark, mm: what the robust fit of an affine tolerates, and
#: a voxel of the first pass of dense matching.
PLACE_MM, FIELD_MM = 20.0, PASSES_MM[0]
#: Radius that the first pass of dense matching searches, mm.
SEARCHED_MM = RADIUS * PASSES_MM[0]
#: Radius within which MIND settles a proposed place before its fit is compared, and distance of the neighbours that
#: are compared together, mm.
SETTLED_MM, SUPPORT_MM = 8.0, 8.0
#: A level counts at a scale if it finds at least this share of the places that the best level finds there.
LEAST_OF_BEST = 0.5

Positions = NDArray[np.float64]


def counted(shares: Mapping[str, float]) -> tuple[str, ...]:
    """Names of the levels that count, in the order given.

    Args:
        shares: Name of each level -> share of the landmarks that it finds alone.
    """
    least = LEAST_OF_BEST * max(shares.values(), default=0.0)
    return tuple(name for name, share in shares.items() if share >= least)


def scored(pair: ScanPair) -> bool:
    """Whether levels of a pair can be scored: there are several of the network, and MIND."""
    return len(pair.settings.extraction.network_levels) > 1 and MIND in pair.fixed.pyramid.names


def place_shares(pair: ScanPair, starts: Sequence[Start]) -> dict[str, float]:
    """Share of the landmarks that each level of the network, alone, finds in the whole moving scan.

    Args:
        pair: The pair, with a MIND level.
        starts: Starts that were found with all levels of the network together, and with MIND; there may be none.

    Returns:
        Name of each level of the network -> share, 0 to 1; coarse to fine. Empty with too few landmarks.
    """

    def make(places: Positions) -> dict[str, float]:
        def find(name: str) -> Positions:
            fixed, moving = pair.by_levels([name])
            return moving.grid.index_to_world(search_maps(moving, fixed.describe(places), rivals=False).voxels)

        names = pair.settings.semantic_levels
        found = side_by_side(names, find, device=pair.settings.runtime.device)
        proposed = [*(start.transform.apply(places) for start in starts), *found]
        truth, _ = _best_fitting(_settled(pair, starts, places, proposed))
        return _shares(names, found, truth, PLACE_MM)

    return _kept(pair, "place", starts, make)


def field_shares(pair: ScanPair, starts: Sequence[Start]) -> dict[str, float]:
    """Share of the landmarks that each level of the network, alone, finds around the place where the starts have them.

    Args:
        pair: The pair, with a MIND level.
        starts: The starts of dense matching, at least one.

    Returns:
        Name of each level that dense matching may use -> share, 0 to 1; coarse to fine. Empty with too few landmarks.
    """
    levels = pair.fixed.pyramid.select(pair.settings.semantic_levels).levels
    names = [level.name for level in levels if matched_densely(level.grid)]

    def make(places: Positions) -> dict[str, float]:
        known = [start.transform.apply(places) for start in starts]
        settled = _settled(pair, starts, places, known)
        _, first = _best_fitting(settled)
        around = np.stack(known)[first, np.arange(len(places))]

        def find(name: str) -> Positions:
            sides, way = pair.by_levels([name]), starts[0].transform
            return locate_nearby(*sides, places, around, way, radius_mm=SEARCHED_MM, support_mm=SUPPORT_MM).positions

        found = side_by_side(names, find, device=pair.settings.runtime.device)
        truth, _ = _best_fitting([*settled, *_settled(pair, starts, places, found)])
        return _shares(names, found, truth, FIELD_MM)

    return _kept(pair, "levels", starts, make)


def _kept(
    pair: ScanPair, kind: str, starts: Sequence[Start], make: Callable[[Positions], dict[str, float]]
) -> dict[str, float]:
    """Shares from the store, or computed from some of the landmarks, (N, 3) world RAS mm, and stored."""
    decides = {
        **pair.decides(pair.fixed.pyramid),
        "starts": [[start.name, start.affine.matrix.tolist()] for start in starts],
        "seed": pair.settings.options.seed,
    }

    def shares() -> dict[str, float]:
        places = pair.landmarks[:: max(1, len(pair.landmarks) // PLACES)]
        return make(places) if len(places) >= LEAST_PLACES else {}

    store, key = pair.settings.runtime.store, pair.fixed.pyramid.digest
    return keep(store, key, kind, decides, shares, content=dict, read=_read)


def _read(content: dict[str, Any]) -> dict[str, float]:
    return {str(name): float(share) for name, share in content.items()}


def _settled(
    pair: ScanPair, starts: Sequence[Start], places: Positions, proposed: Sequence[Positions]
) -> list[Located]:
    """The best places by MIND near those that are proposed.

    Args:
        pair: The pair.
        starts: The first of them pairs the neighbours of a place.
        places: (N, 3) float64, landmarks of the fixed scan, world RAS mm.
        proposed: Several times (N, 3) float64, places in the moving scan, world RAS mm.

    Returns:
        One table of N rows for each proposal.
    """
    fixed, moving = (side.blurred for side in pair.sides)
    way: Transform = starts[0].transform if starts else AffineTransform.identity()
    asked, expected = np.tile(places, (len(proposed), 1)), np.concatenate(proposed)
    # All proposals in one search, which is divided among the processors.
    found = locate_nearby(fixed, moving, asked, expected, way, radius_mm=SETTLED_MM, support_mm=SUPPORT_MM)
    return [found.rows(rows) for rows in np.arange(len(asked)).reshape(len(proposed), -1)]


def _best_fitting(settled: Sequence[Located]) -> tuple[Positions, NDArray[np.int64]]:
    """(N, 3) float64, the place of each landmark whose surroundings fit best; (N,) int64, its number among them."""
    best = np.stack([each.similarity for each in settled]).argmax(axis=0)
    return np.stack([each.positions for each in settled])[best, np.arange(len(best))], best


def _shares(names: Sequence[str], found: Sequence[Positions], truth: Positions, limit_mm: float) -> dict[str, float]:
    """Name of each level -> share of its positions, (N, 3) world RAS mm, within a distance of the true ones."""
    return {
        name: float((np.linalg.norm(each - truth, axis=1) <= limit_mm).mean())
        for name, each in zip(names, found, strict=True)
    }
