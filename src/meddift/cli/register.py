"""`meddift register`: one transform that takes every point of the fixed scan to the moving scan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from meddift.errors import ImageError, OptionsError

if TYPE_CHECKING:
    from meddift.volume import Volume


def register(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="The scan whose points are taken to the other.")],
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="The scan to which they are taken.")],
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
        Path | None, typer.Option("--inverse", metavar="FILE", help="The inverse, in the same formats.")
    ] = None,
    affine: Annotated[Path | None, typer.Option("--affine", metavar="FILE.tfm", help="The affine part alone.")] = None,
    learn2reg: Annotated[
        Path | None,
        typer.Option("--learn2reg", metavar="FILE.nii.gz", help="Displacements in voxels, as Learn2Reg wants them."),
    ] = None,
    points: Annotated[
        Path | None, typer.Option("--points", "-p", metavar="FILE", help="Points on the fixed scan to take along.")
    ] = None,
    points_out: Annotated[
        Path | None, typer.Option("--points-out", metavar="FILE", help="Where they go; the suffix decides the format.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="Their true places, to report errors in mm.")
    ] = None,
    warped: Annotated[
        Path | None, typer.Option("--warped", metavar="FILE", help="The moving scan on the voxels of the fixed one.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Label map of the moving scan to take along.")
    ] = None,
    labels_out: Annotated[
        Path | None, typer.Option("--labels-out", metavar="FILE", help="Its labels on the voxels of the fixed scan.")
    ] = None,
    jacobian: Annotated[
        Path | None,
        typer.Option("--jacobian", metavar="FILE", help="Volume change (determinant), fixed voxels."),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            "--uncertainty", metavar="FILE", help="How far off the transform may be, mm; NaN without counterpart."
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Checkerboard, difference before and after, grid."),
    ] = None,
    stages: Annotated[
        str, typer.Option("--stages", metavar="NAME,...", help="affine, or affine,dense, or affine,dense,refine.")
    ] = "affine,dense,refine",
    diffeomorphic: Annotated[
        bool, typer.Option("--diffeomorphic", help="A transform that cannot fold, with an exact inverse.")
    ] = False,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="Exchanging the scans gives the inverse; twice the time.")
    ] = False,
    fixed_mask: Annotated[
        Path | None, typer.Option("--fixed-mask", metavar="FILE", help="Compare the scans where this is above 0.")
    ] = None,
    moving_mask: Annotated[
        Path | None, typer.Option("--moving-mask", metavar="FILE", help="What of the moving scan counts.")
    ] = None,
    as_json: AsJson = False,
    model: ModelName = "builtin",
    weights: WeightsFolder = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: Store = True,
    points_space: PointsSpace = None,
    nifti_form: NiftiFormOption = None,
    assume_geometry: AssumeGeometry = False,
    quiet: Quiet = False,
) -> None:
    """Register two scans: fit one transform, and carry points, images and label maps through it.

    The transform takes points of the fixed scan to the moving scan; used for resampling, the same file pulls the
    moving image onto the fixed one. If the scans have nothing reliable in common, that is said and nothing is written.
    """
    from meddift.cli.outputs import Outputs
    from meddift.cli.points_files import check_points_files, read_points_on, read_truth, rehearse
    from meddift.cli.register_report import Carried, Wanted, write
    from meddift.cli.terminal import progress_display, tell
    from meddift.registration.register import check_stages

    if (points is None) != (points_out is None) and not (points is not None and (as_json or truth is not None)):
        raise OptionsError("--points and --points-out belong together")
    if truth is not None and points is None:
        raise OptionsError("--truth needs --points: whose true places are these?")
    if (labels is None) != (labels_out is None):
        raise OptionsError("--labels and --labels-out belong together")
    wanted = Wanted(out, inverse, affine, learn2reg, points_out, warped, labels_out, jacobian, uncertainty, picture)
    if not wanted.paths() and not as_json and truth is None:
        raise OptionsError("nothing to do: give --out FILE, another output, or --json")
    chosen = tuple(part.strip() for part in stages.split(",") if part.strip())
    check_stages(chosen)
    wanted.check(chosen)
    inputs = (fixed, moving, points, truth, labels, fixed_mask, moving_mask)
    outputs = Outputs(inputs=tuple(path for path in inputs if path is not None))
    outputs.check([*wanted.paths(), *wanted.sidecars()])

    import meddift

    image = partial(read_image, nifti_form=nifti_form, assume_geometry=assume_geometry)
    if points is not None:
        check_points_files(points, truth, points_space)
    with progress_display(quiet=quiet) as report:
        matcher = meddift.Matcher(model, weights=weights, device=device, store=store, on_progress=report, seed=seed)
        report("reading the scans", 0.0)
        fixed_volume, moving_volume = image(fixed), image(moving)
        asked = None if points is None else read_points_on(points, points_space, fixed_volume, "fixed")
        if asked is not None:
            rehearse(asked, points_out)
        true_points = None
        if truth is not None and asked is not None:
            true_points = read_truth(truth, points_space, moving_volume, asked)
        label_map = None if labels is None else image(labels, check=False)
        masks = [
            None if path is None else _checked_mask(image(path, check=False), path)
            for path in (fixed_mask, moving_mask)
        ]
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
    tell(carried, missed, as_json=as_json, quiet=quiet)


def _checked_mask(mask: Volume, path: Path) -> Volume:
    """A mask of ones is a mask; one of zeros is a mistake."""
    if not (mask.data > 0).any():
        raise ImageError(f"{path} is empty: no voxel of this mask is above 0")
    return mask
