"""The list of points of a pair: what was asked, what was found, and what a person says about it. With undo."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from meddift.errors import OptionsError, PointsError
from meddift.matching import Match

#: What a person has said: nothing yet, right as found, right where it was dragged to, or not there at all.
Review = Literal["proposed", "confirmed", "corrected", "absent"]
Place = tuple[float, float, float]

#: Steps that can be taken back.
STEPS = 200
#: Positions are kept to a ten thousandth of a mm: browsers reckon with seven digits.
DECIMALS = 4
#: A label is at most so long.
LONGEST_LABEL = 100


@dataclass(frozen=True)
class Row:
    """One point of the list.

    Attributes:
        id: Of the row; never given to another one.
        label: For people; the same in both files.
        fixed: World RAS mm on the fixed scan; None where nothing is known.
        moving: Likewise on the moving scan.
        found: Where the engine has found it, if somebody has moved it since.
        asked: In which scan the point was given: "fixed" or "moving".
        match: What the engine says; None where it was not asked.
        review: What a person has said.
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
    """A position as it is kept; None where there is none."""
    if position is None:
        return None
    values = np.asarray(position, dtype=np.float64)
    if np.isnan(values).any():
        return None
    return tuple(round(float(v), DECIMALS) + 0.0 for v in values)  # type: ignore[return-value]


class Sheet:
    """Rows, and what they were before. Any number of threads may change it, one after the other.

    Attributes:
        version: Raised with every change.
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
        """All rows, in the order in which they were made."""
        return self._rows

    @property
    def is_saved(self) -> bool:
        """Whether nothing has changed since it was saved."""
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
        """An id that no row has had."""
        return f"r{next(self._numbers)}"

    def next_label(self) -> str:
        """The lowest number that is no label yet."""
        taken = {row.label for row in self._rows}
        return next(text for n in itertools.count(1) if (text := str(n)) not in taken)

    def begin(self, rows: Sequence[Row]) -> None:
        """Put in what was read from files; nothing to take back, and nothing to save."""
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
            OptionsError: if there is none of this id.
            PointsError: if the label cannot be one.
        """
        if "label" in changes:
            check_label(changes["label"])
        with self._lock:
            self.get(key)
            self._change(lambda old: tuple(replace(row, **changes) if row.id == key else row for row in old))
            return self.get(key)

    def remove(self, key: str) -> None:
        """Take a row out.

        Raises:
            OptionsError: if there is none of this id.
        """
        with self._lock:
            self.get(key)
            self._change(lambda old: tuple(row for row in old if row.id != key))

    def get(self, key: str) -> Row:
        """The row of an id.

        Raises:
            OptionsError: if there is none.
        """
        for row in self._rows:
            if row.id == key:
                return row
        raise OptionsError(f"the list has no point {key}; it may have been deleted in another window")

    def undo(self) -> bool:
        """Take back the last change; whether there was one."""
        with self._lock:
            if not self._past:
                return False
            self._rows = self._past.pop()
            self.version += 1
            return True

    def answered(self, found: dict[str, Match]) -> None:
        """Write down what the engine says of rows; nothing that a person has said is changed, and nothing to undo.

        Args:
            found: Id of a row -> the answer for its fixed point.
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
        """Remember what stands in the files."""
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
    """Refuse what cannot be a label.

    Raises:
        PointsError: if it is empty, too long, or holds what is no letter.
    """
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise PointsError(f"a label has 1 to {LONGEST_LABEL} letters in one line, got {label[:40]!r}")
