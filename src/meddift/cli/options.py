"""Options that several commands share: computation, reading of files, and output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import typer

from meddift.cli.help import advanced, reading
from meddift.errors import OptionsError
from meddift.pipeline.points_files import Space
from meddift.system.device import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from meddift.geometry import Grid
    from meddift.pipeline import Matcher
    from meddift.volume import Volume

NiftiForm = Literal["sform", "qform"]
Preset = Literal["default", "paper"]
Latent = Literal["mean", "sample"]
Modality = Literal["ct", "mr", "other"]

# ---------------------------------------------------------------------- single options

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Describe the work and the memory it needs, without doing it.")
]
WeightsFolder = Annotated[
    Path | None,
    advanced("--weights", metavar="DIR", help="Folder with the published weights files."),
]
PointsSpace = Annotated[
    Space | None,
    reading(
        "--points-space",
        case_sensitive=False,
        help="Frame of points files that do not name it: mm in LPS or RAS, or voxel indices of the scan that the "
        "points belong to, counted from 0 (voxel) or from 1 (voxel1).",
    ),
]
PointsFormat = Annotated[
    Literal["slicer", "fcsv", "elastix", "ants", "learn2reg", "dirlab", "meddift"] | None,
    reading(
        "--points-format",
        case_sensitive=False,
        help="Format of the points that are written, if the file's ending does not tell.",
    ),
]
ToSpace = Annotated[
    Space | None,
    reading(
        "--to-space",
        case_sensitive=False,
        help="Frame of the points that are written, if the format allows several.",
    ),
]
Series = Annotated[
    str | None,
    reading("--series", metavar="UID", help="Series to read of a DICOM folder with several."),
]
NiftiFormOption = Annotated[
    NiftiForm | None,
    reading("--nifti-form", case_sensitive=False, help="Geometry to use if those of a NIfTI file differ."),
]
AssumeGeometry = Annotated[
    bool,
    reading("--assume-geometry", help="Accept images without a position in space."),
]

# ---------------------------------------------------------------------- groups


class Geometry(TypedDict):
    """Options for the geometry of a file."""

    nifti_form: NiftiForm | None
    assume_geometry: bool


@dataclass(frozen=True)
class ImageReading:
    """Options for reading one image."""

    series: Series = None
    nifti_form: NiftiFormOption = None
    assume_geometry: AssumeGeometry = False

    def read(self, path: Path, *, check: bool = True) -> Volume:
        """Read an image; `check` is off for masks and label maps, which may be constant."""
        from meddift.io import read_volume

        return read_volume(path, series=self.series, check=check, **self.geometry())

    def geometry(self) -> Geometry:
        """Options for the geometry of files, as keywords of the readers."""
        return {"nifti_form": self.nifti_form, "assume_geometry": self.assume_geometry}

    def grid(self, path: Path) -> Grid:
        """The grid of an image, without reading its voxels.

        Raises:
            ImageError: if the image could not be matched as it is.
        """
        from meddift.io.images import read_header

        header = read_header(path, series=self.series, **self.geometry())
        if header.problems:
            raise header.problems[0]
        return header.grid


@dataclass(frozen=True)
class PairReading:
    """Options for reading images of the fixed and of the moving scan."""

    fixed_series: Annotated[
        str | None,
        reading("--fixed-series", metavar="UID", help="Series to read of the fixed DICOM folder."),
    ] = None
    moving_series: Annotated[
        str | None,
        reading("--moving-series", metavar="UID", help="Series to read of the moving DICOM folder."),
    ] = None
    nifti_form: NiftiFormOption = None
    fixed_nifti_form: Annotated[
        NiftiForm | None,
        reading(
            "--fixed-nifti-form", case_sensitive=False, help="As --nifti-form, for images of the fixed scan only."
        ),
    ] = None
    moving_nifti_form: Annotated[
        NiftiForm | None,
        reading(
            "--moving-nifti-form", case_sensitive=False, help="As --nifti-form, for images of the moving scan only."
        ),
    ] = None
    assume_geometry: AssumeGeometry = False

    @property
    def fixed(self) -> ImageReading:
        """Options for images of the fixed scan."""
        return ImageReading(self.fixed_series, self.fixed_nifti_form or self.nifti_form, self.assume_geometry)

    @property
    def moving(self) -> ImageReading:
        """Options for images of the moving scan."""
        return ImageReading(self.moving_series, self.moving_nifti_form or self.nifti_form, self.assume_geometry)


@dataclass(frozen=True)
class Engine:
    """Options of the matcher: model, prior and device."""

    prior: Annotated[
        str | None,
        typer.Option(
            "--prior",
            metavar="none|identity|affine|FILE",
            help="Where points are expected: anywhere (none), at the same world position (identity), by an affine "
            "found automatically (default), or by a transform file.",
        ),
    ] = None
    search_radius: Annotated[
        float | None,
        typer.Option("--search-radius", metavar="MM", help="Radius of the search around the expected position."),
    ] = None
    modality: Annotated[
        Modality | None,
        typer.Option(
            "--modality",
            case_sensitive=False,
            help="Modality of both scans, if files and values do not tell. ct uses a window in Hounsfield units, all "
            "others their own range of intensities.",
        ),
    ] = None
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda:N|mps", help="Device to compute on.")] = (
        "auto"
    )
    threads: Annotated[
        int | None,
        advanced("--threads", metavar="N", min=1, help="Number of processor cores to use; default: all."),
    ] = None
    precision: Annotated[
        Precision,
        advanced(
            "--precision",
            case_sensitive=False,
            help="Precision of the network. float32 gives the same results on every machine; bfloat16 is faster on "
            "devices that support it, where auto selects it.",
        ),
    ] = "auto"
    model: Annotated[
        str,
        advanced("--model", metavar="NAME", help="Name of a model (meddift models list), or a .toml file."),
    ] = "builtin"
    weights: WeightsFolder = None
    preset: Annotated[
        Preset,
        advanced("--preset", case_sensitive=False, help="paper reproduces the published method."),
    ] = "default"
    levels: Annotated[
        str | None,
        advanced(
            "--levels", metavar="NAME,...", help="Feature maps to use, such as up0,up1,mind (mind needs no network)."
        ),
    ] = None
    timestep: Annotated[
        int | None,
        advanced("--timestep", metavar="N", min=0, help="Timestep of the diffusion model."),
    ] = None
    noise_samples: Annotated[
        int | None,
        advanced("--noise-samples", metavar="K", min=0, help="Noise samples to average; 0 adds no noise."),
    ] = None
    latent: Annotated[
        Latent | None,
        advanced("--latent", case_sensitive=False, help="Mean of the autoencoder's posterior, or one sample of it."),
    ] = None
    whiten: Annotated[
        bool | None,
        advanced("--whiten/--no-whiten", help="Whether to whiten features; default: as the model."),
    ] = None
    seed: Annotated[int, advanced("--seed", metavar="S", min=0, help="Seed of random numbers.")] = 0
    store: Annotated[
        bool,
        advanced(" /--no-store", help="Do not store features on disk for later runs."),
    ] = True

    def inputs(self) -> list[Path]:
        """Files that are read and must not be overwritten."""
        named = [Path(text) for text in (self.prior, self.model) if text is not None and Path(text).exists()]
        return named + ([self.weights] if self.weights is not None else [])

    def matcher(
        self, on_progress: Callable[[str, float], None] | None = None, *, reading: ImageReading | None = None
    ) -> Matcher:
        """Set up the matcher; invalid options are reported before any file is read.

        Args:
            on_progress: Called with stage and fraction as work goes on.
            reading: How images of the fixed scan are read: a prior may be a displacement field on its voxels.

        Raises:
            OptionsError: if an option is invalid.
            ModelError: if the model is unknown.
        """
        import meddift

        chosen = self.keywords()
        if isinstance(chosen.get("prior"), Path):
            from meddift.io import read_transform

            chosen["prior"] = read_transform(chosen["prior"], **(reading or ImageReading()).geometry())
        return meddift.Matcher(**chosen, store=self.store, threads=self.threads, on_progress=on_progress)

    def keywords(self) -> dict[str, Any]:
        """The options of matching as keywords of `Matcher`.

        Raises:
            OptionsError: if an option is invalid.
        """
        if self.search_radius is not None and not self.search_radius > 0:
            raise OptionsError(f"--search-radius is a distance in mm above 0, got {self.search_radius:g}")
        chosen: dict[str, Any] = {
            "weights": self.weights,
            "prior": _prior(self.prior),
            "search_radius_mm": self.search_radius,
            "levels": _levels(self.levels),
            "timestep": self.timestep,
            "noise_samples": self.noise_samples,
            "latent": self.latent,
            "whiten": self.whiten,
            "modality": self.modality,
        }
        always = {
            "model": self.model,
            "preset": self.preset,
            "device": self.device,
            "precision": self.precision,
            "seed": self.seed,
        }
        return always | {name: value for name, value in chosen.items() if value is not None}


def _levels(text: str | None) -> tuple[str, ...] | None:
    """`up0,up1` as ("up0", "up1")."""
    if text is None:
        return None
    levels = tuple(part.strip() for part in text.split(",") if part.strip())
    if not levels:
        raise OptionsError(f"--levels is a list of names such as up0,up1,mind; got {text!r}")
    return levels


def _prior(text: str | None) -> str | Path | None:
    """A name, or a file that holds a transform."""
    if text is None or text.lower() in ("none", "identity", "affine"):
        return text if text is None else text.lower()
    if not Path(text).exists():
        raise OptionsError(f"--prior is none, identity, affine or a transform file; there is no file {text!r}")
    return Path(text)
