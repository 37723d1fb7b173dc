"""From an exception to one clear sentence on stderr and an exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer

from meddift.errors import FrameError, MeddiftError, OptionsError
from meddift.system.text import printable

DONE = 0
FAILED = 1
WRONG_USAGE = 2
DONE_IN_PART = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

_INTERRUPTED_TEXT = "interrupted; nothing was written"
_interrupts: list[int] = []


@contextlib.contextmanager
def remember_interrupts() -> Iterator[None]:
    """Remember that Ctrl-C was pressed, even where a library turns it into an error of its own."""
    _interrupts.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        _interrupts.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet_libraries(*, debug: bool = False) -> Iterator[None]:
    """Show what meddift itself has to say; hide warnings that libraries have for programmers.

    Args:
        debug: Hide nothing.
    """
    handler = _Messages(logging.DEBUG if debug else logging.WARNING)
    logger = logging.getLogger("meddift")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


class _Messages(logging.Handler):
    """Log records of meddift as sentences on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def exit_code_of(error: BaseException, *, debug: bool = False) -> int | None:
    """Say what went wrong and return the exit code; None for what the parser handles itself.

    Args:
        error: What a command raised.
        debug: Whether to show the traceback too.
    """
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has enough, `head` for instance. Nothing is left to say, nor to flush.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt) or (_interrupts and isinstance(error, Exception)):
        complain(_INTERRUPTED_TEXT)
        return INTERRUPTED
    if isinstance(error, MeddiftError):
        if debug:
            say("".join(traceback.format_exception(error)), err=True)
        complain(str(error))
        return WRONG_USAGE if isinstance(error, FrameError | OptionsError) else FAILED
    if _is_usage(error):
        complain(_usage_text(error))
        return WRONG_USAGE
    if _belongs_to_parser(error):
        return None
    if debug:
        say("".join(traceback.format_exception(error)), err=True)
    if isinstance(error, MemoryError):
        complain("the memory of this machine is used up; nothing was written")
    else:
        hint = "" if debug else "; `meddift --debug ...` shows where"
        complain(f"internal error, please report it: {type(error).__name__}: {error}{hint}")
    return FAILED


def complain(message: str) -> None:
    """One message on stderr, in red on a terminal."""
    typer.secho(printable(f"meddift: {message}"), fg=typer.colors.RED, err=True)


def warn(message: str) -> None:
    """One warning on stderr, in yellow on a terminal."""
    typer.secho(printable(f"meddift: {message}"), fg=typer.colors.YELLOW, err=True)


def say(text: str, *, err: bool = False) -> None:
    """Lines of text on stdout or stderr; what a terminal would obey is escaped."""
    typer.echo(printable(text), err=err)


def _is_usage(error: BaseException) -> bool:
    """Whether the arguments were wrong. Newer Typer brings its own click, older uses click's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "ClickException" in names and "NoArgsIsHelpError" not in names


def _usage_text(error: Any) -> str:
    """What was wrong with the arguments, and where the right ones are listed."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "meddift"
    text = str(error.format_message()).strip().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; `{where} --help` lists what can be given"


def _belongs_to_parser(error: BaseException) -> bool:
    """Whether it is `Exit`, `Abort` or the wish to see the help."""
    if isinstance(error, typer.Exit | typer.Abort | SystemExit | GeneratorExit):
        return True
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)
