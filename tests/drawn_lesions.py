"""Lesions drawn as balls, and a carrier that knows the truth: for tests without an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from meddift.geometry import Grid
from meddift.tracking.candidates import Candidates, candidates_of_mask
from meddift.tracking.carried import Carried
from meddift.volume import Volume

GRID = Grid((80, 80, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
SCAN = Volume(np.full(GRID.shape, 40, np.int16), GRID)


def balls(*given, grid=GRID):
    """A label map with balls (label, centre RAS mm, radius mm)."""
    data = np.zeros(grid.shape, np.int16)
    places = grid.voxel_centers()
    for label, center, radius in given:
        data[np.linalg.norm(places - np.asarray(center), axis=-1) <= radius] = label
    return Volume(data, grid)


def found(*given, **options) -> Candidates:
    mask = balls(*given)
    return candidates_of_mask(mask, Volume(SCAN.data, mask.grid), **options)


@dataclass
class Shift:
    """Scan k shows everything moved by k times a shift; some answers are spoilt on purpose."""

    step: tuple[float, float, float] = (5.0, -3.0, 2.0)
    grid: Grid = GRID
    error: dict = field(default_factory=dict)  # (source, target, label) -> added to the answer
    unsure: set = field(default_factory=set)  # (source, target, label)
    asked: list = field(default_factory=list)

    def carry(self, source, target, lesions):
        answers = []
        for lesion in lesions:
            key = source, target, lesion.label
            self.asked.append(key)
            move = (target - source) * np.asarray(self.step) + np.asarray(self.error.get(key, (0.0, 0.0, 0.0)))
            center = lesion.center + move
            if not self.grid.contains(center):
                answers.append(Carried(np.full(3, np.nan), np.zeros((0, 3)), "outside", "beyond the scan"))
                continue
            verdict = "uncertain" if key in self.unsure else "ok"
            answers.append(Carried(center, lesion.cloud + move, verdict, "not sure" if verdict != "ok" else ""))
        return answers
