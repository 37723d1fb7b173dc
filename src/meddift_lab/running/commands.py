"""A record of the commands that wrote to the folder of a run, so that the report can say how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from meddift.system.atomic import write_json
from meddift_lab.running.folder import claim_run_folder

#: Name of the file in the folder of a run.
FILE = "commands.json"


def remember_command(folder: Path, words: Sequence[str]) -> None:
    """Record a command in the folder of a run; repeated commands are recorded once.

    Args:
        folder: Folder of the run; created if it does not exist.
        words: The command and its arguments, not quoted.

    Raises:
        OutputError: if it cannot be written, or the folder contains files that do not belong to a run.
    """
    claim_run_folder(folder)
    line = shlex.join(words)
    known = remembered_commands(folder)
    if line not in known:
        write_json([*known, line], folder / FILE)


def remembered_commands(folder: Path) -> list[str]:
    """The recorded commands of a folder, quoted for a shell; empty if none is recorded."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(line) for line in content] if isinstance(content, list) else []
