"""`Matches`: points found in the moving scan, with verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError, PointsError
from meddift.matching.verdict import Reason, Verdict
from meddift.points import Points

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from meddift.geometry import Grid

#: Largest number of points shown in a notebook.
ROWS_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Match:
    """One match.

    Attributes:
        label: Label of the point.
        fixed: (3,) float64, on the fixed scan, world RAS mm; NaN if the point has no position.
        moving: (3,) float64, on the moving scan, world RAS mm; NaN if the verdict is "outside".
        similarity: See `Matches`.
        margin: See `Matches`.
        inverse_error_mm: See `Matches`.
        verdict: "ok", "uncertain" or "outside".
        reasons: The reasons for the verdict; empty if it is "ok".
    """

    label: str
    fixed: NDArray[np.float64]
    moving: NDArray[np.float64]
    similarity: float
    margin: float
    inverse_error_mm: float
    verdict: Verdict
    reasons: tuple[Reason, ...]

    def __repr__(self) -> str:
        """Label, place and verdict."""
        place = (
            "no answer" if np.isnan(self.moving).any() else "(" + ", ".join(f"{v:.1f}" for v in self.moving) + ") mm"
        )
        return f"Match({self.label!r}: {place}, {self.verdict}{': ' + self.reason if self.reasons else ''})"

    @property
    def reason(self) -> str:
        """All reasons as one sentence."""
        return "; ".join(map(str, self.reasons))

    def judged(self) -> dict[str, Any]:
        """Similarity, margin, inverse error, verdict and reasons, ready for JSON; None where not measured."""

        def number(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "similarity": number(self.similarity),
            "margin": number(self.margin),
            "inverse_error_mm": number(self.inverse_error_mm),
            "verdict": self.verdict,
            "reason": self.reason,
            "codes": [reason.code for reason in self.reasons],
        }


@dataclass(frozen=True, eq=False)
class Matches:
    """The matches of N fixed points; row i of every attribute belongs to point i.

    Iterating gives one `Match` for each point; `matches["label"]` and `matches[row]` give a single one.

    Attributes:
        fixed: N points on the fixed scan, world RAS mm.
        moving: N points on the moving scan, world RAS mm, with the same labels; missing (NaN) where the verdict is
            "outside", since there is no counterpart.
        similarity: (N,) float64, weighted mean cosine over the levels at the position found, -1 to 1; NaN where not
            searched.
        margin: (N,) float64, difference in similarity to the best rival in the searched region; NaN where not
            searched or not measured, inf without a rival.
        inverse_error_mm: (N,) float64, inverse-consistency error: distance between the fixed point and the result of
            matching back, mm; NaN where not measured.
        verdict: N of "ok", "uncertain", "outside".
        reasons: The reasons for each verdict; empty where it is "ok".
        drawing: Draws the matches together with the scans; None if the scans are unknown. See `plot`.

    Raises:
        PointsError: if lengths or labels differ, an "ok" has reasons, or another verdict has none.
    """

    fixed: Points
    moving: Points
    similarity: NDArray[np.float64]
    margin: NDArray[np.float64]
    inverse_error_mm: NDArray[np.float64]
    verdict: tuple[Verdict, ...]
    reasons: tuple[tuple[Reason, ...], ...]
    drawing: Callable[[Matches], Figure] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Validate."""
        count = len(self.fixed)
        parts = (self.moving, self.similarity, self.margin, self.inverse_error_mm, self.verdict, self.reasons)
        if any(len(part) != count for part in parts):
            raise PointsError(
                f"matches of {count} points have parts of other lengths: {[len(part) for part in parts]}"
            )
        if self.fixed.labels != self.moving.labels:
            raise PointsError("the fixed and the moving points of matches must have the same labels")
        for label, verdict, reasons in zip(self.fixed.labels, self.verdict, self.reasons, strict=True):
            if verdict not in ("ok", "uncertain", "outside") or (verdict == "ok") == bool(reasons):
                raise PointsError(f"point {label!r}: the verdict {verdict!r} does not go with the reasons {reasons}")

    def __len__(self) -> int:
        """Number of points."""
        return len(self.fixed)

    def __repr__(self) -> str:
        """The number of points with each verdict."""
        counts = ", ".join(f"{self.verdict.count(v)} {v}" for v in ("ok", "uncertain", "outside"))
        return f"Matches({len(self)} points: {counts})"

    def __iter__(self) -> Iterator[Match]:
        """One match for each point."""
        return (self[row] for row in range(len(self)))

    def __getitem__(self, which: str | int) -> Match:
        """The match with a label, or in a row.

        Raises:
            PointsError: if no point, or more than one, has this label.
            IndexError: if there is no such row.
        """
        row = self._row_of(which) if isinstance(which, str) else range(len(self))[which]
        return Match(
            self.fixed.labels[row],
            self.fixed.positions[row],
            self.moving.positions[row],
            float(self.similarity[row]),
            float(self.margin[row]),
            float(self.inverse_error_mm[row]),
            self.verdict[row],
            self.reasons[row],
        )

    def _row_of(self, label: str) -> int:
        count = self.fixed.labels.count(label)
        if count != 1:
            has = "no point has" if count == 0 else f"{count} points have"
            raise PointsError(f"{has} the label {label!r}; give the number of the row instead")
        return self.fixed.labels.index(label)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,) bool, True where the verdict is "ok"."""
        return np.array([v == "ok" for v in self.verdict], dtype=bool)

    @property
    def reason(self) -> tuple[str, ...]:
        """N texts, the reasons of each point joined; empty where the verdict is "ok"."""
        return tuple("; ".join(map(str, reasons)) for reasons in self.reasons)

    # ------------------------------------------------------------------ for other programs

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each point, ready for JSON: world RAS mm, None in place of NaN."""

        def place(position: NDArray[np.float64]) -> list[float] | None:
            return None if np.isnan(position).any() else [float(v) for v in position]

        return [
            {
                "label": match.label,
                "fixed": place(match.fixed),
                "moving": place(match.moving),
                **match.judged(),
            }
            for match in self
        ]

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with one row for each point; coordinates in separate columns, world RAS mm.

        Raises:
            OptionsError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise OptionsError("a DataFrame needs pandas, which is not installed: pip install pandas") from error
        table: dict[str, Any] = {"label": self.fixed.labels}
        for name, points in (("fixed", self.fixed), ("moving", self.moving)):
            table |= {f"{name}_{axis}": points.positions[:, i] for i, axis in enumerate("xyz")}
        table |= {
            "similarity": self.similarity,
            "margin": self.margin,
            "inverse_error_mm": self.inverse_error_mm,
            "verdict": self.verdict,
            "reason": self.reason,
            "codes": [" ".join(reason.code for reason in reasons) for reasons in self.reasons],
        }
        further = {name: values for name, values in self.fixed.columns.items() if name not in table}
        return pd.DataFrame({**table, **further})

    def columns(self, format: str) -> dict[str, list[Any]]:
        """The columns besides label and position that a points format can hold.

        Args:
            format: Name of the format, such as "meddift" or "slicer"; see `write_points`.

        Returns:
            Name of a column -> N values.
        """
        if format in ("meddift", "ants"):
            rows = self.rows()
            found = {key: [row[key] for row in rows] for key in _COLUMNS}
            found["codes"] = [" ".join(row["codes"]) for row in rows]
            carried = {k: list(v) for k, v in self.fixed.columns.items() if k.strip().lower() not in found}
            return {**carried, **found}
        if format in ("slicer", "fcsv"):
            pairs = zip(self.verdict, self.reason, strict=True)
            return {"description": [f"{verdict}: {reason}" if reason else str(verdict) for verdict, reason in pairs]}
        return {}

    def save(self, path: Path | str, *, grid: Grid | None = None) -> None:
        """Write the points on the moving scan, with verdicts and reasons as far as the format can hold them.

        Args:
            path: The file; its ending decides the format (`.csv`, `.mrk.json`, `.fcsv`, ...; see `write_points`). A
                `.json` file of another kind holds `rows`.
            grid: Grid of the moving scan, for formats with voxel indices.

        Raises:
            PointsError: if the format cannot hold points without a position.
            OutputError: if the file cannot be written.
        """
        from meddift.io.points import write_points
        from meddift.io.points.writing import points_format
        from meddift.system.atomic import write_json

        path = Path(path)
        if path.suffix == ".json" and not path.name.endswith(".mrk.json"):
            write_json({"points": self.rows(), "space": "RAS", "unit": "mm"}, path)
        else:
            write_points(self.moving, path, grid=grid, extra=self.columns(points_format(path, None)))

    def plot(self) -> Figure:
        """Draw some of the matches in three planes of both scans, as a matplotlib Figure.

        Raises:
            OptionsError: if the scans are unknown, as for matches that were not made by `Pair.match`.
        """
        if self.drawing is None:
            raise OptionsError("these matches do not know their scans: make them by pair.match(points)")
        return self.drawing(self)

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        color = {"ok": "#2a7d2a", "uncertain": "#a86a00", "outside": "#b03030"}
        head = "".join(f"<th>{name}</th>" for name in ("label", "moving x, y, z (RAS mm)", "verdict", "reason"))
        body = ""
        for row in range(min(len(self), ROWS_SHOWN)):
            match = self[row]
            place = "" if np.isnan(match.moving).any() else ", ".join(f"{v:.1f}" for v in match.moving)
            verdict = f'<span style="color:{color[match.verdict]}">{match.verdict}</span>'
            cells = (escape(match.label), place, verdict, escape(match.reason))
            body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        more = f"<p>... and {len(self) - ROWS_SHOWN} more points</p>" if len(self) > ROWS_SHOWN else ""
        return f"<p>{escape(repr(self))}</p><table><tr>{head}</tr>{body}</table>{more}"


_COLUMNS = ("similarity", "margin", "inverse_error_mm", "verdict", "reason")
