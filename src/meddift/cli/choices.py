"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from meddift.volume import Volume

Space = Literal["lps", "ras", "voxel", "voxel1"]
NiftiForm = Literal["sform", "qform"]

PointsSpace = Annotated[
    Space | None,
    typer.Option(
        "--points-space",
        help="Frame of points files that do not name it: mm in LPS or RAS, or voxel indices of the image that the "
        "points belong to, counted from 0 (voxel) or from 1 (voxel1).",
        show_default=False,
    ),
]
NiftiFormOption = Annotated[
    NiftiForm | None,
    typer.Option("--nifti-form", help="Which one to believe where a NIfTI file states two geometries."),
]
AssumeGeometry = Annotated[
    bool, typer.Option("--assume-geometry", help="Accept images that do not state where they lie in space.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")]
WeightsFolder = Annotated[
    Path | None,
    typer.Option("--weights", metavar="DIR", help="Folder with the published weights files.", show_default=False),
]

ModelName = Annotated[
    str, typer.Option("--model", metavar="NAME", help="A model of `meddift models list`, or a .toml file.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Decides every random draw.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda:N", help="Where to compute.")]
Store = Annotated[
    bool, typer.Option("--store/--no-store", help="Keep features on disk, so that the next question is quick.")
]


def read_image(
    path: Path,
    *,
    nifti_form: NiftiForm | None,
    assume_geometry: bool,
    series: str | None = None,
    check: bool = True,
) -> Volume:
    """Read a scan as the options of a command say; `check` is off for masks and label maps, which may be constant."""
    from meddift.io import read_volume

    return read_volume(path, nifti_form=nifti_form, assume_geometry=assume_geometry, series=series, check=check)
