"""Output folders of commands: new, empty, or filled by the same command; other files are never overwritten."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from meddift.errors import OutputError
from meddift.system.atomic import reason_of


def check_folder(folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a folder that cannot be written to, or that holds files which the same command has not made.

    Args:
        folder: The folder; it need not exist.
        is_ours: Tells whether the content of a folder that is not empty was written by the same command.

    Raises:
        OutputError: if it is a file, cannot be written to, or holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write to {folder}: it is a file; give the name of a folder")
    place = folder if folder.is_dir() else folder.parent
    if not place.is_dir():
        raise OutputError(f"cannot write to {folder}: there is no folder {place}; create it first")
    try:
        if folder.is_dir() and any(folder.iterdir()) and not is_ours(folder):
            raise OutputError(
                f"{folder} holds files that were not made by this command, and some could be overwritten; give a new "
                f"or an empty folder"
            )
        with tempfile.TemporaryFile(dir=place):
            pass
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {reason_of(error)}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those around it, if it is not there.

    Raises:
        OutputError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {reason_of(error)}") from error
