"""From an exception to one clear sentence on stderr and an exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from meddift.errors import FrameError, MeddiftError, OptionsError, OutputError
from meddift.system.atomic import reason_of
from meddift.system.signals import stop_signals
from meddift.system.temporary import remove_all_in_use
from meddift.system.text import printable

DONE = 0
FAILED = 1
WRONG_USAGE = 2
DONE_IN_PART = 3
INTERRUPTED = 130
BROKEN_PIPE = 141


class StdoutError(OutputError):
    """Standard output takes no more: it goes into a file on a full disk, for instance."""


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Write to stdout, and flush it: what the system refuses is said here, not at the end of Python.

    Raises:
        StdoutError: if it is refused.
        BrokenPipeError: if whoever read it has gone.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(f"cannot write to standard output: {reason_of(error)}") from error


@dataclass
class _Run:
    """What is known of the command that is running, for the sentence with which it ends.

    Attributes:
        signals: Signals that asked to stop.
        wanted: Files that it was asked for.
        written: Those that stand in their places.
        kept: Where a command keeps what it has finished, if it does.
    """

    signals: list[int] = field(default_factory=list)
    wanted: list[Path] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    kept: Path | None = None

    def outcome(self) -> str:
        """What is there now."""
        if self.kept is not None:
            return f"what was finished is kept in {self.kept}; the same command goes on from there"
        if not self.written:
            return "nothing was written"
        missing = [path for path in self.wanted if path not in self.written]
        not_written = f"; not written: {', '.join(map(str, missing))}" if missing else ""
        return f"written: {', '.join(map(str, self.written))}{not_written}"


_run = _Run()


@contextlib.contextmanager
def remember_interrupts() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP stop the command, and remember them even where a library swallows them."""
    global _run
    _run = _Run()
    with stop_signals(_leave_at_once) as signals:
        _run.signals = signals
        yield


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if somebody asked to stop and a library has swallowed it."""
    if _run.signals:
        raise KeyboardInterrupt


def note_wanted(paths: Iterable[Path]) -> None:
    """Remember files that the command was asked for."""
    _run.wanted += paths


def note_written(paths: Iterable[Path]) -> None:
    """Remember files that stand in their places."""
    _run.written += paths


def note_kept(folder: Path) -> None:
    """Remember that finished parts of the work stay in a folder, and that the command can go on from them."""
    _run.kept = folder


def _leave_at_once() -> None:
    """End the process because somebody has asked for it twice."""
    with contextlib.suppress(OSError):
        os.write(2, f"meddift: interrupted twice, left at once; {printable(_run.outcome())}\n".encode())
    leave(INTERRUPTED)


def leave(code: int) -> None:
    """End the process, without the end of Python: that waits for threads, or aborts them."""
    remove_all_in_use()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


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
        _drop_stdout()
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt) or (_run.signals and isinstance(error, Exception)):
        complain(f"interrupted; {_run.outcome()}")
        return INTERRUPTED
    if isinstance(error, StdoutError):
        _drop_stdout()
        complain(f"{error}; {_run.outcome()}")
        return DONE_IN_PART if _run.written else FAILED
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
        complain(f"the memory of this machine is used up; {_run.outcome()}")
    else:
        hint = "" if debug else "; `meddift --debug ...` shows where"
        complain(f"internal error, please report it: {type(error).__name__}: {error}{hint}")
    return FAILED


def complain(message: str) -> None:
    """One message on stderr, in red on a terminal."""
    _say(message, typer.colors.RED)


def warn(message: str) -> None:
    """One warning on stderr, in yellow on a terminal."""
    _say(message, typer.colors.YELLOW)


def say(text: str, *, err: bool = False) -> None:
    """Lines of text on stdout or stderr; what a terminal would obey is escaped."""
    with contextlib.nullcontext() if err else standard_output():
        typer.echo(printable(text), err=err)


def _say(message: str, color: str) -> None:
    """A message may quote labels, file names and headers, which can hold anything."""
    with contextlib.suppress(OSError):  # nobody can be told that stderr does not work
        typer.secho(f"meddift: {printable(message)}", fg=color, err=True)


def _drop_stdout() -> None:
    """Send what waits in stdout, and all that follows, nowhere: Python would complain about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
