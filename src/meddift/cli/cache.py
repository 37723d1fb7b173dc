"""`meddift cache`: show and clear files that meddift stores on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from meddift.cli.failures import say, warn
from meddift.cli.help import Command
from meddift.cli.options import AsJson, Quiet
from meddift.errors import OutputError

app = typer.Typer(help="Show and clear files stored on disk.", no_args_is_help=True, rich_markup_mode=None)


@app.command(
    "show",
    cls=Command,
    short_help="Show stored files, their folders and sizes.",
    epilog="meddift cache show\nmeddift cache show --json",
)
def show(as_json: AsJson = False) -> None:
    """Show the folders and sizes of stored features, weights and data sets.

    Features are not an image, but they are derived from the scan of one patient and are data of that patient. They are
    stored without names and paths. `meddift match --no-store` stores none.
    """
    from meddift.cli.terminal import human_bytes, write_json_to_stdout
    from meddift.features import FeatureStore
    from meddift.system.homes import data_folder

    try:
        kept = data_folder()
    except OutputError as error:
        warn(str(error))
        kept = Path(os.devnull)
    store = FeatureStore()
    content: dict[str, Any] = {
        "features": {
            "folder": str(store.folder),
            "scans": len(store),
            "bytes": store.size(),
            "limit_bytes": store.budget_bytes,
        },
        "weights": _folder(kept / "weights"),
        "datasets": _folder(kept / "datasets"),
    }
    if as_json:
        write_json_to_stdout(content)
        return
    features = content["features"]
    say(
        f"features: {features['scans']} scans, {human_bytes(features['bytes'])} of at most "
        f"{human_bytes(features['limit_bytes'])}, in {features['folder']}"
    )
    for name, words in (("weights", "weights"), ("datasets", "data sets")):
        say(f"{words}: {human_bytes(content[name]['bytes'])}, in {content[name]['folder']}")


@app.command(
    "clear",
    cls=Command,
    short_help="Remove stored features.",
    epilog="meddift cache clear\nmeddift cache clear --unused-days 30",
)
def clear(
    unused_days: Annotated[
        float,
        typer.Option("--unused-days", metavar="N", min=0, help="Only features that were not used for N days."),
    ] = 0.0,
    quiet: Quiet = False,
) -> None:
    """Remove stored features. They are computed again when needed. Weights and data sets are kept."""
    from meddift.features import FeatureStore

    store = FeatureStore()
    removed = store.clear(unused_days=unused_days)
    if not quiet:
        say(f"removed the features of {removed} scan{'' if removed == 1 else 's'} from {store.folder}", err=True)


def _folder(folder: Path) -> dict[str, Any]:
    """Path of a folder, and total size of its files in bytes."""
    size = 0
    if folder.is_dir():
        for path in folder.rglob("*"):
            try:
                size += path.stat().st_size if path.is_file() else 0
            except OSError:  # removed meanwhile, or without permission
                continue
    return {"folder": str(folder), "bytes": size}
