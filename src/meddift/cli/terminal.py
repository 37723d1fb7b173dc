"""Progress on stderr, and tables and JSON on stdout. rich is imported only when it is needed."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from meddift.cli.failures import DONE_IN_PART, complain, say, standard_output
from meddift.system.progress import Progress, silent
from meddift.system.text import printable, printable_json

if TYPE_CHECKING:
    from rich.table import Table


def write_json_to_stdout(content: Any) -> None:
    """Print one JSON object on stdout and flush it; as ASCII if the encoding of stdout lacks a character.

    Raises:
        ValueError: if a number is NaN or infinite, which JSON cannot represent.
    """
    text = printable_json(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2, allow_nan=False)
    with standard_output():
        sys.stdout.write(text + "\n")


class Told(Protocol):
    """The result of a command, as JSON or as text for people."""

    def as_dict(self) -> dict[str, Any]:
        """The result, ready for JSON."""

    def show(self, *, to_stdout: bool) -> None:
        """Print the result as text for people."""


def tell(result: Told, missed: Sequence[str], written: Sequence[Path], *, as_json: bool, quiet: bool) -> None:
    """Print a result.

    Args:
        result: The result.
        missed: One sentence for each file that could not be written.
        written: The files that were written.
        as_json: Whether to print one JSON object on stdout instead of text.
        quiet: Whether to print no text.

    Raises:
        typer.Exit: with exit code 3 if a file could not be written.
    """
    if as_json:
        write_json_to_stdout(result.as_dict())
    elif not quiet:
        # If files were written, text goes to stderr, unless stdout is a terminal.
        result.show(to_stdout=not written or sys.stdout.isatty())
    if written and not quiet:
        say("written: " + ", ".join(map(str, written)), err=True)
    if missed:
        for sentence in missed:
            complain(sentence)
        raise typer.Exit(DONE_IN_PART)


@contextmanager
def progress_display(*, quiet: bool) -> Iterator[Progress]:
    """Show progress on stderr if that is a terminal.

    Args:
        quiet: Whether to show nothing in any case.

    Yields:
        Function to be called with the name of a stage and the share of the whole work that is done, 0 to 1.
    """
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=1.0)

        def report(stage: str, fraction: float) -> None:
            bars.update(task, description=printable(stage), completed=min(max(float(fraction), 0.0), 1.0))

        yield report


@contextmanager
def logged_progress(*, quiet: bool) -> Iterator[Progress]:
    """As `progress_display`, but if stderr is not a terminal, each new stage is printed as a line of a log."""
    if quiet or sys.stderr.isatty():
        with progress_display(quiet=quiet) as report:
            yield report
        return

    def line(stage: str, fraction: float) -> None:
        say(f"{100 * fraction:3.0f} % {stage}", err=True)

    yield line


def make_table(title: str, columns: Sequence[tuple[str, bool]]) -> Table:
    """Create an empty table.

    Args:
        title: Title of the table.
        columns: Heading of each column, and whether it holds numbers, which are aligned to the right.
    """
    from rich import box
    from rich.table import Table

    class PlainTable(Table):
        """A table whose cells are plain text: markup is ignored and control characters are escaped."""

        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*map(_plain, cells), **options)

    table = PlainTable(
        title=_plain(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading, numeric in columns:
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    return table


def line_width(*, to_stdout: bool) -> int:
    """Width of a line in characters: that of the terminal; for a file or pipe, as wide as tables need."""
    stream = sys.stdout if to_stdout else sys.stderr
    return shutil.get_terminal_size().columns if stream.isatty() else 120


def show(*items: Any, to_stdout: bool) -> None:
    """Print tables and text.

    Args:
        items: Tables and other objects that rich can print, or text, whose markup is ignored.
        to_stdout: Whether to print to stdout; otherwise to stderr.
    """
    from rich.console import Console

    stream = sys.stdout if to_stdout else sys.stderr
    console = Console(file=stream, width=line_width(to_stdout=to_stdout), highlight=False)
    with standard_output() if to_stdout else contextlib.nullcontext():
        for item in items:
            console.print(_plain(item))


def _plain(item: Any) -> Any:
    """Text with markup ignored and control characters escaped; other objects unchanged."""
    from rich.text import Text

    if isinstance(item, str):
        return Text(printable(item))
    if isinstance(item, Text) and printable(item.plain) != item.plain:
        return Text(printable(item.plain), style=item.style)
    return item


def human_bytes(count: float | None) -> str:
    """A number of bytes as text with a unit, in powers of 1000."""
    if count is None:
        return "unknown"
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
