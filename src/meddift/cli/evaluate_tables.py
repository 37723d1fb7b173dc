"""Output of `meddift evaluate`: files, tables on stdout, and the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from meddift.cli.failures import DONE_IN_PART

if TYPE_CHECKING:
    from meddift_lab.running.tables import Tables


def tables_or_none(out: Path) -> Tables | None:
    """Results of methods in a folder; None if there are none."""
    from meddift.errors import MissingFileError
    from meddift_lab.running.tables import collect

    try:
        return collect(out)
    except MissingFileError:
        return None


def finish(tables: Tables, out: Path, *, as_json: bool, quiet: bool) -> None:
    """Write the files, print the table, and exit with code 3 if a method failed."""
    from meddift_lab.report import write_report
    from meddift_lab.running.table_files import method_rows, write_tables

    write_tables(tables, out)
    page = write_report(tables, out)
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout({"methods": method_rows(tables), "report": str(page)})
    elif not quiet:
        _show(tables, page)
    if any(row.failed for row in tables.method_rows):
        raise typer.Exit(DONE_IN_PART)


def _show(tables: Tables, page: Path) -> None:
    """Print the table of methods on stdout."""
    from meddift.cli.terminal import make_table, show

    for kind in tables.kinds:
        table = make_table(
            f"TRE in mm at {kind} points: means over cases, 95 % interval of the mean",
            [
                ("", False),
                ("cases", True),
                ("mean", True),
                ("interval", True),
                ("median", True),
                ("95 %", True),
                ("within 5", True),
                ("seconds", True),
            ],
        )
        for row in tables.method_rows:
            if row.kind != kind:
                continue
            total = row.cases + len(row.failed) + len(row.skipped)
            if row.mean_mm is None:
                table.add_row(row.title, f"{row.cases}/{total}", "-")
                continue
            low, high = row.mean_mm.low, row.mean_mm.high
            table.add_row(
                row.title,
                f"{row.cases}/{total}",
                f"{row.mean_mm.mean:.2f}",
                "-" if low is None or high is None else f"{low:.2f} to {high:.2f}",
                f"{row.median_mm:.2f}",
                f"{row.p95_mm:.2f}",
                f"{100 * row.within[5.0]:.0f} %",
                f"{row.find_s:.1f}",
            )
        show(table, to_stdout=True)
    show(f"Report: {page}", to_stdout=True)
    sys.stdout.flush()
