"""How commands present themselves: examples first, everyday options, then the rest under a heading of its own."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

#: Heading of the options that most people never need.
ADVANCED = "Advanced options"
#: Heading of what says how files are to be understood.
READING = "Reading files"


def advanced(*names: str, **settings: Any) -> Any:
    """An option that most people never need; arguments as for `typer.Option`."""
    return typer.Option(*names, rich_help_panel=ADVANCED, **settings)


def reading(*names: str, **settings: Any) -> Any:
    """An option that says how files are to be understood; arguments as for `typer.Option`."""
    return typer.Option(*names, rich_help_panel=READING, **settings)


class Command(TyperCommand):
    """A command whose help groups its options, and whose examples are shown as they stand."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by heading; those without one come first."""
        headings = ("Arguments", "Options", READING, ADVANCED)
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in headings}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            heading = getattr(parameter, "rich_help_panel", None)
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections.setdefault(heading or usual, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one a line, without filling lines up."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")
