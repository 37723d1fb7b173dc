"""`MatchedCarrier`: mapping lesions to another scan by matching points in and around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.tracking.candidates import Candidate
from meddift.tracking.carried import Carried
from meddift.tracking.kept import Answers, Kept

Floats = NDArray[np.float64]

#: Distances of the matched points from the surface of a lesion, mm: tissue that remains when the lesion changes.
AROUND_MM = (4.0, 8.0)
#: Distances of additional points, mm, used if the first ones do not determine the position reliably.
FARTHER_MM = (14.0, 20.0)
#: Threshold of the Huber weights, mm.
HUBER_MM = 2.0
#: Weight of an uncertain match relative to one with the verdict "ok".
UNSURE = 0.15
#: Regularisation of the linear part of the displacement towards a translation, mm^2.
PULL_MM2 = 400.0
#: A position is reliable if at least this many matches are "ok" and their median residual is at most this, mm.
LEAST_SURE, LARGEST_SPREAD_MM = 4, 4.0
#: Or if at least this many matches that were searched one by one agree within this median residual, mm.
MANY, CLOSE_MM = 10, 1.5
#: The latter only this far inside the field of view, mm: what lies beyond is drawn to its border in agreement.
BORDER_MM = 5.0
#: An unreliable position is "outside" if it lies outside the field of view by this multiple of the median residual.
SLACK = 2.0


class MatchedCarrier:
    """Maps lesions from one scan to another by matching points in and around them.

    A lesion may have grown, shrunk or disappeared. Therefore its centre and points around its surface are matched, and
    a smooth displacement is fitted robustly to all matches.

    Args:
        pair: Gives the pair of two time points by their numbers, source first.
        grids: Gives the grid of a time point's scan.
        kept: Stored results of an earlier run; None = nothing is stored.
    """

    def __init__(
        self, pair: Callable[[int, int], Any], grids: Callable[[int], Grid], kept: Kept | None = None
    ) -> None:
        self._pair, self._grids, self._kept = pair, grids, kept

    def carry(self, source: int, target: int, lesions: Sequence[Candidate]) -> list[Carried]:
        """See `Carrier.carry`."""
        if not lesions:
            return []
        grid = self._grids(target)
        asked = [places_around(lesion, AROUND_MM) for lesion in lesions]
        answers = self._ask(source, target, asked)
        carried = [_together(*each, grid) for each in zip(lesions, asked, answers, strict=True)]
        doubtful = [n for n, one in enumerate(carried) if one.verdict == "uncertain"]
        if doubtful:
            farther = [places_around(lesions[n], FARTHER_MM) for n in doubtful]
            for n, places, more in zip(doubtful, farther, self._ask(source, target, farther), strict=True):
                both = np.concatenate([asked[n], places])
                carried[n] = _together(lesions[n], both, answers[n].and_also(more), grid)
        return carried

    def _ask(self, source: int, target: int, asked: Sequence[Floats]) -> list[Answers]:
        """Match several sets of points together; the results of each set."""
        places = np.concatenate(asked)
        answers = None if self._kept is None else self._kept.get(source, target, places)
        if answers is None:
            matches = self._pair(source, target).match(places)
            answers = Answers(np.asarray(matches.moving.positions), tuple(matches.verdict), tuple(matches.reason))
            if self._kept is not None:
                self._kept.put(source, target, places, answers)
        starts = np.cumsum([0, *(len(each) for each in asked)]).tolist()
        return [answers.part(first, last) for first, last in pairwise(starts)]


def places_around(lesion: Candidate, beyond_mm: tuple[float, float]) -> Floats:
    """The centre of a lesion and points outside its surface.

    Args:
        lesion: The lesion.
        beyond_mm: Distances from the surface of the eight points along diagonals and of the six points along axes, mm.

    Returns:
        (N, 3) float64, world RAS mm, the centre first.
    """
    steps = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], dtype=np.float64)
    faces = steps[np.abs(steps).sum(axis=1) == 1]
    corners = steps[np.abs(steps).sum(axis=1) == 3] / np.sqrt(3)
    places = [lesion.center[None]]
    for directions, beyond in ((corners, beyond_mm[0]), (faces, beyond_mm[1])):
        reach = np.zeros(len(directions))
        if len(lesion.cloud):
            reach = ((lesion.cloud - lesion.center) @ directions.T).max(axis=0)
        places.append(lesion.center + directions * (reach + beyond)[:, None])
    return np.concatenate(places)


def _together(
    lesion: Candidate,
    places: Floats,
    answers: Answers,
    grid: Grid,
) -> Carried:
    """Map a lesion by a displacement fitted to all matches, and give it a verdict."""
    found, verdicts, reasons = answers.positions, answers.verdict, answers.reason
    nowhere = np.full(3, np.nan)
    answered = ~np.isnan(found).any(axis=1)
    sure = np.array([verdict == "ok" for verdict in verdicts]) & answered
    if not answered.any():
        return Carried(nowhere, np.zeros((0, 3)), "outside", reasons[0])
    weight = np.where(sure, 1.0, UNSURE)[answered]
    fitted, spread = _smooth(places[answered] - lesion.center, (found - places)[answered], weight)

    def moved(positions: Floats) -> Floats:
        away = positions - lesion.center
        return np.asarray(positions + np.column_stack([np.ones(len(away)), away]) @ fitted)

    center = moved(lesion.center[None])[0]
    doubts = []
    agreed = answered.sum() >= MANY and spread <= CLOSE_MM and grid.contains(center, margin_mm=BORDER_MM)
    if sure.sum() < LEAST_SURE and not agreed:
        doubts.append(f"only {int(sure.sum())} of {len(places)} places around it were found for sure")
    if spread > LARGEST_SPREAD_MM:
        doubts.append(f"places around it disagree by {spread:.1f} mm")
    # If matches near the border disagree, the position is "outside" only if it lies well beyond the border.
    slack = SLACK * spread if doubts else 0.0
    if not grid.contains(center, margin_mm=-slack):
        return Carried(nowhere, np.zeros((0, 3)), "outside", "its place lies outside the field of view of that scan")
    return Carried(center, moved(lesion.cloud), "uncertain" if doubts else "ok", "; ".join(doubts))


def _smooth(away: Floats, displacement: Floats, weight: Floats) -> tuple[Floats, float]:
    """Fit a displacement that is linear in position, by iteratively reweighted least squares.

    Args:
        away: (N, 3) float64, positions relative to the centre of the lesion, mm.
        displacement: (N, 3) float64, mm.
        weight: (N,) float64, weight of each.

    Returns:
        (4, 3) float64, the displacement at the centre in mm and its derivatives along the axes; and the weighted
        median of the residuals, mm.
    """
    system = np.column_stack([np.ones(len(away)), away])
    pull = np.diag([0.0, 1.0, 1.0, 1.0]) * PULL_MM2
    start = _weighted_median(displacement, weight)
    fitted = np.concatenate([start[None], np.zeros((3, 3))])
    residual = np.linalg.norm(displacement - system @ fitted, axis=1)
    for _ in range(12):
        effective = weight * HUBER_MM / np.maximum(residual, HUBER_MM)
        fitted = np.linalg.solve((system.T * effective) @ system + pull, (system.T * effective) @ displacement)
        residual = np.linalg.norm(displacement - system @ fitted, axis=1)
    return fitted, float(_weighted_median(residual[:, None], weight)[0])


def _weighted_median(values: Floats, weight: Floats) -> Floats:
    """The weighted median of each column."""
    result = np.empty(values.shape[1])
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column])
        reached = np.cumsum(weight[order])
        result[column] = values[order[np.searchsorted(reached, reached[-1] / 2)], column]
    return result
