"""Mapping points by the transform of a registration, with a verdict for each."""

from __future__ import annotations

import numpy as np

from meddift.geometry import Grid, nearest
from meddift.matching import Matches
from meddift.matching.verdict import CARRIED, Evidence, judge
from meddift.points import Points
from meddift.registration.result import Registration


def carry_points(registration: Registration, points: Points, fixed: Grid, moving: Grid) -> Matches:
    """Map fixed points to the moving scan.

    Args:
        registration: The registration of the two scans.
        points: Points on the fixed scan, world RAS mm.
        fixed: Grid of the fixed scan.
        moving: Grid of the moving scan.

    Returns:
        One match for each point. Points outside either scan have the verdict "outside"; similarity and margin are NaN,
        since single points were not compared.
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
    verdict, reasons = judge(
        Evidence(
            inside_fixed=inside,
            expected_inside=shown,
            missing=points.missing,
            inverse_error_mm=inverse_error,
            supported=supported,
            uncertainty_mm=uncertainty,
            affine_only=np.isnan(uncertainty),
            way_back="the inverse",
        ),
        CARRIED,
    )
    places[~shown] = np.nan
    nothing = np.full(count, np.nan)
    return Matches(
        fixed=points,
        moving=Points(places, points.labels),
        similarity=nothing,
        margin=nothing.copy(),
        inverse_error_mm=inverse_error,
        verdict=verdict,
        reasons=reasons,
    )
