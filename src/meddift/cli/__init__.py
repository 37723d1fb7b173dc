"""The command `meddift`: parse, call, print. No method lives here."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part, 130 interrupted.
    """
    import os
    import sys

    # Threads that wait for each other by spinning make everything several times slower as soon as another program
    # wants a core (the demo on two busy cores: 194 s spinning, 79 s sleeping; on idle ones 23 and 25 s). It has to be
    # said before PyTorch is loaded; whoever has said something else keeps it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Letters that the terminal's alphabet lacks are shown as escapes instead of ending the command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        from meddift.cli.app import app

        app(prog_name="meddift")
    except KeyboardInterrupt:
        # Ctrl-C while Python was still loading the command.
        sys.stderr.write("interrupted; nothing was written\n")
        sys.exit(130)
