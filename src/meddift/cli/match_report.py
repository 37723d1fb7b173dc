"""What `meddift match` and `meddift demo` hand out: files, JSON and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.cli.outputs import Outputs
from meddift.cli.points_files import PointsTarget
from meddift.errors import PointsError
from meddift.matching.verdict import NO_AGREEMENT
from meddift.system.atomic import write_text

if TYPE_CHECKING:
    from meddift.geometry import Grid
    from meddift.matching import Matches
    from meddift.pipeline import Pair
    from meddift.pipeline.accuracy import Accuracy
    from meddift.points import Points

#: Rows of the table; all points are in the files and in the JSON.
ROWS_SHOWN = 40

_COLORS = {"ok": "green", "uncertain": "yellow"}


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

    def show(self, *, to_stdout: bool) -> None:
        """The table: a line a point at 80 columns, all reasons are in the files and in the JSON."""
        from rich.text import Text

        from meddift.cli.terminal import line_width, make_table, show

        verdicts = self.matches.verdict
        columns = [("point", False), ("x, y, z (RAS mm)", True), ("similar", True), ("back mm", True)]
        if self.accuracy is not None:
            columns.append(("error mm", True))
        table = make_table(f"{len(verdicts)} points: {counted(verdicts)}", [*columns, ("verdict", False)])
        for column in table.columns:
            column.no_wrap, column.overflow = True, "ellipsis"
        rows = []
        for index, row in enumerate(self.matches.rows()[:ROWS_SHOWN]):
            moving = row["moving"]
            cells = [
                row["label"],
                "-" if moving is None else " ".join(f"{value:.1f}" for value in moving),
                _number(row["similarity"], 2),
                _number(row["inverse_error_mm"], 1),
            ]
            if self.accuracy is not None:
                cells.append(_number(float(self.accuracy.distances[index]), 1))
            # What holds for both scans is said once, above.
            reason = "; ".join(str(r) for r in self.matches.reasons[index] if r.code != NO_AGREEMENT)
            rows.append((cells, row["verdict"], reason))
        # A long reason is cut, so that it takes no room from what stands before it.
        table_of_cells = ([heading for heading, _ in columns], *(cells for cells, *_ in rows))
        before = sum(max(map(len, column)) + 3 for column in zip(*table_of_cells, strict=True))
        room = max(line_width(to_stdout=to_stdout) - before, 16)
        for cells, verdict, reason in rows:
            text = f"{verdict}: {reason}" if reason else verdict
            text = text if len(text) <= room else text[: room - 1] + "…"
            table.add_row(*cells, Text(text, style=_COLORS.get(verdict, "red")))
        lines: list[Any] = [*remarks(self.pair, self.matches), table]
        if len(verdicts) > ROWS_SHOWN:
            lines.append(f"... and {len(verdicts) - ROWS_SHOWN} more points")
        lines += intensity_lines(self.pair)
        lines += evidence_lines(self.pair)
        if self.accuracy is not None:
            lines += accuracy_lines(self.accuracy)
        show(*lines, to_stdout=to_stdout)


def remarks(pair: Pair, matches: Matches) -> list[str]:
    """What is to be known about the two scans as a whole, a sentence each."""
    found = []
    if pair.fixed.digest == pair.moving.digest:
        found.append("The fixed and the moving scan are the same: every point is found where it was.")
    texts = {str(reason) for reasons in matches.reasons for reason in reasons if reason.code == NO_AGREEMENT}
    for text in sorted(texts):
        why = pair.without_prior
        sentence = f"{text[:1].upper()}{text[1:]}; no point can be trusted"
        found.append(f"{sentence}: {why}" if why else f"{sentence}.")
    return found


def counted(verdicts: Sequence[str]) -> str:
    """How many points have which verdict, in words."""
    return ", ".join(f"{verdicts.count(v)} {v}" for v in ("ok", "uncertain", "outside") if v in verdicts)


def intensity_lines(pair: Pair) -> list[str]:
    """How scans were shown to the model, where that is not the rule for CT."""
    roles = zip(("fixed", "moving"), pair.intensity, strict=True)
    return [f"intensities of the {role} scan: {choice.reason}" for role, choice in roles if not choice.hounsfield]


def evidence_lines(pair: Pair) -> list[str]:
    """Which levels counted, and by how much, as far as anything was found out about it."""
    evidence = pair.evidence
    lines = []
    if place := evidence.get("place"):
        ways = ", ".join(f"{name} ({100 * share:.0f} % of the places agree)" for name, share in place.items())
        lines.append(f"the scans were laid on each other by {ways}")
    if field := evidence.get("field"):
        ways = ", ".join(f"{name} ({agreement:.3f})" for name, agreement in field.items())
        lines.append(f"candidates for the field, by how well they fit, the first was kept: {ways}")
    scales = {"place_levels": "in the whole scan", "field_levels": "around their start", "verdict": "near the result"}
    for scale, where in scales.items():
        if shares := evidence.get(scale):
            levels = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            lines.append(f"places with texture that each level alone finds {where}: {levels}")
    return lines


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


def write(report: MatchReport, outputs: Outputs, *, target: PointsTarget | None, picture: Path | None) -> list[str]:
    """Write the files that were asked for.

    Args:
        report: What to write.
        outputs: Where to; `commit` is called.
        target: Points found.
        picture: Picture.

    Returns:
        One sentence for each file that could not be written while the rest was.

    Raises:
        MeddiftError: if nothing was written.
    """
    missed = []
    if target is not None:
        missed += plan_points(report.matches, target, report.pair.moving.grid, outputs)
    if picture is not None:
        from meddift.pipeline.picture import draw_matches, save_picture

        fixed, moving = report.pair.fixed.volume, report.pair.moving.volume
        outputs.optional[picture] = lambda path: save_picture(
            draw_matches(fixed, moving, report.matches, truth=report.truth), path
        )
    return missed + outputs.commit()


def plan_points(matches: Matches, target: PointsTarget, grid: Grid, outputs: Outputs) -> list[str]:
    """Put the points found among the files to write, with what is known about each as far as the format holds it.

    Args:
        matches: What was found.
        target: The file.
        grid: Grid of the moving scan, in which voxel indices are counted.
        outputs: Where they are put.

    Returns:
        A sentence if the format cannot say that a point has no counterpart, which nobody knew before. Then a table
        beside it holds all points.
    """
    try:
        text = target.text(matches.moving, grid, matches.columns(target.holds()))
    except PointsError as error:
        beside = target.beside()
        if beside is None:
            return [str(error)]
        outputs.optional[beside] = lambda path: matches.save(path)
        return [f"{error}. All of them are in {beside} instead"]
    target.say_what_is_lost(matches.fixed)
    outputs.required[target.path] = lambda path: write_text(text, path)
    return []


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"
