"""`meddift demo`: a scan, its follow-up by a known deformation, and how well points are found again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from meddift.cli.choices import Quiet


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "meddift-demo"
    ),
    scan: Annotated[
        Path | None,
        typer.Option(
            "--scan", metavar="FILE", help="A real CT of the chest, instead of a phantom.", show_default=False
        ),
    ] = None,
    points: Annotated[int, typer.Option("--points", metavar="N", min=4, help="How many points to look for.")] = 50,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Another seed, another chest.")] = 1,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda:N", help="Where to compute.")] = "auto",
    picture: Annotated[bool, typer.Option("--picture/--no-picture", help="Draw some of the points.")] = True,
    quiet: Quiet = False,
) -> None:
    """Match a synthetic chest scan with its breathing, shifted follow-up, and compare with the exact truth.

    Writes the scans, the points (fixed, found and true, for 3D Slicer), a picture and the numbers as JSON.
    """
    from meddift.cli.terminal import make_table, progress_display, show
    from meddift_lab.demo import check_folder, run_demo, write_demo

    check_folder(out)
    with progress_display(quiet=quiet) as report:
        result = run_demo(scan=scan, count=points, seed=seed, device=device, on_progress=report)
        written = write_demo(result, out, picture=picture)
    if quiet:
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
    verdicts = result.matches.verdict
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("ok", "uncertain", "outside"))
    show(
        table,
        f"Verdicts: {counts}. Time: {result.seconds:.0f} s.",
        "Written:",
        *(f"  {path}: {what}" for path, what in written.items()),
        to_stdout=True,
    )
    sys.stdout.flush()
