"""`meddift match`: points of one scan, found in another."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from meddift.cli.choices import (
    AsJson,
    AssumeGeometry,
    Device,
    ModelName,
    NiftiFormOption,
    PointsSpace,
    Quiet,
    Seed,
    Store,
    WeightsFolder,
    read_image,
)
from meddift.errors import OptionsError

Preset = Literal["paper", "default"]
Latent = Literal["mean", "sample"]


def match(
    fixed: Annotated[
        Path, typer.Argument(metavar="FIXED", help="The scan in which the points are given.", show_default=False)
    ],
    moving: Annotated[
        Path, typer.Argument(metavar="MOVING", help="The scan in which they are looked for.", show_default=False)
    ],
    points: Annotated[
        Path,
        typer.Option(
            "--points",
            "-p",
            metavar="FILE",
            help="Points on the fixed scan: .mrk.json, .fcsv, .csv, .txt, .pts.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where the points found go; the suffix decides the format.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="True places on the moving scan, to report errors in mm."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Draw some points in three planes of both scans."),
    ] = None,
    as_json: AsJson = False,
    model: ModelName = "builtin",
    weights: WeightsFolder = None,
    preset: Annotated[
        Preset, typer.Option("--preset", help="paper: as published. default: what measures best.")
    ] = "default",
    timestep: Annotated[
        int | None, typer.Option("--timestep", metavar="N", min=0, help="Noise level the network is shown.")
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels", metavar="NAME,...", help="Feature maps to use, such as up0,up1,mind (mind needs no network)."
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            "--prior",
            metavar="none|identity|affine|FILE",
            help="Where points are expected: anywhere, at the same place, after an affine found automatically, "
            "or after the transform in a file.",
        ),
    ] = None,
    search_radius: Annotated[
        float | None,
        typer.Option("--search-radius", metavar="MM", help="How far from the expected place to look."),
    ] = None,
    noise_samples: Annotated[
        int | None,
        typer.Option("--noise-samples", metavar="K", min=0, help="Noise draws to average; 0 adds no noise."),
    ] = None,
    latent: Annotated[
        Latent | None, typer.Option("--latent", help="Mean of the autoencoder's posterior, or one sample of it.")
    ] = None,
    whiten: Annotated[
        bool | None,
        typer.Option("--whiten/--no-whiten", help="Whiten features, or not; by default as the model says."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: Store = True,
    points_space: PointsSpace = None,
    nifti_form: NiftiFormOption = None,
    assume_geometry: AssumeGeometry = False,
    fixed_series: Annotated[
        str | None, typer.Option("--fixed-series", metavar="UID", help="Which series of a DICOM folder.")
    ] = None,
    moving_series: Annotated[
        str | None, typer.Option("--moving-series", metavar="UID", help="Which series of a DICOM folder.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how much memory it takes; do nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Find points of the fixed scan in the moving scan.

    Every point gets a verdict: ok, uncertain, or outside (it has no counterpart in the moving scan); uncertain and
    outside come with the reason. Nothing is written unless everything went well.
    """
    from meddift.cli.outputs import Outputs
    from meddift.cli.points_files import check_points_files, read_points_on, read_truth, rehearse
    from meddift.cli.terminal import progress_display, tell

    outputs = Outputs(inputs=tuple(path for path in (fixed, moving, points, truth) if path is not None))
    if out is None and picture is None and not as_json and not dry_run:
        raise OptionsError("nothing to do: give --out FILE, --json or --picture FILE.png")
    if search_radius is not None and not search_radius > 0:
        raise OptionsError(f"--search-radius is a distance in mm above 0, got {search_radius:g}")
    outputs.check([path for path in (out, picture) if path is not None])
    check_points_files(points, truth, points_space)
    chosen = {
        "timestep": timestep,
        "levels": _parse_levels(levels),
        "prior": _parse_prior(prior),
        "search_radius_mm": search_radius,
        "noise_samples": noise_samples,
        "latent": latent,
        "whiten": whiten,
    }
    overrides = {name: value for name, value in chosen.items() if value is not None}

    import meddift

    read = partial(read_image, nifti_form=nifti_form, assume_geometry=assume_geometry)
    with progress_display(quiet=quiet) as report:
        # First, so that options which make no sense are said before anything is read.
        matcher = meddift.Matcher(
            model, preset, weights=weights, device=device, store=store, on_progress=report, seed=seed, **overrides
        )
        report("reading the scans", 0.0)
        fixed_volume = read(fixed, series=fixed_series)
        wanted = read_points_on(points, points_space, fixed_volume, "fixed")
        moving_volume = read(moving, series=moving_series)
        true_points = read_truth(truth, points_space, moving_volume, wanted)
        rehearse(wanted, out)

        if dry_run:
            plan = matcher.plan(fixed_volume, moving_volume, len(wanted))
        else:
            pair = matcher.pair(fixed_volume, moving_volume)
            matches = pair.match(wanted)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return

    from meddift.cli import match_report

    report_of = match_report.MatchReport(pair=pair, matches=matches, truth=true_points)
    missed = match_report.write(report_of, outputs, out=out, picture=picture, also=as_json)
    tell(report_of, missed, as_json=as_json, quiet=quiet)


# ---------------------------------------------------------------------- reading what was asked


def _parse_levels(text: str | None) -> tuple[str, ...] | None:
    """`up0,up1` as ("up0", "up1")."""
    if text is None:
        return None
    levels = tuple(part.strip() for part in text.split(",") if part.strip())
    if not levels:
        raise OptionsError(f"--levels is a list of names such as up0,up1,mind; got {text!r}")
    return levels


def _parse_prior(text: str | None) -> str | Path | None:
    """A name, or a file that holds a transform."""
    if text is None or text in ("none", "identity", "affine"):
        return text
    if not Path(text).exists():
        raise OptionsError(f"--prior is none, identity, affine or a transform file; there is no file {text!r}")
    from meddift.io import read_transform

    read_transform(text)
    return Path(text)


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """What a run would do."""
    from meddift.cli.terminal import human_bytes, write_json_to_stdout

    if as_json:
        write_json_to_stdout(plan)
        return
    for name, value in plan.items():
        heading = name.replace("_", " ")
        if name == "memory_bytes":
            typer.echo(f"memory: about {human_bytes(value)}")
        elif isinstance(value, dict):
            typer.echo(f"{heading}:")
            for key, inner in value.items():
                typer.echo(f"  {key.replace('_', ' ')}: {_plan_word(inner)}")
        elif name == "stages":
            typer.echo("what would be done:")
            for stage in value:
                typer.echo(f"  {stage}")
        else:
            typer.echo(f"{heading}: {_plan_word(value)}")


def _plan_word(value: Any) -> str:
    """A value of the plan as people write it."""
    if value is None:
        return "as the model says"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
