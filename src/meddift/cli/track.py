"""`meddift track`: the lesions of one patient through two scans or more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meddift.cli.failures import DONE_IN_PART, complain
from meddift.cli.groups import with_groups
from meddift.cli.help import ADVANCED
from meddift.cli.options import AsJson, Engine, Quiet
from meddift.errors import OptionsError

if TYPE_CHECKING:
    from rich.table import Table

    from meddift.tracking.result import FollowUp
    from meddift.tracking.timepoints import TimePoint

EXAMPLES = """
meddift track patient.csv --out follow-up
meddift track a.nii b.nii --lesions a-mask.nii --lesions b-mask.nii --out fu
meddift track patient.csv --targets targets.csv --out follow-up
meddift track patient.csv --review follow-up/lesions.tsv --out follow-up
"""


@with_groups
def track(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="TIMEPOINTS.csv | SCAN...",
            help="A table with the columns timepoint, date, scan and any of lesions, points, lesion_table, phase; or "
            "two scans or more, earliest first unless --date says otherwise.",
        ),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder for tables, masks and report; an earlier run there is resumed."
        ),
    ],
    lesions: Annotated[
        list[Path] | None,
        typer.Option(
            "--lesions",
            metavar="FILE",
            help="Label map of a scan, in the order of the scans; - for none. In a map with one label, every "
            "connected component is a lesion.",
            show_default=False,
        ),
    ] = None,
    points: Annotated[
        list[Path] | None,
        typer.Option(
            "--points",
            metavar="FILE",
            help="Lesions as points, in the order of the scans; - for none.",
            show_default=False,
        ),
    ] = None,
    date: Annotated[
        list[str] | None,
        typer.Option("--date", metavar="D", help="Date of a scan, in the order of the scans.", show_default=False),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            "--targets",
            metavar="FILE",
            help="Which lesions of the first scan are targets of RECIST 1.1: a table with the columns label, kind "
            "(target, target_node, non_target, non_target_node) and organ.",
            show_default=False,
        ),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            "--review",
            metavar="TABLE.tsv",
            help="An edited lesions.tsv: confirmed and corrected rows are kept, rejected links are not made again.",
            show_default=False,
        ),
    ] = None,
    subject: Annotated[
        str, typer.Option("--subject", metavar="NAME", help="The patient's name in tables.")
    ] = "patient",
    components: Annotated[
        bool, typer.Option("--components", help="Every connected component is a lesion, whatever its label.")
    ] = False,
    minimum_mm3: Annotated[
        float, typer.Option("--minimum-mm3", metavar="V", min=0.0, help="Leave out lesions below this volume.")
    ] = 0.0,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html with pictures.", rich_help_panel=ADVANCED)
    ] = True,
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom",
            help="Write a DICOM SEG and an SR (TID 1500) for every scan that is a DICOM series with a mask; needs the "
            "extra dicom.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    engine: Engine,
) -> None:
    """Follow the lesions of one patient over time: identity, growth, disappearance, new lesions.

    Lesions are given as masks or points for each scan. Each is mapped from the first scan and from the previous one;
    sizes are measured on the mask of each scan. For research: categories are calculated from the given masks.
    """
    from meddift.cli.outputs import check_output_folder
    from meddift.cli.terminal import progress_display, write_json_to_stdout
    from meddift.tracking.outputs import content, is_follow_up
    from meddift.tracking.run import track as run

    time_points = _time_points(scans, lesions, points, date)
    # An edited table may be that of the results themselves: it is read before anything is written, and comes back.
    check_output_folder(out, is_follow_up, [*_files(time_points), *_given(targets), *engine.inputs()])
    with progress_display(quiet=quiet) as show_progress:
        found = run(
            time_points,
            out,
            matcher=engine.matcher(),
            subject=subject,
            components=components,
            minimum_mm3=minimum_mm3,
            targets=targets,
            review=review,
            report=report,
            dicom=dicom,
            on_progress=show_progress,
        )
    if as_json:
        write_json_to_stdout(content(found))
    elif not quiet:
        _show(found, out)
    if found.failures:
        for failure in found.failures:
            complain(failure)
        raise typer.Exit(DONE_IN_PART)


def _files(time_points: Path | list[TimePoint]) -> list[Path]:
    """All files that are read for the time points, and the table that lists them."""
    from meddift.tracking.timepoints import read_time_points

    points = read_time_points(time_points) if isinstance(time_points, Path) else time_points
    listed = [file for point in points for file in (point.scan, point.lesions, point.points, point.lesion_table)]
    return _given(time_points, *listed)


def _given(*files: object) -> list[Path]:
    return [file for file in files if isinstance(file, Path)]


def _time_points(
    scans: list[Path], lesions: list[Path] | None, points: list[Path] | None, dates: list[str] | None
) -> Path | list[TimePoint]:
    """A table, or time points of lists of the same length."""
    from meddift.tracking.timepoints import TimePoint, parse_date

    if len(scans) == 1:
        if scans[0].suffix.lower() not in (".csv", ".tsv", ".txt"):
            raise OptionsError(f"one scan is no follow-up: give two scans or more, or a table of them; got {scans[0]}")
        if lesions or points or dates:
            raise OptionsError("with a table of time points, --lesions, --points and --date belong into its columns")
        return scans[0]
    for name, given in (("lesions", lesions), ("points", points), ("date", dates)):
        if given and len(given) != len(scans):
            raise OptionsError(
                f"--{name} is given {len(given)} times for {len(scans)} scans; give it once a scan, with - for none"
            )

    def file(given: list[Path] | None, k: int) -> Path | None:
        return None if not given or str(given[k]) == "-" else given[k]

    if not any(file(given, k) for given in (lesions, points) for k in range(len(scans))):
        raise OptionsError("there are no lesions to follow: give --lesions or --points")
    return [
        TimePoint(
            "",
            scan,
            parse_date(dates[k], f"--date {dates[k]}") if dates else None,
            lesions=file(lesions, k),
            points=file(points, k),
        )
        for k, scan in enumerate(scans)
    ]


def _show(found: FollowUp, out: Path) -> None:
    """Lesions by time points on stdout."""
    from meddift.cli.terminal import show
    from meddift.tracking.result import NOTE

    show(*lesion_table(found), *found.notes, NOTE, f"Written: {out}", to_stdout=True)


def lesion_table(found: FollowUp) -> list[Table]:
    """Lesions by time points, and RECIST where targets were chosen."""
    from meddift.cli.terminal import make_table

    table = make_table(
        f"Lesions of {found.subject}: longest diameter in mm",
        [("lesion", True), *((f"{point.name} {point.day}".strip(), False) for point in found.time_points)],
    )
    for name in found.lesions:
        cells = []
        for k in range(len(found.time_points)):
            row = found.course.rows.get((name, k))
            sizes = None if row is None else found.sizes(row)
            size = "" if sizes is None else f"{sizes.long_mm:.1f} "
            doubt = "" if row is None or row.verdict != "uncertain" or row.state == "uncertain" else " ?"
            cells.append("" if row is None else f"{size}{row.state}{doubt}")
        table.add_row(name, *cells)
    items = [table]
    if found.assessments is not None:
        told = make_table(
            "RECIST 1.1, calculated", [("", False), ("sum, mm", True), ("category", False), ("why", False)]
        )
        for point, assessed in zip(found.time_points, found.assessments, strict=True):
            total = "-" if assessed.sum_mm is None else f"{assessed.sum_mm:.1f}"
            told.add_row(point.name, total, assessed.overall or "-", assessed.reason)
        items.append(told)
    return items
