"""The commands that filled the folder of a run, so that the report can say how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from meddift.system.atomic import write_json
from meddift_lab.running.folder import claim_run_folder

#: File in the folder of a run.
FILE = "commands.json"


def remember_command(folder: Path, words: Sequence[str]) -> None:
    """Add a command to those that filled a folder; the same one is kept once.

    Args:
        folder: Of the run; made if it is not there.
        words: The command and its arguments, not quoted.

    Raises:
        OutputError: if it cannot be written, or the folder holds files that no run has made.
    """
    claim_run_folder(folder)
    line = shlex.join(words)
    known = remembered_commands(folder)
    if line not in known:
        write_json([*known, line], folder / FILE)


def remembered_commands(folder: Path) -> list[str]:
    """The commands that filled a folder, as they can be pasted into a shell; empty if none is known."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(line) for line in content] if isinstance(content, list) else []
