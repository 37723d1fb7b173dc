"""`meddift convert-points`: convert points files between the formats of programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meddift.cli.failures import say
from meddift.cli.groups import with_groups
from meddift.cli.options import ImageReading, PointsFormat, PointsSpace, Quiet, ToSpace

EXAMPLES = """
meddift convert-points points.fcsv points.csv
meddift convert-points in.txt out.csv --points-space voxel1 --image ct.nii.gz
meddift convert-points points.mrk.json ants.csv --format ants
"""


@with_groups
def convert_points(
    *,
    source: Annotated[Path, typer.Argument(metavar="IN", help="A points file.", show_default=False)],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write; its ending decides the format.", show_default=False)
    ],
    points_space: PointsSpace = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Image to which voxel indices refer."),
    ] = None,
    points_format: PointsFormat = None,
    to_space: ToSpace = None,
    reading: ImageReading,
    quiet: Quiet = False,
) -> None:
    """Convert points between 3D Slicer, elastix, ANTs, Learn2Reg, DIR-Lab and meddift files.

    IN may be a label map; then the centre of each label is a point. elastix, Learn2Reg and DIR-Lab files hold
    coordinates only; a warning says if labels or other columns are lost. If points without a position cannot be stored
    in the format of OUT, nothing is written.
    """
    from meddift.cli.outputs import Outputs
    from meddift.cli.points_files import PointsTarget
    from meddift.io import read_points
    from meddift.system.atomic import write_text

    outputs = Outputs(inputs=tuple(path for path in (source, image) if path is not None))
    wanted = PointsTarget(target, points_format, to_space)
    wanted.holds()
    outputs.check([target])
    grid = None
    if image is not None:
        grid = reading.grid(image)
    points = read_points(source, space=points_space, grid=grid, **reading.geometry())
    text = wanted.text(points, grid)
    outputs.required[target] = lambda path: write_text(text, path)
    outputs.commit()
    wanted.say_what_is_lost(points)
    if not quiet:
        missing = int(points.missing.sum())
        say(f"{target}: {len(points)} points{f', {missing} without position' if missing else ''}", err=True)
