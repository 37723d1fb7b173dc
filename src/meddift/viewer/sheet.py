"""`Sheet`: the list of points of a pair with matches and reviews, and with undo."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from meddift.errors import OptionsError, PointsError
from meddift.matching import Match

#: Review of a point: none yet, confirmed as found, corrected to another position, or absent.
Review = Literal["proposed", "confirmed", "corrected", "absent"]
Place = tuple[float, float, float]

#: Number of steps that can be undone.
STEPS = 200
#: Decimals of stored positions, in mm; browsers compute with seven digits.
DECIMALS = 4
#: Largest length of a label.
LONGEST_LABEL = 100


@dataclass(frozen=True)
class Row:
    """One point of the list.

    Attributes:
        id: Id of the row; never used again.
        label: Label, equal in the points files of both scans.
        fixed: Position on the fixed scan, world RAS mm; None if unknown.
        moving: Position on the moving scan, world RAS mm; None if unknown.
        asked: Scan in which the point was given, "fixed" or "moving".
        found: Position of the match, world RAS mm, if a person has moved the point since.
        match: Match of the point; None if it was not matched.
        review: Review by a person.
    """

    id: str
    label: str
    fixed: Place | None
    moving: Place | None
    asked: Literal["fixed", "moving"] = "fixed"
    found: Place | None = None
    match: Match | None = None
    review: Review = "proposed"

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        told: dict[str, Any] = {
            "similarity": None,
            "margin": None,
            "inverse_error_mm": None,
            "verdict": None,
            "reason": "",
            "codes": [],
        }
        if self.match is not None:
            told = self.match.judged()
        return {
            "id": self.id,
            "label": self.label,
            "fixed": self.fixed,
            "moving": self.moving,
            "found": self.found,
            "asked": self.asked,
            **told,
            "review": self.review,
        }


def place(position: Sequence[float] | np.ndarray[Any, Any] | None) -> Place | None:
    """A position rounded for storage; None if there is none."""
    if position is None:
        return None
    values = np.asarray(position, dtype=np.float64)
    if np.isnan(values).any():
        return None
    return tuple(round(float(v), DECIMALS) + 0.0 for v in values)  # type: ignore[return-value]


class Sheet:
    """Rows and their earlier states. Thread-safe.

    Attributes:
        version: Number that increases with every change.
    """

    def __init__(self) -> None:
        self._rows: tuple[Row, ...] = ()
        self._past: list[tuple[Row, ...]] = []
        self._saved: tuple[Row, ...] = ()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self.version = 0

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order in which they were added."""
        return self._rows

    @property
    def is_saved(self) -> bool:
        """Whether there are no changes since the list was saved."""
        return self._rows == self._saved

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        with self._lock:
            return {
                "version": self.version,
                "saved": self.is_saved,
                "can_undo": bool(self._past),
                "points": [row.as_dict() for row in self._rows],
            }

    def new_id(self) -> str:
        """A new id."""
        return f"r{next(self._numbers)}"

    def next_label(self) -> str:
        """The lowest number that is not used as a label."""
        taken = {row.label for row in self._rows}
        return next(text for n in itertools.count(1) if (text := str(n)) not in taken)

    def begin(self, rows: Sequence[Row]) -> None:
        """Set the rows read from files; the list then has no undo steps and counts as saved."""
        with self._lock:
            self._rows = self._saved = tuple(rows)
            self._past.clear()
            self.version += 1

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        for row in rows:
            check_label(row.label)
        self._change(lambda old: (*old, *rows))

    def change(self, key: str, **changes: Any) -> Row:
        """Change a row.

        Raises:
            OptionsError: if there is no row with this id.
            PointsError: if the label is invalid.
        """
        if "label" in changes:
            check_label(changes["label"])
        with self._lock:
            self.get(key)
            self._change(lambda old: tuple(replace(row, **changes) if row.id == key else row for row in old))
            return self.get(key)

    def remove(self, key: str) -> None:
        """Remove a row.

        Raises:
            OptionsError: if there is no row with this id.
        """
        with self._lock:
            self.get(key)
            self._change(lambda old: tuple(row for row in old if row.id != key))

    def get(self, key: str) -> Row:
        """The row with an id.

        Raises:
            OptionsError: if there is no such row.
        """
        for row in self._rows:
            if row.id == key:
                return row
        raise OptionsError(f"the list has no point {key}; it may have been deleted in another window")

    def undo(self) -> bool:
        """Undo the last change; returns whether there was one."""
        with self._lock:
            if not self._past:
                return False
            self._rows = self._past.pop()
            self.version += 1
            return True

    def answered(self, found: dict[str, Match]) -> None:
        """Store matches of rows. Reviews are kept, and this is no undo step.

        Args:
            found: Id of a row -> match of its fixed point.
        """

        def told(row: Row) -> Row:
            match = found.get(row.id)
            if match is None or row.review != "proposed":
                return row
            return replace(row, match=match, moving=place(match.moving))

        with self._lock:
            unchanged = self.is_saved
            self._rows = tuple(map(told, self._rows))
            if unchanged and not any(row.review != "proposed" for row in self._rows):
                self._saved = self._rows
            self.version += 1

    def note_saved(self, rows: tuple[Row, ...]) -> None:
        """Record the rows that were saved."""
        with self._lock:
            self._saved = rows
            self.version += 1

    def _change(self, to: Callable[[tuple[Row, ...]], tuple[Row, ...]]) -> None:
        with self._lock:
            new = to(self._rows)
            if new == self._rows:
                return
            self._past = [*self._past[-STEPS + 1 :], self._rows]
            self._rows = new
            self.version += 1


def check_label(label: str) -> None:
    """Check a label.

    Raises:
        PointsError: if it is empty, too long, or contains control characters.
    """
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise PointsError(f"a label has 1 to {LONGEST_LABEL} letters in one line, got {label[:40]!r}")
