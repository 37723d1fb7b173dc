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
        typer.Argument(metavar="FIXED", help="The scan whose points are mapped.", show_default=False),
    ],
    moving: Annotated[
        Path, typer.Argument(metavar="MOVING", help="The scan to which they are mapped.", show_default=False)
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
        typer.Option("--inverse", metavar="FILE", help="File for the inverse, in the same formats."),
    ] = None,
    affine: Annotated[
        Path | None,
        typer.Option(
            "--affine",
            metavar="FILE.tfm",
            help="File for the affine part. Without other outputs only the affine is fitted.",
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option("--points", "-p", metavar="FILE", help="Points on the fixed scan to map to the moving scan."),
    ] = None,
    points_out: Annotated[
        Path | None,
        typer.Option(
            "--points-out", metavar="FILE", help="File for the mapped points; its ending decides the format."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="True positions of the points, to report errors in mm."),
    ] = None,
    warped: Annotated[
        Path | None,
        typer.Option("--warped", metavar="FILE", help="File for the moving scan on the grid of the fixed scan."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="Label map of the moving scan to resample."),
    ] = None,
    labels_out: Annotated[
        Path | None,
        typer.Option("--labels-out", metavar="FILE", help="File for the labels on the grid of the fixed scan."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Picture: checkerboard, differences, deformed grid."),
    ] = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    stages: Annotated[
        str,
        advanced("--stages", metavar="NAME[,...]", help="rigid, affine, affine,dense or affine,dense,refine."),
    ] = "affine,dense,refine",
    diffeomorphic: Annotated[
        bool, advanced("--diffeomorphic", help="Fit a diffeomorphic transform, which cannot fold.")
    ] = False,
    symmetric: Annotated[
        bool,
        advanced("--symmetric", help="Symmetric: exchanging the scans gives the inverse; twice the time."),
    ] = False,
    fixed_mask: Annotated[
        Path | None,
        advanced("--fixed-mask", metavar="FILE", help="Mask of the fixed scan: compare where it is above 0."),
    ] = None,
    moving_mask: Annotated[
        Path | None,
        advanced("--moving-mask", metavar="FILE", help="Mask of the moving scan: match where it is above 0."),
    ] = None,
    jacobian: Annotated[
        Path | None,
        advanced("--jacobian", metavar="FILE", help="File for the Jacobian determinant, fixed grid."),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        advanced("--uncertainty", metavar="FILE", help="File for the expected error, mm; NaN without counterpart."),
    ] = None,
    learn2reg: Annotated[
        Path | None,
        advanced("--learn2reg", metavar="FILE.nii.gz", help="File for displacements in voxels, Learn2Reg format."),
    ] = None,
    engine: Engine,
    points_space: PointsSpace = None,
    points_format: PointsFormat = None,
    to_space: ToSpace = None,
    reading: PairReading,
) -> None:
    """Register two scans: fit a transform, and map points, images and label maps by it.

    The transform maps points of the fixed scan to the moving scan; used for resampling, it brings the moving image to
    the grid of the fixed one. Scans without reliable correspondence are an error, and nothing is written.
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
    """The mask; raises ImageError if no voxel of it is above 0."""
    if not (mask.data > 0).any():
        raise ImageError(f"{path} is empty: no voxel of this mask is above 0")
    return mask
