"""`meddift cache`: what meddift keeps on this machine, where, and how to be rid of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from meddift.cli.failures import say, warn
from meddift.cli.help import Command
from meddift.cli.options import AsJson, Quiet
from meddift.errors import OutputError

app = typer.Typer(help="Show and clear what is kept on disk.", no_args_is_help=True, rich_markup_mode=None)


@app.command(
    "show",
    cls=Command,
    short_help="Show what is kept, where, and how much it is.",
    epilog="meddift cache show\nmeddift cache show --json",
)
def show(as_json: AsJson = False) -> None:
    """Show where features, weights and data sets are kept, and how much room they take.

    Features are numbers from which the scan cannot be read back as an image, but which belong to one patient all the
    same. No names and no paths are kept with them. `meddift match --no-store` keeps none.
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
    short_help="Remove features of scans that are kept.",
    epilog="meddift cache clear\nmeddift cache clear --unused-days 30",
)
def clear(
    unused_days: Annotated[
        float,
        typer.Option("--unused-days", metavar="N", min=0, help="Only features that were not used for N days."),
    ] = 0.0,
    quiet: Quiet = False,
) -> None:
    """Remove stored features. They are computed again when they are needed. Weights and data sets stay."""
    from meddift.features import FeatureStore

    store = FeatureStore()
    removed = store.clear(unused_days=unused_days)
    if not quiet:
        say(f"removed the features of {removed} scan{'' if removed == 1 else 's'} from {store.folder}", err=True)


def _folder(folder: Path) -> dict[str, Any]:
    """A folder and the bytes of the files in it."""
    size = 0
    if folder.is_dir():
        for path in folder.rglob("*"):
            try:
                size += path.stat().st_size if path.is_file() else 0
            except OSError:  # removed meanwhile, or not ours to look at
                continue
    return {"folder": str(folder), "bytes": size}
