"""`meddift warp`: images, label maps and points through a transform, in either direction; and its volume change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meddift.cli.failures import say
from meddift.cli.groups import with_groups
from meddift.cli.options import AsJson, PairReading, PointsFormat, PointsSpace, Quiet, ToSpace
from meddift.errors import OptionsError

if TYPE_CHECKING:
    from meddift.cli.outputs import Outputs
    from meddift.cli.points_files import PointsTarget
    from meddift.geometry import Transform
    from meddift.points import Points
    from meddift.volume import Volume


EXAMPLES = """
meddift warp t.h5 --points lesions.mrk.json --out there.mrk.json
meddift warp t.h5 --points found.mrk.json --inverse --out back.mrk.json
meddift warp t.h5 --labels lobes.nii.gz --onto baseline.nii.gz -o there.nii.gz
meddift warp affine.tfm bspline.tfm --image b.nii --onto a.nii -o c.nii.gz
"""


@with_groups
def warp(
    *,
    transforms: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRANSFORM...",
            help="Transforms: .h5, .tfm, .nii.gz ... Several are applied to points in this order.",
            show_default=False,
        ),
    ],
    points: Annotated[
        Path | None,
        typer.Option("--points", "-p", metavar="FILE", help="Points of the fixed scan."),
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="An image of the moving scan.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="A label map of the moving scan (nearest neighbour)."),
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option("--onto", metavar="FILE", help="The fixed scan, or any image with the wanted grid."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File for the result."),
    ] = None,
    inverse: Annotated[
        bool,
        typer.Option(
            "--inverse",
            help="Opposite direction: points from the moving to the fixed scan, images from the fixed to the moving "
            "scan. The transform is inverted numerically; the error is reported.",
        ),
    ] = False,
    fill: Annotated[
        float | None,
        typer.Option(
            "--fill",
            metavar="VALUE",
            help="Value outside the field of view; default: smallest value of an image, 0 for labels.",
        ),
    ] = None,
    interpolation: Annotated[
        Literal["linear", "nearest"],
        typer.Option("--interpolation", case_sensitive=False, help="Interpolation of --image."),
    ] = "linear",
    jacobian: Annotated[
        Path | None,
        typer.Option("--jacobian", metavar="FILE", help="File for the Jacobian determinant on the grid of --onto."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    points_space: PointsSpace = None,
    points_format: PointsFormat = None,
    to_space: ToSpace = None,
    reading: PairReading,
) -> None:
    """Map one image, label map or set of points by a transform.

    The transform maps fixed points to moving points, as `meddift register` writes it and ITK resamples with it: points
    go from the fixed to the moving scan, images from the moving to the fixed scan. --inverse reverses both.
    """
    from meddift.cli.failures import warn
    from meddift.cli.outputs import IMAGES, Outputs, check_suffix
    from meddift.cli.points_files import PointsTarget
    from meddift.cli.warp_sides import Sides
    from meddift.geometry import CompositeTransform
    from meddift.io import read_transform
    from meddift.pipeline.points_files import read_points_on
    from meddift.registration.warping import require_labels

    asked = [name for name, path in (("image", image), ("labels", labels), ("points", points)) if path is not None]
    if len(asked) > 1:
        raise OptionsError(f"one thing at a time: --{' and --'.join(asked)} were given")
    if not asked and jacobian is None:
        raise OptionsError("nothing to do: give --image, --labels or --points with --out, or --jacobian")
    if bool(asked) != (out is not None):
        raise OptionsError("--out goes with --image, --labels or --points")
    if onto is None and (image is not None or labels is not None or jacobian is not None):
        raise OptionsError("--onto is needed: the image whose voxels are wanted")
    if points is None:
        check_suffix(out, IMAGES, "images")
    elif out is not None:
        PointsTarget(out, points_format, to_space).holds()
    check_suffix(jacobian, IMAGES, "images")
    inputs = (*transforms, image, labels, points, onto)
    outputs = Outputs(inputs=tuple(path for path in inputs if path is not None))
    outputs.check([path for path in (out, jacobian) if path is not None])

    # Images of the moving scan come onto the fixed one; --inverse turns it around.
    source_reading, onto_reading = (reading.fixed, reading.moving) if inverse else (reading.moving, reading.fixed)
    # A displacement field lies on voxels of the fixed scan: what is said about that one's file holds for it too.
    parts = tuple(read_transform(path, **reading.fixed.geometry()) for path in transforms)
    found = parts[0] if len(parts) == 1 else CompositeTransform(parts)
    sides = Sides.of(transforms, parts, inverse=inverse)
    grid = None if onto is None else onto_reading.read(onto, check=False)  # only its voxels matter
    given = source = None
    if points is not None:
        voxels = None if grid is None else grid.grid
        given = read_points_on(
            points, points_space, sides.start.grid, sides.start.name, voxels=voxels, **onto_reading.geometry()
        )
        given, left_out = sides.leave_out_far_points(given, points)
        if left_out and not quiet:
            warn(f"{left_out} of {len(given)} points lie outside the {sides.start.name} scan and have no answer")
    carried = image or labels
    if carried is not None:
        source = source_reading.read(carried, check=image is not None)
        if labels is not None:
            require_labels(source, str(labels))
    if grid is not None and onto is not None and points is None:
        sides.check_images(None if source is None else source.grid, carried, grid.grid, onto)
    report: dict[str, Any] = {"direction": _direction(inverse, points is not None)}
    through = _turned(found, grid if points is None else None, report) if inverse else found
    if given is not None and out is not None:
        _plan_points(given, grid, through, PointsTarget(out, points_format, to_space), outputs, report)
    elif source is not None and out is not None and grid is not None:
        kind = "labels" if labels is not None else interpolation
        _plan_image(source, through, grid, out, outputs, kind=kind, fill=fill)
    if jacobian is not None and grid is not None:
        _plan_jacobian(through, grid, jacobian, outputs, report)
    outputs.commit()
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout(report)
    elif not quiet and report.get("inverse_residual_mm", {}).get("median") is not None:
        residual = report["inverse_residual_mm"]
        say(
            f"inverse: {residual['median']:.3f} mm from the start in the median, {residual['max']:.3f} mm at most",
            err=True,
        )
    if outputs.written and not quiet:
        say("written: " + ", ".join(map(str, outputs.written)), err=True)


def _direction(inverse: bool, points: bool) -> str:
    if points:
        return "points: moving to fixed" if inverse else "points: fixed to moving"
    return "images: fixed onto moving" if inverse else "images: moving onto fixed"


def _turned(transform: Transform, grid: Volume | None, report: dict[str, Any]) -> Transform:
    """The inverse: point by point, or for all voxels of an image as a field; and how well it does."""
    from meddift.geometry.inverse import NumericalInverse
    from meddift.registration import InverseResidual, sampled
    from meddift.registration.jacobian import working_grid

    inverse = NumericalInverse.of(transform, residuals=report.setdefault("inverse_residual_mm", {}))
    if grid is None:
        return inverse
    field = sampled(inverse, working_grid(grid.grid))
    voxels = grid.grid.strided([max(1, n // 20) for n in grid.grid.shape]).voxel_centers().reshape(-1, 3)
    # Turned around: places of this image to the other one and back.
    report["inverse_residual_mm"] = InverseResidual.of(field, transform, voxels).as_dict()
    return field


def _plan_points(
    given: Points,
    grid: Volume | None,
    through: Transform,
    target: PointsTarget,
    outputs: Outputs,
    report: dict[str, Any],
) -> None:
    import numpy as np

    from meddift.points import Points
    from meddift.system.atomic import write_text

    moved = np.full(given.positions.shape, np.nan)
    there = ~given.missing
    if there.any():
        moved[there] = through.apply(given.positions[there])
    result = Points(moved, given.labels, given.columns)
    text = target.text(result, None if grid is None else grid.grid)
    target.say_what_is_lost(result)
    outputs.required[target.path] = lambda place: write_text(text, place)
    report["points"] = [
        {"label": label, "position": None if np.isnan(row).any() else row.tolist()}
        for label, row in zip(result.labels, moved, strict=True)
    ]


def _plan_image(
    source: Volume,
    through: Transform,
    grid: Volume,
    out: Path,
    outputs: Outputs,
    *,
    kind: Literal["labels", "linear", "nearest"],
    fill: float | None,
) -> None:
    from meddift.io import write_volume
    from meddift.registration import warp_labels, warp_volume

    if kind == "labels":
        warped = warp_labels(source, through, grid.grid, fill=0 if fill is None else fill)
    else:
        warped = warp_volume(source, through, grid.grid, fill=fill, interpolation=kind)
    outputs.required[out] = lambda place: write_volume(warped, place)


def _plan_jacobian(through: Transform, grid: Volume, path: Path, outputs: Outputs, report: dict[str, Any]) -> None:
    from meddift.io import write_volume
    from meddift.registration import jacobian_determinant, sampled
    from meddift.registration.jacobian import folding, read_on, sd_log_jacobian, working_grid

    found = jacobian_determinant(sampled(through, working_grid(grid.grid)))
    report["jacobian"] = {
        "folding": folding(found.data),
        "sd_log": sd_log_jacobian(found.data),
        "least": float(found.data.min()),
        "greatest": float(found.data.max()),
    }
    outputs.required[path] = lambda place: write_volume(read_on(found, grid.grid), place)
