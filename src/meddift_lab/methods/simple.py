"""Baselines: no displacement, and one translation of all points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.geometry import AffineTransform
from meddift.registration import sampled
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats


def identity(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Return every point unchanged, in world coordinates."""
    return Answer(points.copy())


def translation(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Translate every point by the offset between the centres of the scans.

    `settings["middle"]` is "field of view" for the centres of the grids; otherwise the centres of mass are used.
    """
    if settings["middle"] == "field of view":
        start, goal = fixed.grid.center, moving.grid.center
    else:
        start, goal = _centre_of_mass(fixed), _centre_of_mass(moving)
    matrix = np.eye(4)
    matrix[:3, 3] = goal - start
    transform = AffineTransform(matrix)
    details = {"shift_mm": (goal - start).tolist()}
    return Answer(transform.apply(points), lambda grid: sampled(transform, grid), details)


def _centre_of_mass(volume: Volume) -> Floats:
    """(3,) centre of mass, world RAS mm; the weight of a voxel is its intensity above the minimum."""
    weight = volume.data.astype(np.float64)
    weight -= weight.min()
    total = float(weight.sum())
    if total == 0:
        return volume.grid.center
    index = []
    for axis in range(3):
        profile = weight.sum(axis=tuple(other for other in range(3) if other != axis))
        index.append(float((profile * np.arange(len(profile))).sum()) / total)
    return volume.grid.index_to_world(index)
