"""`meddift models`: list models, and install and check their weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meddift.cli.failures import say
from meddift.cli.help import Command
from meddift.cli.options import AsJson, Quiet, WeightsFolder

if TYPE_CHECKING:
    from meddift.models.store import StoredFile

app = typer.Typer(help="List, fetch and check models.", no_args_is_help=True, rich_markup_mode=None)

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of `meddift models list`, or a .toml file.", show_default=False)
]


@app.command(
    "list",
    cls=Command,
    short_help="List models and whether weights are installed.",
    epilog="meddift models list",
)
def list_models(as_json: AsJson = False) -> None:
    """List the known models, and whether their weights are installed on this machine."""
    from meddift.models import catalogue

    described = [describe_model(name) for name in catalogue()]
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout({"models": described})
        return
    from meddift.cli.terminal import human_bytes

    rows = [
        (
            model["name"],
            model["modality"],
            f"installed ({human_bytes(model['bytes'])})" if model["installed"] else "not installed",
            model["licence"]["name"] + ("" if model["licence"]["commercial"] else " (no commercial use)"),
            model["title"],
        )
        for model in described
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        say("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))


@app.command(
    "show",
    cls=Command,
    short_help="Show a model, its licence and its weights.",
    epilog="meddift models show builtin\nmeddift models show my-model.toml --json",
)
def show_model(model: ModelName, weights: WeightsFolder = None, as_json: AsJson = False) -> None:
    """Show the architecture of a model, its licence, and the paths of its weights."""
    description = describe_model(model, weights)
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout(description)
        return
    say("\n".join(model_lines(description)))


@app.command(
    "pull",
    cls=Command,
    short_help="Download and check the weights of a model.",
    epilog="meddift models show maisi-ct-rflow\nmeddift models pull maisi-ct-rflow --accept-licence",
)
def pull_model(
    model: ModelName,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="I have read the licence of the weights and accept it.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit or tag to download; default: the recorded one.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Download the weights of a model from Hugging Face, check their hashes and install them."""
    from meddift.cli.terminal import human_bytes, progress_display
    from meddift.models import find_spec
    from meddift.models.hub import PullProgress, pull

    spec = find_spec(model)
    if spec.licence.accept_required and not accept_licence and sys.stdin.isatty() and sys.stderr.isatty():
        use = "" if spec.licence.commercial else " It does not allow commercial use."
        say(f"The weights of {spec.name} are under: {spec.licence.name}, {spec.licence.url}.{use}", err=True)
        accept_licence = typer.confirm("Do you accept it?", default=False, err=True)
    with progress_display(quiet=quiet) as report:

        def on_progress(step: PullProgress) -> None:
            size = f" ({human_bytes(step.total)})" if step.total else ""
            report(f"{step.stage} {step.file}{size}", step.done / step.total if step.total else 0.0)

        stored = pull(spec, accept_licence=accept_licence, revision=revision, on_progress=on_progress)
    _tell_stored(stored, quiet=quiet)


@app.command(
    "import",
    cls=Command,
    short_help="Install weights from a folder, without internet.",
    epilog="meddift models import maisi-ct-rflow --from downloads/",
)
def import_model(
    model: ModelName,
    folder: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="Folder with the published files.", show_default=False)
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace other weights of this model that are installed.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Install the weights of a model from a folder, for machines without internet access."""
    from meddift.models import find_spec
    from meddift.models.weights import import_weights

    _tell_stored(import_weights(find_spec(model), folder, replace=replace), quiet=quiet)


@app.command(
    "verify",
    cls=Command,
    short_help="Check every byte of the weights of a model.",
    epilog="meddift models verify builtin\nmeddift models verify my-model.toml",
)
def verify_model(model: ModelName, weights: WeightsFolder = None, as_json: AsJson = False) -> None:
    """Read the weights of a model completely and compare them with the recorded hashes."""
    from meddift.cli.terminal import human_bytes, write_json_to_stdout
    from meddift.models import find_spec
    from meddift.models.weights import verify

    status = verify(find_spec(model), weights)
    if as_json:
        write_json_to_stdout(
            {"name": status.name, "files": [str(path) for path in status.files], "bytes": status.bytes, "intact": True}
        )
        return
    for path in status.files:
        say(str(path))
    say(f"{status.name}: intact, {human_bytes(status.bytes)} in {len(status.files)} files")


def describe_model(model: str, weights: Path | None = None) -> dict[str, Any]:
    """Describe a model without loading it.

    Args:
        model: Name of a model, or path of a `.toml` file.
        weights: Folder with its published files; None = the installed weights.

    Returns:
        Properties of the model, its licence and its files, ready for JSON.
    """
    from dataclasses import asdict

    from meddift.models import find_spec
    from meddift.models.weights import model_status

    spec = find_spec(model)
    status = model_status(spec, weights)
    return {
        "name": spec.name,
        "title": spec.title,
        "modality": spec.modality,
        "installed": status.installed,
        "source": status.source,
        "bytes": status.bytes,
        "files": [str(path) for path in status.files],
        "missing": status.missing,
        "licence": asdict(spec.licence),
        "repository": spec.weights.repository,
        "revision": spec.weights.revision,
        "published": [
            {"role": file.role, "name": file.name, "sha256": file.sha256 or None, "bytes": file.bytes or None}
            for file in spec.weights.files
        ],
        "latent": spec.latent.kind,
        "schedule": spec.schedule.kind,
        "grid": asdict(spec.grid),
        "levels": list(spec.levels),
        "defaults": {
            "timestep": spec.defaults.timestep,
            "levels": [*spec.defaults.levels, *spec.defaults.extra_levels],
            "whiten": spec.defaults.whiten,
            "noise_samples": spec.defaults.noise_samples,
        },
    }


def model_lines(description: dict[str, Any]) -> list[str]:
    """The description of a model, from `describe_model`, as lines of text."""
    from meddift.cli.terminal import human_bytes

    licence = description["licence"]
    grid = description["grid"]
    defaults = description["defaults"]
    seen = (
        "each axis resized to a multiple of 128 voxels"
        if grid["kind"] == "resize_128"
        else f"resampled to {grid['spacing_mm']:g} mm"
    )
    lines = [
        f"{description['name']}: {description['title']}",
        f"modality: {description['modality']}",
        f"licence: {licence['name']} {licence['url']}".rstrip(),
        f"commercial use: {'allowed' if licence['commercial'] else 'not allowed'}",
        f"latent: {description['latent']}; noise: {description['schedule']}; scans are {seen}",
        f"levels: {', '.join(description['levels'])}",
        f"by default: {', '.join(defaults['levels'])} at timestep {defaults['timestep']}, "
        f"{'whitened' if defaults['whiten'] else 'not whitened'}, "
        f"{defaults['noise_samples'] or 'no'} noise draw{'' if defaults['noise_samples'] == 1 else 's'}",
    ]
    if description["repository"]:
        revision = description["revision"] or "not pinned; recorded at first use"
        lines.append(f"published at: https://huggingface.co/{description['repository']} (revision: {revision})")
        for file in description["published"]:
            known = f"sha256 {file['sha256']}" if file["sha256"] else "sha256 not known; recorded at first use"
            lines.append(f"  {file['role']}: {file['name']}, {known}")
    if description["installed"]:
        lines.append(f"installed: {human_bytes(description['bytes'])}, from {description['source']}")
        lines += [f"  {path}" for path in description["files"]]
    else:
        lines.append("installed: no")
        lines.append(description["missing"])
    return lines


def _tell_stored(stored: dict[str, StoredFile], *, quiet: bool) -> None:
    """Print the names and hashes of installed files."""
    if quiet:
        return
    for role, file in sorted(stored.items()):
        commit = f", commit {file.revision}" if file.revision else ""
        say(f"{role}: {file.name}, sha256 {file.sha256}{commit}", err=True)
