"""`meddift match`: points of one scan, found in another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from meddift.cli.failures import say
from meddift.cli.groups import with_groups
from meddift.cli.options import AsJson, DryRun, Engine, PairReading, PointsFormat, PointsSpace, Quiet, ToSpace

EXAMPLES = """
meddift match old.nii.gz new.nii.gz -p lesions.mrk.json -o found.mrk.json
meddift match ct-2024/ ct-2025/ -p lesions.csv --json > answer.json
meddift match a.nii.gz b.nii.gz -p a.txt --points-space voxel --truth b.txt
"""


@with_groups
def match(
    *,
    fixed: Annotated[
        Path, typer.Argument(metavar="FIXED", help="The scan in which the points are given.", show_default=False)
    ],
    moving: Annotated[
        Path, typer.Argument(metavar="MOVING", help="The scan in which they are searched.", show_default=False)
    ],
    points: Annotated[
        Path,
        typer.Option(
            "--points", "-p", metavar="FILE", help="Points on the fixed scan: .mrk.json, .fcsv, .csv, .txt, .pts."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File for the points found; its ending decides the format."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Picture of some points in three planes of both scans."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="True positions on the moving scan, to report errors in mm."),
    ] = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    engine: Engine,
    points_space: PointsSpace = None,
    points_format: PointsFormat = None,
    to_space: ToSpace = None,
    reading: PairReading,
) -> None:
    """Find points of the fixed scan in the moving scan.

    Every point gets a verdict: ok, uncertain, or outside (no counterpart in the moving scan); for uncertain and
    outside the reason is given. Files are written only if the whole run succeeds.
    """
    from meddift.cli.match_report import MatchReport, write
    from meddift.cli.outputs import PICTURES, Outputs, check_suffix
    from meddift.cli.points_files import PointsTarget, check_points_files
    from meddift.cli.terminal import progress_display, tell
    from meddift.pipeline.points_files import read_points_on, read_truth

    inputs = [path for path in (fixed, moving, points, truth) if path is not None]
    outputs = Outputs(inputs=(*inputs, *engine.inputs()))
    target = None if out is None else PointsTarget(out, points_format, to_space)
    outputs.check([path for path in (out, picture) if path is not None])
    if target is not None:
        target.holds()
    check_suffix(picture, PICTURES, "pictures")
    check_points_files(points, truth, points_space, reading)
    with progress_display(quiet=quiet) as report:
        matcher = engine.matcher(report, reading=reading.fixed)
        report("reading the scans", 0.0)
        fixed_volume = reading.fixed.read(fixed)
        wanted = read_points_on(points, points_space, fixed_volume.grid, "fixed", **reading.fixed.geometry())
        moving_volume = reading.moving.read(moving)
        true_points = read_truth(truth, points_space, moving_volume, wanted, **reading.moving.geometry())
        if target is not None:
            target.rehearse(wanted, fixed_volume.grid, moving_volume.grid)
        if not dry_run:
            pair = matcher.pair(fixed_volume, moving_volume)
            matches = pair.match(wanted)
    if dry_run:
        show_plan(matcher.plan(fixed_volume, moving_volume, len(wanted)), as_json=as_json)
        return
    result = MatchReport(pair=pair, matches=matches, truth=true_points)
    missed = write(result, outputs, target=target, picture=picture)
    tell(result, missed, outputs.written, as_json=as_json, quiet=quiet)


def show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """Print what a run would do."""
    from meddift.cli.terminal import human_bytes, write_json_to_stdout

    if as_json:
        write_json_to_stdout(plan)
        return
    for name, value in plan.items():
        heading = name.replace("_", " ")
        if name == "memory_bytes":
            say(f"memory: about {human_bytes(value)}")
        elif isinstance(value, dict):
            say(f"{heading}:")
            for key, inner in value.items():
                say(f"  {key.replace('_', ' ')}: {_plan_word(inner)}")
        elif name == "stages":
            say("what would be done:")
            for stage in value:
                say(f"  {stage}")
        else:
            say(f"{heading}: {_plan_word(value)}")


def _plan_word(value: Any) -> str:
    """A value of the plan as people write it."""
    if value is None:
        return "as the model says"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
