"""`meddift warp`: images, label maps and points through a transform, in either direction; and its volume change."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meddift.cli.choices import (
    AsJson,
    AssumeGeometry,
    NiftiFormOption,
    PointsSpace,
    Quiet,
    Space,
    read_image,
)
from meddift.errors import OptionsError

if TYPE_CHECKING:
    from meddift.cli.outputs import Outputs
    from meddift.geometry import Transform
    from meddift.volume import Volume


def warp(
    transform: Annotated[
        Path, typer.Argument(metavar="TRANSFORM", help="A transform: .h5, .tfm, .nii.gz ...", show_default=False)
    ],
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="An image of the moving scan.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="A label map of it (nearest neighbour)."),
    ] = None,
    points: Annotated[
        Path | None, typer.Option("--points", "-p", metavar="FILE", help="Points of the fixed scan.")
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option("--onto", metavar="FILE", help="The fixed scan, or any image with the voxels that are wanted."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the image, labels or points go.")
    ] = None,
    jacobian: Annotated[
        Path | None,
        typer.Option("--jacobian", metavar="FILE", help="Volume change (determinant) at the voxels of --onto."),
    ] = None,
    inverse: Annotated[
        bool,
        typer.Option(
            "--inverse",
            help="The other way: points of the moving scan to the fixed one, images of the fixed scan onto the moving "
            "one. The transform is inverted numerically, and how well is said.",
        ),
    ] = False,
    fill: Annotated[
        float | None,
        typer.Option("--fill", metavar="VALUE", help="Where nothing is known; by default the least value, labels 0."),
    ] = None,
    as_json: AsJson = False,
    points_space: PointsSpace = None,
    nifti_form: NiftiFormOption = None,
    assume_geometry: AssumeGeometry = False,
    quiet: Quiet = False,
) -> None:
    """Carry one image, label map or set of points through a transform.

    The transform takes fixed points to moving points, as `meddift register` writes it and as ITK resamples with it:
    points go from the fixed to the moving scan, images from the moving onto the fixed scan. --inverse turns both
    around.
    """
    from meddift.cli.outputs import Outputs
    from meddift.io import read_transform

    asked = [name for name, path in (("image", image), ("labels", labels), ("points", points)) if path is not None]
    if len(asked) > 1:
        raise OptionsError(f"one thing at a time: --{' and --'.join(asked)} were given")
    if not asked and jacobian is None:
        raise OptionsError("nothing to do: give --image, --labels or --points with --out, or --jacobian")
    if bool(asked) != (out is not None):
        raise OptionsError("--out goes with --image, --labels or --points")
    if onto is None and (image is not None or labels is not None or jacobian is not None):
        raise OptionsError("--onto is needed: the image whose voxels are wanted")
    inputs = (transform, image, labels, points, onto)
    outputs = Outputs(inputs=tuple(path for path in inputs if path is not None))
    outputs.check([path for path in (out, jacobian) if path is not None])

    read = partial(read_image, nifti_form=nifti_form, assume_geometry=assume_geometry)
    found = read_transform(transform)
    grid = None if onto is None else read(onto, check=False)  # only its voxels matter
    report: dict[str, Any] = {"direction": _direction(inverse, points is not None)}
    through = _turned(found, grid if points is None else None, report) if inverse else found
    if points is not None and out is not None:
        _plan_points(points, points_space, grid, through, out, outputs, report)
    elif out is not None and grid is not None:
        source = read(image or labels or out, check=image is not None)
        _plan_image(source, through, grid, out, outputs, labels=labels is not None, fill=fill)
    if jacobian is not None and grid is not None:
        _plan_jacobian(through, grid, jacobian, outputs, report)
    outputs.commit()
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout(report)
    elif not quiet and "inverse_residual_mm" in report:
        residual = report["inverse_residual_mm"]
        typer.echo(
            f"inverse: {residual['median']:.3f} mm from the start in the median, {residual['max']:.3f} mm at most",
            err=True,
        )


def _direction(inverse: bool, points: bool) -> str:
    if points:
        return "points: moving to fixed" if inverse else "points: fixed to moving"
    return "images: fixed onto moving" if inverse else "images: moving onto fixed"


def _turned(transform: Transform, grid: Volume | None, report: dict[str, Any]) -> Transform:
    """The inverse: point by point, or for all voxels of an image as a field; and how well it does."""
    from meddift.registration import InverseResidual, invert
    from meddift.registration.inverse import NumericalInverse
    from meddift.registration.jacobian import working_lattice

    inverse = NumericalInverse.of(transform, residuals=report.setdefault("inverse_residual_mm", {}))
    if grid is None:
        return inverse
    field = invert(transform, inverse.affine, working_lattice(grid.grid))
    voxels = grid.grid.strided([max(1, n // 20) for n in grid.grid.shape]).voxel_centers().reshape(-1, 3)
    # Turned around: places of this image to the other one and back.
    report["inverse_residual_mm"] = InverseResidual.of(field, transform, voxels).as_dict()
    return field


def _plan_points(
    path: Path,
    space: Space | None,
    grid: Volume | None,
    through: Transform,
    out: Path,
    outputs: Outputs,
    report: dict[str, Any],
) -> None:
    import numpy as np

    from meddift.io import read_points
    from meddift.io.points import format_points
    from meddift.points import Points
    from meddift.system.atomic import write_text

    given = read_points(path, space=space, grid=None if grid is None else grid.grid)
    moved = np.full(given.positions.shape, np.nan)
    there = ~given.missing
    if there.any():
        moved[there] = through.apply(given.positions[there])
    result = Points(moved, given.labels)
    text = format_points(result, out)
    outputs.required[out] = lambda place: write_text(text, place)
    report["points"] = [
        {"label": label, "position": None if np.isnan(row).any() else row.tolist()}
        for label, row in zip(result.labels, moved, strict=True)
    ]


def _plan_image(
    source: Volume, through: Transform, grid: Volume, out: Path, outputs: Outputs, *, labels: bool, fill: float | None
) -> None:
    from meddift.io import write_volume
    from meddift.registration import warp_labels, warp_volume

    if labels:
        warped = warp_labels(source, through, grid.grid, fill=0 if fill is None else int(fill))
    else:
        warped = warp_volume(source, through, grid.grid, fill=fill)
    outputs.required[out] = lambda place: write_volume(warped, place)


def _plan_jacobian(through: Transform, grid: Volume, path: Path, outputs: Outputs, report: dict[str, Any]) -> None:
    from meddift.io import write_volume
    from meddift.registration import jacobian_determinant, sampled
    from meddift.registration.jacobian import folding, read_on, sd_log_jacobian, working_lattice

    found = jacobian_determinant(sampled(through, working_lattice(grid.grid)))
    report["jacobian"] = {
        "folding": folding(found.data),
        "sd_log": sd_log_jacobian(found.data),
        "least": float(found.data.min()),
        "greatest": float(found.data.max()),
    }
    outputs.required[path] = lambda place: write_volume(read_on(found, grid.grid), place)
