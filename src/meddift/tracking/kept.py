"""Answers of the engine, kept beside the results: a run that is begun again, or reviewed, asks nothing twice."""

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

#: Raised whenever equal questions may have other answers than before.
VERSION = 1
#: Folder beside the results.
FOLDER = "kept"


@dataclass(frozen=True, eq=False)
class Answers:
    """Where places of one scan were found in another.

    Attributes:
        positions: (N, 3) float64, world RAS mm; NaN where there is no answer.
        verdict: N of "ok", "uncertain", "outside".
        reason: N sentences.
    """

    positions: Floats
    verdict: tuple[str, ...]
    reason: tuple[str, ...]

    def part(self, first: int, last: int) -> Answers:
        """Rows from `first` up to `last`."""
        return Answers(self.positions[first:last], self.verdict[first:last], self.reason[first:last])

    def and_also(self, more: Answers) -> Answers:
        """These, then others."""
        positions = np.concatenate([self.positions, more.positions])
        return Answers(positions, self.verdict + more.verdict, self.reason + more.reason)


class Kept:
    """Answers in a folder, by scans, settings and places.

    Args:
        folder: Made when the first answer is kept.
        digests: sha256 of the scans, by time point.
        settings: All else that decides an answer, ready for JSON.
    """

    def __init__(self, folder: Path, digests: Sequence[str], settings: Mapping[str, Any]) -> None:
        self._folder, self._digests, self._settings = folder, digests, dict(settings)

    def get(self, source: int, target: int, places: Floats) -> Answers | None:
        """Answers to the same question, or None."""
        try:
            content = json.loads(self._path(source, target, places).read_text(encoding="utf-8"))
            found = [[np.nan] * 3 if row is None else row for row in content["positions"]]
            positions = np.array(found, dtype=np.float64).reshape(-1, 3)
            answers = Answers(positions, tuple(content["verdict"]), tuple(content["reason"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: it is asked again
        return answers if len(positions) == len(answers.verdict) == len(answers.reason) == len(places) else None

    def put(self, source: int, target: int, places: Floats, answers: Answers) -> None:
        """Keep answers."""
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
