"""The command `meddift`: parse, call, print. No method lives here."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part, 130 interrupted.
    """
    import sys

    try:
        from meddift.cli.app import app

        app(prog_name="meddift")
    except KeyboardInterrupt:
        # Ctrl-C while Python was still loading the command.
        sys.stderr.write("interrupted; nothing was written\n")
        sys.exit(130)
