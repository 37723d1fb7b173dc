"""`meddift view`: two scans side by side in the browser, a click in one answered in the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meddift.cli.failures import DONE, leave, say, warn
from meddift.cli.groups import with_groups
from meddift.cli.help import ADVANCED
from meddift.cli.options import Engine, PairReading, PointsSpace, Quiet
from meddift.errors import OptionsError

if TYPE_CHECKING:
    from meddift.viewer.session import Session

EXAMPLES = """
meddift view old.nii.gz new.nii.gz
meddift view old.nii.gz new.nii.gz --points lesions.mrk.json --out checked
meddift view --follow-up follow-up
meddift view --store
"""


@with_groups
def view(
    *,
    fixed: Annotated[
        Path | None,
        typer.Argument(metavar="FIXED", help="The scan in which points are usually given.", show_default=False),
    ] = None,
    moving: Annotated[
        Path | None, typer.Argument(metavar="MOVING", help="The other scan.", show_default=False)
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option("--points", "-p", metavar="FILE", help="Points on the fixed scan to review."),
    ] = None,
    registration: Annotated[
        Path | None,
        typer.Option("--registration", metavar="T.h5", help="Transform from fixed to moving, for linked scrolling."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for points that are saved on the page.")
    ] = Path("meddift-view"),
    follow_up: Annotated[
        Path | None,
        typer.Option("--follow-up", metavar="DIR", help="Result of `meddift track`: review lesions and their links."),
    ] = None,
    recent: Annotated[bool, typer.Option("--store", help="Choose one of the pairs opened last.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Clear the list of opened pairs, and exit.")] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Whether to open the browser.")] = True,
    quiet: Quiet = False,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="NAME",
            help="Address to listen on. Except on 127.0.0.1, scans are sent unencrypted.",
            rich_help_panel=ADVANCED,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 = any free one.", rich_help_panel=ADVANCED)
    ] = 0,
    engine: Engine,
    points_space: PointsSpace = None,
    reading: PairReading,
) -> None:
    """Look at two scans side by side; a click in one is answered in the other, and can be corrected and saved.

    A server on this machine shows the page in your browser until Ctrl-C. Nothing is fetched from elsewhere, and only
    who has the address printed here can see it.
    """
    if forget:
        from meddift.viewer.recent import forget_all

        forget_all()
        return
    _check_what(fixed, moving, points, registration, follow_up, recent=recent)
    _check_installed()
    from meddift.viewer.server import Server

    session = _session(fixed, moving, points, registration, out, follow_up, engine, points_space, reading, quiet=quiet)
    server = Server(session, host=host, port=port)
    if host not in ("127.0.0.1", "localhost", "::1"):
        warn(
            f"listening on {host}: whoever reaches this machine and has the address can see these scans, and they "
            "travel unencrypted"
        )

    def show() -> None:
        say(server.address)
        if not quiet:
            say("Ctrl-C ends it.", err=True)
        if browser:
            import webbrowser

            webbrowser.open(server.address)

    server.run(on_ready=show)
    if session.desk is not None and not session.desk.sheet.is_saved:
        warn("points that were not saved are lost")
    if session.jobs.is_busy:
        # PyTorch aborts when Python ends while it computes in another thread.
        leave(DONE)


def _session(
    fixed: Path | None,
    moving: Path | None,
    points: Path | None,
    registration: Path | None,
    out: Path,
    follow_up: Path | None,
    engine: Engine,
    points_space: PointsSpace,
    reading: PairReading,
    *,
    quiet: bool,
) -> Session:
    """What was asked for; whatever is wrong with it is said before the server begins."""
    from meddift.cli.points_files import check_points_files
    from meddift.cli.terminal import progress_display
    from meddift.io import read_transform
    from meddift.pipeline.points_files import read_points_on
    from meddift.viewer.opening import follow_up_session, pair_session, store_session
    from meddift.viewer.recent import remember, told_apart

    if points is not None:
        check_points_files(points, None, points_space)
    with progress_display(quiet=quiet) as report:
        matcher = engine.matcher()
        if follow_up is not None:
            return follow_up_session(follow_up, matcher)
        if fixed is None or moving is None:
            return store_session(matcher)
        transform = None if registration is None else read_transform(registration)
        report("reading the fixed scan", 0.0)
        one = matcher.scan(reading.fixed.read(fixed))
        wanted = None if points is None else read_points_on(points, points_space, one.grid, "fixed")
        report("reading the moving scan", 0.5)
        other = matcher.scan(reading.moving.read(moving))
        session = pair_session(one, other, out, points=wanted, transform=transform, names=(fixed, moving))
    remember(fixed, moving, out, about=(told_apart(one, fixed), told_apart(other, moving)))
    return session


def _check_what(
    fixed: Path | None,
    moving: Path | None,
    points: Path | None,
    registration: Path | None,
    follow_up: Path | None,
    *,
    recent: bool,
) -> None:
    """One thing has to be asked for.

    Raises:
        OptionsError: if it is none, or more than one.
    """
    pair = fixed is not None
    if pair + (follow_up is not None) + recent != 1:
        raise OptionsError("give two scans, or --follow-up DIR, or --store, and only one of these")
    if pair and moving is None:
        raise OptionsError("one scan is no pair: give two, the fixed and the moving one")
    if not pair and (points or registration):
        raise OptionsError("--points and --registration belong to two scans: give those")


def _check_installed() -> None:
    """Say how to get what the viewer needs besides.

    Raises:
        OptionsError: if it is not there.
    """
    import importlib.util

    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionsError(
            f"the viewer needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'meddift[viewer]'"
        )
