"""`meddift datasets`: list and download pairs of scans with known points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from meddift.cli.failures import say
from meddift.cli.help import Command
from meddift.cli.options import AsJson, Quiet

app = typer.Typer(
    help="List and download pairs of scans with known points.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    "list",
    cls=Command,
    short_help="List data sets with known points.",
    epilog="meddift datasets list",
)
def list_data_sets(as_json: AsJson = False) -> None:
    """List the data sets that `meddift evaluate run --data` knows. Nothing is downloaded."""
    from meddift_lab.sets.catalogue import DATA_SETS

    rows: list[dict[str, Any]] = [
        {
            "name": known.name,
            "title": known.title,
            "points": known.points,
            "licence": known.licence,
            "source": known.source,
            "data": known.usage,
            "fetch": [archive.url for archive in known.archives],
        }
        for known in DATA_SETS
    ]
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout({"data_sets": rows})
        return
    for row in rows:
        how = "meddift datasets fetch " + row["name"] if row["fetch"] else row["source"] or "nothing to download"
        say(f"{row['name']}: {row['title']}")
        say(f"    points: {row['points']}; licence: {row['licence']}")
        say(f"    {how}; then --data {row['data']}")


@app.command(
    "fetch",
    cls=Command,
    short_help="Download a data set.",
    epilog="meddift datasets fetch lungct",
)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `datasets list`.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Output folder; default: datasets/NAME in MEDDIFT_HOME."),
    ] = None,
    unpack: Annotated[bool, typer.Option("--unpack/--no-unpack", help="Unpack zip files.")] = True,
    quiet: Quiet = False,
) -> None:
    """Download a data set, check its hash, unpack it, and print its folder."""
    from meddift_lab.sets.fetch import default_folder, fetch_data_set, find_data_set

    data_set = find_data_set(name)
    folder = out or default_folder() / name

    def report(line: str) -> None:
        if not quiet:
            say(line, err=True)

    report(f"{data_set.title}\nlicence: {data_set.licence}")
    fetch_data_set(data_set, folder, unpack=unpack, on_progress=report)
    say(str(folder))
