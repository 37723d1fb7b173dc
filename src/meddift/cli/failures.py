"""Report an exception as one sentence on stderr and an exit code."""

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
    """Standard output cannot be written, for instance to a file on a full disk."""


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Flush stdout at the end of a `with` block, so that errors are reported here and not when Python exits.

    Raises:
        StdoutError: if stdout cannot be written.
        BrokenPipeError: if the reader of the pipe has closed it.
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
    """State of the running command, for the last message.

    Attributes:
        signals: Received signals that ask to stop.
        wanted: Output files of the command.
        written: Output files that are complete.
        kept: Folder in which finished parts are kept; None for commands that keep none.
    """

    signals: list[int] = field(default_factory=list)
    wanted: list[Path] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    kept: Path | None = None

    def outcome(self) -> str:
        """Which files are written, or where finished parts are kept, as text."""
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
    """Stop the command on Ctrl-C, SIGTERM and SIGHUP, and record the signal in case a library hides it."""
    global _run
    _run = _Run()
    with stop_signals(_leave_at_once) as signals:
        _run.signals = signals
        yield


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal asked to stop and a library has hidden it."""
    if _run.signals:
        raise KeyboardInterrupt


def note_wanted(paths: Iterable[Path]) -> None:
    """Record output files of the command."""
    _run.wanted += paths


def note_written(paths: Iterable[Path]) -> None:
    """Record output files that are complete."""
    _run.written += paths


def note_kept(folder: Path) -> None:
    """Record a folder in which finished parts are kept, from which the command can be resumed."""
    _run.kept = folder


def _leave_at_once() -> None:
    """End the process after a second signal."""
    with contextlib.suppress(OSError):
        os.write(2, f"meddift: interrupted twice, left at once; {printable(_run.outcome())}\n".encode())
    leave(INTERRUPTED)


def leave(code: int) -> None:
    """End the process without the shutdown of Python, which would wait for threads or abort them."""
    remove_all_in_use()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


@contextlib.contextmanager
def quiet_libraries(*, debug: bool = False) -> Iterator[None]:
    """Show log messages of meddift and hide warnings of libraries.

    Args:
        debug: Whether to show the warnings of libraries too.
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
    """Print an error message and return the exit code.

    Args:
        error: Exception raised by a command.
        debug: Whether to print the traceback too.

    Returns:
        Exit code; None for exceptions that the parser of the command line handles itself.
    """
    if isinstance(error, BrokenPipeError):
        # The reader has closed the pipe, such as `head`. Nothing is printed or flushed any more.
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
    """Print an error message on stderr, in red on a terminal."""
    _say(message, typer.colors.RED)


def warn(message: str) -> None:
    """Print a warning on stderr, in yellow on a terminal."""
    _say(message, typer.colors.YELLOW)


def say(text: str, *, err: bool = False) -> None:
    """Print text on stdout or stderr; control characters are escaped."""
    with contextlib.nullcontext() if err else standard_output():
        typer.echo(printable(text), err=err)


def _say(message: str, color: str) -> None:
    """Print a message with control characters escaped, since quoted labels and names may contain any."""
    with contextlib.suppress(OSError):  # an error of stderr itself cannot be reported
        typer.secho(f"meddift: {printable(message)}", fg=color, err=True)


def _drop_stdout() -> None:
    """Discard buffered and further output on stdout, which would raise an error when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_usage(error: BaseException) -> bool:
    """Whether an error is about wrong arguments; newer Typer has its own copy of click, older uses click."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "ClickException" in names and "NoArgsIsHelpError" not in names


def _usage_text(error: Any) -> str:
    """Message about wrong arguments, with the command that lists the right ones."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "meddift"
    text = str(error.format_message()).strip().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; `{where} --help` lists what can be given"


def _belongs_to_parser(error: BaseException) -> bool:
    """Whether an exception is `Exit`, `Abort` or a request for help."""
    if isinstance(error, typer.Exit | typer.Abort | SystemExit | GeneratorExit):
        return True
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)
