"""Lesions carried by the matching engine: places around each one, matched together, say where it is."""

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

#: Places are asked so far outside the surface of a lesion, mm: tissue that stays when the lesion grows or goes.
AROUND_MM = (4.0, 8.0)
#: And this far, where those do not tell the place for sure: what was compared there may have been the lesion itself.
FARTHER_MM = (14.0, 20.0)
#: Residuals above this count less, in proportion, mm (Huber).
HUBER_MM = 2.0
#: What an answer that is not sure weighs against one that is.
UNSURE = 0.15
#: How much the displacement may differ from place to place: so strong is the pull towards a mere shift, mm2.
PULL_MM2 = 400.0
#: The place is sure if at least so many answers are, and they differ from what they say together by no more than
#: this in the median, mm.
LEAST_SURE, LARGEST_SPREAD_MM = 4, 4.0
#: Or if at least so many answers, looked for each on its own, agree to within this, sure or not.
MANY, CLOSE_MM = 10, 1.5
#: A place that is not sure is outside the field of view if it lies beyond it by so many times the median residual.
SLACK = 2.0


class MatchedCarrier:
    """Takes lesions from scan to scan by matching places in and around them.

    A lesion itself is a poor witness of its place in another scan: it may have grown, shrunk or gone. So its middle
    and places around its surface are matched, and a smooth displacement is fitted to all answers, robustly.

    Args:
        pair: Gives the pair of two time points by their numbers, source first.
        grids: Of the scans, by time point.
        kept: Answers of an earlier run; None keeps nothing.
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
        """All places in one question; the answers to each part of it."""
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
    """The middle of a lesion and places outside its surface: (N, 3) world RAS mm, the middle first.

    Args:
        lesion: The lesion.
        beyond_mm: How far outside the eight diagonal and the six other places lie.
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
    """What the answers at all places say about the lesion."""
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
    if sure.sum() < LEAST_SURE and not (answered.sum() >= MANY and spread <= CLOSE_MM):
        doubts.append(f"only {int(sure.sum())} of {len(places)} places around it were found for sure")
    if spread > LARGEST_SPREAD_MM:
        doubts.append(f"places around it disagree by {spread:.1f} mm")
    # Where answers near the border disagree, the place still is outside if it lies well beyond it.
    slack = SLACK * spread if doubts else 0.0
    if not grid.contains(center, margin_mm=-slack):
        return Carried(nowhere, np.zeros((0, 3)), "outside", "its place lies outside the field of view of that scan")
    return Carried(center, moved(lesion.cloud), "uncertain" if doubts else "ok", "; ".join(doubts))


def _smooth(away: Floats, displacement: Floats, weight: Floats) -> tuple[Floats, float]:
    """A displacement that changes linearly from place to place, by iteratively reweighted least squares.

    Args:
        away: (N, 3) places, from the middle of the lesion.
        displacement: (N, 3) mm.
        weight: (N,) how much each counts.

    Returns:
        (4, 3) displacement at the middle and its derivatives along the axes, and the weighted median of the residuals.
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
    """Column by column."""
    result = np.empty(values.shape[1])
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column])
        reached = np.cumsum(weight[order])
        result[column] = values[order[np.searchsorted(reached, reached[-1] / 2)], column]
    return result
