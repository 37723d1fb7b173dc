"""`meddift register`: one transform that takes every point of the fixed scan to the moving scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meddift.cli.groups import with_groups
from meddift.cli.help import advanced
from meddift.cli.options import AsJson, DryRun, Engine, PairReading, PointsFormat, PointsSpace, Quiet, ToSpace
from meddift.errors import ImageError, OptionsError

if TYPE_CHECKING:
    from meddift.volume import Volume

EXAMPLES = """
meddift register baseline.nii.gz followup.nii.gz --out moving-to-fixed.h5
meddift register a.nii.gz b.nii.gz -o t.h5 --warped c.nii.gz --picture c.png
meddift register a.nii.gz b.nii.gz --stages rigid --out start.tfm
meddift register a.nii.gz b.nii.gz -p a.mrk.json --points-out b.mrk.json
"""


@with_groups
def register(
    *,
    fixed: Annotated[
        Path,
        typer.Argument(metavar="FIXED", help="The scan whose points are taken to the other.", show_default=False),
    ],
    moving: Annotated[
        Path, typer.Argument(metavar="MOVING", help="The scan to which they are taken.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Transform for ITK, 3D Slicer and ANTs: .h5 (one transform), .nii.gz, .nrrd or .mha (displacement "
            "field), .tfm (affine only). A FILE.transform.json beside it says what it is.",
        ),
    ] = None,
    inverse: Annotated[
        Path | None,
        typer.Option("--inverse", metavar="FILE", help="The inverse, in the same formats."),
    ] = None,
    affine: Annotated[
        Path | None,
        typer.Option(
            "--affine",
            metavar="FILE.tfm",
            help="The affine part alone. Where nothing else is asked for, no more than that is done.",
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option("--points", "-p", metavar="FILE", help="Points on the fixed scan to take along."),
    ] = None,
    points_out: Annotated[
        Path | None,
        typer.Option("--points-out", metavar="FILE", help="Where they go; the suffix decides the format."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="Their true places, to report errors in mm."),
    ] = None,
    warped: Annotated[
        Path | None,
        typer.Option("--warped", metavar="FILE", help="The moving scan on the voxels of the fixed one."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="Label map of the moving scan to take along."),
    ] = None,
    labels_out: Annotated[
        Path | None,
        typer.Option("--labels-out", metavar="FILE", help="Its labels on the voxels of the fixed scan."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Checkerboard, difference before and after, grid."),
    ] = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    stages: Annotated[
        str,
        advanced("--stages", metavar="NAME[,...]", help="rigid, affine, affine,dense or affine,dense,refine."),
    ] = "affine,dense,refine",
    diffeomorphic: Annotated[bool, advanced("--diffeomorphic", help="A transform that cannot fold.")] = False,
    symmetric: Annotated[
        bool,
        advanced("--symmetric", help="Exchanging the scans gives the inverse; twice the time."),
    ] = False,
    fixed_mask: Annotated[
        Path | None,
        advanced("--fixed-mask", metavar="FILE", help="Compare the scans where this is above 0."),
    ] = None,
    moving_mask: Annotated[
        Path | None,
        advanced("--moving-mask", metavar="FILE", help="What of the moving scan counts."),
    ] = None,
    jacobian: Annotated[
        Path | None,
        advanced("--jacobian", metavar="FILE", help="Volume change (determinant), fixed voxels."),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        advanced(
            "--uncertainty", metavar="FILE", help="How far off the transform may be, mm; NaN without counterpart."
        ),
    ] = None,
    learn2reg: Annotated[
        Path | None,
        advanced("--learn2reg", metavar="FILE.nii.gz", help="Displacements in voxels, as Learn2Reg wants them."),
    ] = None,
    engine: Engine,
    points_space: PointsSpace = None,
    points_format: PointsFormat = None,
    to_space: ToSpace = None,
    reading: PairReading,
) -> None:
    """Register two scans: fit one transform, and carry points, images and label maps through it.

    The transform takes points of the fixed scan to the moving scan; used for resampling, the same file pulls the
    moving image onto the fixed one. If the scans have nothing reliable in common, that is said and nothing is written.
    """
    from meddift.cli.match import show_plan
    from meddift.cli.outputs import Outputs
    from meddift.cli.points_files import PointsTarget, check_points_files
    from meddift.cli.register_report import Carried, Wanted, write
    from meddift.cli.terminal import progress_display, tell
    from meddift.pipeline.points_files import read_points_on, read_truth
    from meddift.registration.register import RIGID, check_stages
    from meddift.registration.warping import require_labels

    if (points is None) != (points_out is None) and not (points is not None and (as_json or truth is not None)):
        raise OptionsError("--points and --points-out belong together")
    if truth is not None and points is None:
        raise OptionsError("--truth needs --points: whose true places are these?")
    if (labels is None) != (labels_out is None):
        raise OptionsError("--labels and --labels-out belong together")
    target = None if points_out is None else PointsTarget(points_out, points_format, to_space)
    wanted = Wanted(out, inverse, affine, learn2reg, target, warped, labels_out, jacobian, uncertainty, picture)
    if not wanted.paths() and not as_json and truth is None and not dry_run:
        raise OptionsError("nothing to do: give --out FILE, another output, or --json")
    only_affine = wanted.paths() == [affine] and points is None
    chosen = tuple(part.strip() for part in stages.lower().split(",") if part.strip())
    if only_affine and chosen != RIGID:
        chosen = ("affine",)
    check_stages(chosen)
    wanted.check(chosen)
    inputs = [path for path in (fixed, moving, points, truth, labels, fixed_mask, moving_mask) if path is not None]
    outputs = Outputs(inputs=(*inputs, *engine.inputs()))
    outputs.check([*wanted.paths(), *wanted.sidecars()])
    if points is not None:
        check_points_files(points, truth, points_space, reading)
    with progress_display(quiet=quiet) as report:
        matcher = engine.matcher(report, reading=reading.fixed)
        report("reading the scans", 0.0)
        fixed_volume, moving_volume = reading.fixed.read(fixed), reading.moving.read(moving)
        asked = None
        if points is not None:
            asked = read_points_on(points, points_space, fixed_volume.grid, "fixed", **reading.fixed.geometry())
        if asked is not None and target is not None:
            target.rehearse(asked, fixed_volume.grid, moving_volume.grid)
        true_points = None
        if truth is not None and asked is not None:
            true_points = read_truth(truth, points_space, moving_volume, asked, **reading.moving.geometry())
        label_map = None if labels is None else reading.moving.read(labels, check=False)
        if label_map is not None:
            require_labels(label_map, str(labels))
        masks = [
            None if path is None else _checked_mask(side.read(path, check=False), path)
            for path, side in ((fixed_mask, reading.fixed), (moving_mask, reading.moving))
        ]
        if not dry_run:
            pair = matcher.pair(fixed_volume, moving_volume)
            result = pair.register(
                stages=chosen,
                fixed_mask=masks[0],
                moving_mask=masks[1],
                diffeomorphic=diffeomorphic,
                symmetric=symmetric,
            )
            carried = Carried.of(pair, result, asked, true_points, label_map)
            report("writing", 0.97)
            missed = write(carried, wanted, outputs)
    if dry_run:
        show_plan(matcher.plan(fixed_volume, moving_volume, 0 if asked is None else len(asked)), as_json=as_json)
        return
    tell(carried, missed, outputs.written, as_json=as_json, quiet=quiet)


def _checked_mask(mask: Volume, path: Path) -> Volume:
    """A mask of ones is a mask; one of zeros is a mistake."""
    if not (mask.data > 0).any():
        raise ImageError(f"{path} is empty: no voxel of this mask is above 0")
    return mask
