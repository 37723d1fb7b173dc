"""`meddift demo`: a scan, its follow-up by a known deformation, and how well points are found again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meddift.cli.groups import with_groups
from meddift.cli.options import AsJson, Engine, ImageReading, Quiet

if TYPE_CHECKING:
    from meddift.volume import Volume

EXAMPLES = """
meddift demo
meddift demo --scan chest.nii.gz --out mine
meddift demo --points 20 --json
meddift demo --follow-up --out patient
"""


@with_groups
def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "meddift-demo"
    ),
    scan: Annotated[
        Path | None,
        typer.Option("--scan", metavar="FILE", help="A real CT of the chest, instead of a drawn one."),
    ] = None,
    follow_up: Annotated[
        bool,
        typer.Option("--follow-up", help="Lesions of a drawn patient at three dates instead, with the truth beside."),
    ] = False,
    points: Annotated[int, typer.Option("--points", metavar="N", min=4, help="How many points to look for.")] = 50,
    picture: Annotated[bool, typer.Option("--picture/--no-picture", help="Draw some of the points.")] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
    engine: Engine,
    reading: ImageReading,
) -> None:
    """Match a drawn chest with its breathing, shifted follow-up, and compare with the exact truth.

    Writes the scans, the points (fixed, found and true, for 3D Slicer), a picture and the numbers as JSON. Another
    --seed draws another chest. Nothing is kept in the store of features. With --follow-up a patient is drawn whose
    lesions grow, shrink, go, come, split, merge and leave the field of view, and `meddift track` follows them.
    """
    from dataclasses import replace

    from meddift.cli.match_report import counted
    from meddift.cli.outputs import check_output_folder
    from meddift.cli.terminal import make_table, progress_display, show, write_json_to_stdout
    from meddift_lab.demo import is_demo, run_demo, write_demo

    check_output_folder(out, is_demo, [*([] if scan is None else [scan]), *engine.inputs()])
    if follow_up:
        _follow_up(out, None if scan is None else reading.read(scan), engine, as_json=as_json, quiet=quiet)
        return
    with progress_display(quiet=quiet) as report:
        result = run_demo(
            replace(engine, store=False).matcher,
            scan=None if scan is None else reading.read(scan),
            count=points,
            seed=1 + engine.seed,
            on_progress=report,
        )
        written = write_demo(result, out, picture=picture)
    if as_json:
        write_json_to_stdout(dict(result.report))
    if quiet or as_json:
        return
    table = make_table(
        f"Error of {len(result.matches)} points against the exact truth, mm",
        [
            ("", False),
            ("mean", True),
            ("median", True),
            ("95 % below", True),
            ("largest", True),
            ("within 5 mm", True),
        ],
    )
    for name, errors in result.comparison.items():
        numbers = [errors.mean, errors.median, errors.p95, errors.max]
        cells = ["-" if value is None else f"{value:.2f}" for value in numbers]
        share = "-" if errors.within_5mm is None else f"{100 * errors.within_5mm:.0f} %"
        table.add_row(name, *cells, share)
    show(
        table,
        f"Verdicts: {counted(result.matches.verdict)}. Time: {result.seconds:.0f} s.",
        "Written:",
        *(f"  {path}: {what}" for path, what in written.items()),
        to_stdout=True,
    )
    sys.stdout.flush()


def _follow_up(out: Path, scan: Volume | None, engine: Engine, *, as_json: bool, quiet: bool) -> None:
    """Lesions over time, beside the truth."""
    from dataclasses import replace

    from meddift.cli.terminal import progress_display, show, write_json_to_stdout
    from meddift.cli.track import lesion_table
    from meddift_lab.demo_follow_up import run_follow_up_demo

    with progress_display(quiet=quiet) as report:
        matcher = replace(engine, store=False).matcher()
        result = run_follow_up_demo(matcher, out, seed=1 + engine.seed, scan=scan, on_progress=report)
    if as_json:
        write_json_to_stdout(result.as_dict())
    if quiet or as_json:
        return
    scores = result.scores
    show(
        *lesion_table(result.found),
        f"Right states: {scores.states_right} of {scores.states}. Right partners: {scores.partners} of "
        f"{scores.present}. Time: {result.seconds:.0f} s.",
        *result.wrong,
        "Written:",
        *(f"  {path}: {what}" for path, what in result.files.items()),
        to_stdout=True,
    )
    sys.stdout.flush()
