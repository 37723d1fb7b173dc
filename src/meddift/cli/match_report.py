"""What `meddift match` and `meddift demo` hand out: files, JSON and a table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.cli.outputs import Outputs
from meddift.errors import PointsError
from meddift.system.atomic import write_text

if TYPE_CHECKING:
    from meddift.matching import Matches
    from meddift.pipeline import Pair
    from meddift.pipeline.accuracy import Accuracy
    from meddift.points import Points

#: Rows of the table; all points are in the files and in the JSON.
ROWS_SHOWN = 40


@dataclass(frozen=True, eq=False)
class MatchReport:
    """The result of one run.

    Attributes:
        pair: The two scans.
        matches: What was found.
        truth: True places on the moving scan in the order of the matches, or None.
    """

    pair: Pair
    matches: Matches
    truth: Points | None = None

    @cached_property
    def accuracy(self) -> Accuracy | None:
        """Errors against the truth, if it is known."""
        if self.truth is None:
            return None
        from meddift.pipeline.accuracy import measure_accuracy

        return measure_accuracy(self.matches, self.truth, self.pair.moving.grid)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; coordinates in world RAS mm."""
        from meddift.pipeline.report import match_report

        return match_report(self.pair, self.matches, self.accuracy)

    def show(self) -> None:
        """The table: on stdout if a person looks at it there, else on stderr."""
        from meddift.cli.terminal import make_table, show

        verdicts = self.matches.verdict
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("ok", "uncertain", "outside") if v in verdicts)
        columns = [
            ("point", False), ("moving x, y, z (RAS mm)", True), ("similarity", True), ("back in mm", True),
        ]  # fmt: skip
        if self.accuracy is not None:
            columns.append(("error mm", True))
        table = make_table(f"{len(verdicts)} points: {counts}", [*columns, ("verdict", False)])
        for index, row in enumerate(self.matches.rows()[:ROWS_SHOWN]):
            moving = row["moving"]
            cells = [
                row["label"],
                "-" if moving is None else "  ".join(f"{value:.1f}" for value in moving),
                _number(row["similarity"], 3),
                _number(row["inverse_error_mm"], 1),
            ]
            if self.accuracy is not None:
                cells.append(_number(float(self.accuracy.distances[index]), 1))
            verdict = row["verdict"] + (f": {row['reason']}" if row["reason"] else "")
            table.add_row(*(_plain(cell) for cell in cells), _colored(verdict, row["verdict"]))
        lines: list[Any] = [table]
        if len(verdicts) > ROWS_SHOWN:
            lines.append(f"... and {len(verdicts) - ROWS_SHOWN} more points")
        if self.accuracy is not None:
            lines += accuracy_lines(self.accuracy)
        show(*lines, to_stdout=sys.stdout.isatty())


def accuracy_lines(accuracy: Accuracy) -> list[str]:
    """The errors in words, a line each."""
    lines = []
    for name, errors in (("all points", accuracy.all), ("verdict ok", accuracy.ok)):
        if errors.mean is None:
            lines.append(f"{name}: no point with a known place in the moving scan got an answer ({errors.n} points)")
            continue
        lines.append(
            f"{name}: error mean {errors.mean:.2f} mm, median {errors.median:.2f}, 95 % below {errors.p95:.2f}, "
            f"largest {errors.max:.2f}; {100 * (errors.within_5mm or 0):.0f} % of {errors.n} within 5 mm"
        )
    if accuracy.absent:
        absent, called_ok = accuracy.absent, accuracy.absent_called_ok
        lines.append(f"points whose true place is not in the moving scan: {absent}, called ok: {called_ok}")
    return lines


def write(
    report: MatchReport, outputs: Outputs, *, out: Path | None, picture: Path | None, also: bool = False
) -> list[str]:
    """Write the files that were asked for.

    Args:
        report: What to write.
        outputs: Where to; `commit` is called.
        out: Points found.
        picture: Picture.
        also: Whether the caller gets something else too, such as JSON on stdout.

    Returns:
        One sentence for each file that could not be written while the rest was.

    Raises:
        MeddiftError: if nothing was written.
    """
    missed = []
    if out is not None:
        try:
            text = points_text(report.matches, out)
        except PointsError as error:
            # Such as a format that cannot say that a point has no counterpart.
            if not also and picture is None:
                raise
            missed.append(str(error))
        else:
            outputs.required[out] = lambda path: write_text(text, path)
    if picture is not None:
        from meddift.pipeline.picture import draw_matches

        outputs.optional[picture] = lambda path: draw_matches(
            path, report.pair.fixed, report.pair.moving, report.matches, truth=report.truth
        )
    return missed + outputs.commit()


def points_text(matches: Matches, path: Path) -> str:
    """The points found as the content of a file, with what is known about each as far as the format holds it."""
    from meddift.io.points import format_points

    return format_points(matches.moving, path, extra=extra_columns(matches, path))


def extra_columns(matches: Matches, path: Path) -> dict[str, list[Any]]:
    """Columns beside label and position, by the suffix of the file."""
    name = path.name.lower()
    if name.endswith(".csv"):
        rows = matches.rows()
        keys = ("similarity", "margin", "inverse_error_mm", "verdict", "reason")
        return {key: [row[key] for row in rows] for key in keys}
    if name.endswith((".json", ".fcsv")):
        pairs = zip(matches.verdict, matches.reason, strict=True)
        return {"description": [f"{verdict}: {reason}" if reason else str(verdict) for verdict, reason in pairs]}
    return {}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _plain(text: str) -> Any:
    """Text that rich shall not read as markup: labels come from users."""
    from rich.text import Text

    return Text(text)


def _colored(text: str, verdict: str) -> Any:
    from rich.text import Text

    return Text(text, style={"ok": "green", "uncertain": "yellow"}.get(verdict, "red"))
