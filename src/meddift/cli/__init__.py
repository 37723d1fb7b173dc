"""The command `meddift`: parses arguments, calls the library and prints results."""

from __future__ import annotations

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and exit with its code.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part, 130 interrupted.
    """
    import atexit
    import gc
    import os
    import sys

    from meddift.system.device import before_torch

    ended: list[int] = []
    # Handlers run in the reverse order of their registration: this one comes last.
    atexit.register(_leave, ended)
    before_torch()
    # Loading libraries makes hundreds of thousands of objects that stay. To look for garbage among them as often as
    # Python does by default takes a tenth of the time of loading.
    gc.set_threshold(20_000, 10, 10)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            # Labels and file names may contain characters that the locale lacks.
            stream.reconfigure(errors="backslashreplace")
    try:
        from meddift.cli.app import app

        app(prog_name="meddift")
        return
    except SystemExit as end:
        if end.code != _INTERRUPTED:
            if isinstance(end.code, int | None):
                ended.append(end.code or 0)
            raise
    except KeyboardInterrupt:
        # Ctrl-C while Python was still loading the command.
        sys.stderr.write("interrupted; nothing was written\n")
    # All output is written. The shutdown of Python would wait for threads of libraries, or abort in them, and a
    # second Ctrl-C would print a traceback.
    sys.stderr.flush()
    os._exit(_INTERRUPTED)


def _leave(ended: list[int]) -> None:
    """Leave the process once threads have ended, files are closed and everything else is done.

    Python would then take everything that is loaded apart, which takes half a second with PyTorch.

    Args:
        ended: The exit code, if the command has ended in the usual way.
    """
    import os
    import sys

    if not ended:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # closed by the reader: Python knows what to do
        return
    os._exit(ended[0])
