"""`meddift convert-points`: points from one program's format into another's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from meddift.cli.choices import AssumeGeometry, NiftiFormOption, PointsSpace, Quiet, Space

Format = Literal["slicer", "fcsv", "elastix", "ants", "learn2reg", "dirlab", "meddift"]


def convert_points(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A points file.", show_default=False)],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write; the suffix decides the format.", show_default=False)
    ],
    points_space: PointsSpace = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="The image in which voxel indices are counted."),
    ] = None,
    to_format: Annotated[
        Format | None, typer.Option("--format", help="The format to write, where the suffix does not say it.")
    ] = None,
    to_space: Annotated[
        Space | None, typer.Option("--to-space", help="The frame to write, where the format leaves a choice.")
    ] = None,
    nifti_form: NiftiFormOption = None,
    assume_geometry: AssumeGeometry = False,
    series: Annotated[str | None, typer.Option("--series", help="Which series of a DICOM folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Convert points between 3D Slicer, elastix, ANTs, Learn2Reg, DIR-Lab and meddift files.

    Labels, missing points and extra columns survive where the format can hold them; where it cannot, nothing is
    written and the reason is said.
    """
    from meddift.cli.outputs import Outputs
    from meddift.io import read_points, write_points
    from meddift.io.points import parse_points_file

    outputs = Outputs(inputs=tuple(path for path in (source, image) if path is not None))
    outputs.check([target])
    content = parse_points_file(source)
    grid = None
    if image is not None:
        from meddift.io.images import read_header

        header = read_header(image, nifti_form=nifti_form, assume_geometry=assume_geometry, series=series)
        if header.problems:
            raise header.problems[0]
        grid = header.grid
    points = read_points(source, space=points_space, grid=grid)
    write_points(points, target, grid=grid, space=to_space, extra=content.extra, format=to_format)
    if not quiet:
        missing = int(points.missing.sum())
        typer.echo(f"{target}: {len(points)} points{f', {missing} without position' if missing else ''}", err=True)
