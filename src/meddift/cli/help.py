"""Layout of the help of commands: everyday options, other options under headings of their own, examples."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

#: Heading of the options that are rarely needed.
ADVANCED = "Advanced options"
#: Heading of the options for reading files.
READING = "Reading files"


def advanced(*names: str, **settings: Any) -> Any:
    """An option that is rarely needed; arguments as for `typer.Option`."""
    return typer.Option(*names, rich_help_panel=ADVANCED, **settings)


def reading(*names: str, **settings: Any) -> Any:
    """An option for reading files; arguments as for `typer.Option`."""
    return typer.Option(*names, rich_help_panel=READING, **settings)


class Command(TyperCommand):
    """A command whose help groups options by heading and shows examples with their line breaks."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by heading; options without a heading come first."""
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
        """Write the examples, one per line."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")
