"""`meddift match`: points of one scan, found in another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meddift.cli.choices import (
    AsJson,
    AssumeGeometry,
    NiftiForm,
    NiftiFormOption,
    PointsSpace,
    Quiet,
    Space,
    WeightsFolder,
    read_image,
)
from meddift.errors import FrameError, OptionsError, PointsError

if TYPE_CHECKING:
    from meddift.points import Points
    from meddift.volume import Volume

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
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="A model of `meddift models list`, or a .toml file.")
    ] = "builtin",
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
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Decides every random draw.")] = 0,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda:N", help="Where to compute.")] = "auto",
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Keep features on disk, so that the next question is quick.")
    ] = True,
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
    from meddift.cli.terminal import progress_display

    outputs = Outputs(inputs=tuple(path for path in (fixed, moving, points, truth) if path is not None))
    if out is None and picture is None and not as_json and not dry_run:
        raise OptionsError("nothing to do: give --out FILE, --json or --picture FILE.png")
    if search_radius is not None and not search_radius > 0:
        raise OptionsError(f"--search-radius is a distance in mm above 0, got {search_radius:g}")
    outputs.check([path for path in (out, picture) if path is not None])
    _check_readable(points, truth, points_space)
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

    with progress_display(quiet=quiet) as report:
        # First, so that options which make no sense are said before anything is read.
        matcher = meddift.Matcher(
            model, preset, weights=weights, device=device, store=store, on_progress=report, seed=seed, **overrides
        )
        report("reading the scans", 0.0)
        fixed_volume = _read(fixed, nifti_form, assume_geometry, fixed_series)
        wanted = _read_points(points, points_space, fixed_volume, "fixed")
        moving_volume = _read(moving, nifti_form, assume_geometry, moving_series)
        true_points = _read_truth(truth, points_space, moving_volume, wanted)
        _rehearse(wanted, out)

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
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout(report_of.as_dict())
    elif not quiet:
        report_of.show()
    if missed:
        from meddift.cli.failures import DONE_IN_PART, complain

        for sentence in missed:
            complain(sentence)
        raise typer.Exit(DONE_IN_PART)


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


def _check_readable(points: Path, truth: Path | None, space: Space | None) -> None:
    """Find out about a bad points file before the scans are read."""
    from meddift.io.points import parse_points_file
    from meddift.io.points.frames import settle_frame

    settle_frame(parse_points_file(points).frame, space, points)
    if truth is not None:
        settle_frame(parse_points_file(truth).frame or space, None, truth)


def _read(path: Path, nifti_form: NiftiForm | None, assume_geometry: bool, series: str | None) -> Volume:
    return read_image(path, nifti_form=nifti_form, assume_geometry=assume_geometry, series=series)


def _read_points(path: Path, space: Space | None, volume: Volume, role: str) -> Points:
    """Points that belong to a scan; a mix-up of frames is an error, not a set of points outside."""
    from meddift.io import read_points
    from meddift.io.points import looks_like_flipped

    found = read_points(path, space=space, grid=volume.grid)
    if found.missing.all():
        raise PointsError(f"{path}: none of its {len(found)} points has a position")
    if looks_like_flipped(found, volume.grid):
        raise FrameError(
            f"{path}: most points lie outside the {role} scan, but with x and y negated they lie inside: this looks "
            f"like LPS taken for RAS or the reverse. Correct the frame that the file names or, if it names none, "
            f"give the other one with --points-space"
        )
    return found


def _read_truth(path: Path | None, space: Space | None, moving: Volume, wanted: Points) -> Points | None:
    """True places on the moving scan, in the order of the points; voxel indices are those of the moving scan."""
    if path is None:
        return None
    from meddift.io.points import parse_points_file
    from meddift.pipeline.accuracy import align_truth

    declared = parse_points_file(path).frame
    found = _read_points(path, space if declared is None else None, moving, "moving")
    return align_truth(wanted, found)


def _rehearse(wanted: Points, out: Path | None) -> None:
    """Find out before the work begins that the format asked for cannot hold the points that were given."""
    if out is None:
        return
    from meddift.io.points import format_points

    format_points(wanted, out)


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
