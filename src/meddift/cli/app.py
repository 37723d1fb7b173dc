"""The command line application: commands, `--version`, and handling of errors."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import meddift
from meddift.cli import (
    cache,
    cohort,
    convert_points,
    datasets,
    demo,
    evaluate,
    info,
    match,
    models,
    register,
    track,
    view,
    warp,
)
from meddift.cli.failures import (
    exit_code_of,
    quiet_libraries,
    remember_interrupts,
    say,
    standard_output,
    stop_if_interrupted,
)
from meddift.cli.help import Command


class _Commands(TyperGroup):
    """A command group that reports each error as one sentence on stderr and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            code = exit_code_of(error)
            if code is None:
                raise
            raise typer.Exit(code) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the named command."""
        debug = bool(ctx.params.get("debug"))
        with remember_interrupts(), quiet_libraries(debug=debug):
            try:
                result = super().invoke(ctx)
                stop_if_interrupted()
                with standard_output():
                    return result
            except BaseException as error:
                code = exit_code_of(error, debug=debug)
                if code is None:
                    raise
                raise typer.Exit(code) from None


app = typer.Typer(
    name="meddift",
    cls=_Commands,
    help="Find the same anatomical point in two 3D medical scans, in millimetres. For research; not a medical device.",
    no_args_is_help=True,
    add_completion=True,
    # Formatted help would load rich, which doubles the time that --help takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"meddift {meddift.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="MEDDIFT_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Options before the command; `invoke` reads them."""


#: Command -> (module, summary in the list of commands at 80 columns).
_COMMANDS: dict[str, tuple[ModuleType, str]] = {
    "match": (match, "Find points of one scan in another."),
    "register": (register, "Fit one transform between two scans."),
    "track": (track, "Follow lesions through the scans of a patient."),
    "warp": (warp, "Map points or images by a transform."),
    "view": (view, "Review and correct, two scans side by side."),
    "convert-points": (convert_points, "Convert points between file formats."),
    "info": (info, "Describe a scan, points or a model."),
    "demo": (demo, "Try it on a simulated chest."),
}
for name, (module, short) in _COMMANDS.items():
    function = getattr(module, name.replace("-", "_"))
    app.command(name, cls=Command, epilog=module.EXAMPLES, short_help=short)(function)
app.add_typer(cohort.app, name="cohort", short_help="Process many cases, resumable.")
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(datasets.app, name="datasets")
