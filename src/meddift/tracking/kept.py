"""Matches stored beside the results, so that a resumed or reviewed run does not compute them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.system.atomic import write_json

Floats = NDArray[np.float64]

#: Version of the stored matches, increased whenever results for the same input may change.
VERSION = 1
#: Name of the folder of stored matches in the folder of results.
FOLDER = "kept"


@dataclass(frozen=True, eq=False)
class Answers:
    """Matches of N points.

    Attributes:
        positions: (N, 3) float64, positions found, world RAS mm; NaN where the verdict is "outside".
        verdict: N of "ok", "uncertain", "outside".
        reason: N reasons in words, "" where the verdict is "ok".
    """

    positions: Floats
    verdict: tuple[str, ...]
    reason: tuple[str, ...]

    def part(self, first: int, last: int) -> Answers:
        """Rows from `first` up to but not including `last`."""
        return Answers(self.positions[first:last], self.verdict[first:last], self.reason[first:last])

    def and_also(self, more: Answers) -> Answers:
        """These rows followed by others."""
        positions = np.concatenate([self.positions, more.positions])
        return Answers(positions, self.verdict + more.verdict, self.reason + more.reason)


class Kept:
    """Matches in a folder, identified by scans, settings and points.

    Args:
        folder: The folder; created when the first matches are stored.
        digests: sha256 of the scan of each time point.
        settings: Everything else that matches depend on, ready for JSON.
    """

    def __init__(self, folder: Path, digests: Sequence[str], settings: Mapping[str, Any]) -> None:
        self._folder, self._digests, self._settings = folder, digests, dict(settings)

    def get(self, source: int, target: int, places: Floats) -> Answers | None:
        """Stored matches of (N, 3) points, world RAS mm, between two time points; None if there are none."""
        try:
            content = json.loads(self._path(source, target, places).read_text(encoding="utf-8"))
            found = [[np.nan] * 3 if row is None else row for row in content["positions"]]
            positions = np.array(found, dtype=np.float64).reshape(-1, 3)
            answers = Answers(positions, tuple(content["verdict"]), tuple(content["reason"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # missing or damaged: computed again
        return answers if len(positions) == len(answers.verdict) == len(answers.reason) == len(places) else None

    def put(self, source: int, target: int, places: Floats, answers: Answers) -> None:
        """Store matches of (N, 3) points, world RAS mm, between two time points."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {
            "positions": [None if np.isnan(row).any() else row.tolist() for row in answers.positions],
            "verdict": list(answers.verdict),
            "reason": list(answers.reason),
        }
        write_json(content, self._path(source, target, places))

    def _path(self, source: int, target: int, places: Floats) -> Path:
        told = {
            "version": VERSION,
            "scans": [self._digests[source], self._digests[target]],
            "settings": self._settings,
            "places": np.round(places, 4).tolist(),
        }
        name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / f"{name}.json"
