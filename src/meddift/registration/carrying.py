"""Points carried through the transform of a registration, each with what is known about it."""

from __future__ import annotations

import numpy as np

from meddift.geometry import Grid, nearest
from meddift.matching import Matches, Verdict
from meddift.points import Points
from meddift.registration.result import Registration

#: A point whose way there and back misses by more than this, mm, is uncertain.
LARGEST_INVERSE_ERROR_MM = 2.5
#: So is one whose place is known no better than this, mm.
LARGEST_UNCERTAINTY_MM = 3.0


def carry_points(registration: Registration, points: Points, fixed: Grid, moving: Grid) -> Matches:
    """Take fixed points to the moving scan.

    Args:
        registration: Of the two scans.
        points: On the fixed scan, world RAS mm.
        fixed: Lattice of the fixed scan.
        moving: Lattice of the moving scan.

    Returns:
        One row a point. Points outside either scan have no answer; similarity and margin are NaN, because single
        points were not compared.
    """
    count = len(points)
    inside = fixed.contains(points.positions)
    places = np.full((count, 3), np.nan)
    places[inside] = registration.transform.apply(points.positions[inside])
    shown = moving.contains(places)
    inverse_error = np.full(count, np.nan)
    back = registration.inverse.apply(places[shown])
    inverse_error[shown] = np.linalg.norm(back - points.positions[shown], axis=1)
    maps = registration.body.grid
    index = np.nan_to_num(maps.world_to_index(points.positions))
    supported, uncertainty = nearest(registration.supported.data, index), nearest(registration.uncertainty.data, index)
    verdicts: list[Verdict] = []
    reasons: list[str] = []
    for row in range(count):
        doubts = []
        if points.missing[row]:
            verdicts.append("outside")
            reasons.append("the point has no position")
            continue
        if not inside[row]:
            verdicts.append("outside")
            reasons.append("the point lies outside the fixed scan")
            continue
        if not shown[row]:
            verdicts.append("outside")
            reasons.append("its counterpart lies outside the field of view of the moving scan")
            continue
        if not supported[row]:
            doubts.append("the moving scan shows no reliable counterpart of its surroundings")
        elif np.isnan(uncertainty[row]):
            doubts.append("nothing but an affine was fitted, which does not say how far off it is")
        elif uncertainty[row] > LARGEST_UNCERTAINTY_MM:
            doubts.append(f"its place is known to about {uncertainty[row]:.1f} mm only")
        if inverse_error[row] > LARGEST_INVERSE_ERROR_MM:
            doubts.append(f"the inverse ends {inverse_error[row]:.1f} mm away")
        verdicts.append("uncertain" if doubts else "ok")
        reasons.append("; ".join(doubts))
    places[~shown] = np.nan
    nothing = np.full(count, np.nan)
    return Matches(
        fixed=points,
        moving=Points(places, points.labels),
        similarity=nothing,
        margin=nothing.copy(),
        inverse_error_mm=inverse_error,
        verdict=tuple(verdicts),
        reason=tuple(reasons),
    )
