"""Pairs that were opened lately: paths in a small file that only its owner can read."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from meddift.system.atomic import write_json
from meddift.system.homes import state_folder

#: So many are remembered.
MOST = 20


@dataclass(frozen=True)
class Recent:
    """A pair that was opened.

    Attributes:
        fixed: Where its scan lies.
        moving: Likewise.
        out: Where its points are kept.
        day: When it was opened last.
    """

    fixed: str
    moving: str
    out: str
    day: str


def recent_file() -> Path:
    """Where they are remembered.

    Raises:
        OutputError: if this user has no home directory.
    """
    return state_folder() / "viewer" / "recent.json"


def read_recent() -> list[Recent]:
    """Pairs that are still where they were, the last one first."""
    try:
        told = json.loads(recent_file().read_text(encoding="utf-8"))
        found = [Recent(**{name: str(row[name]) for name in ("fixed", "moving", "out", "day")}) for row in told]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # not there, or damaged: it is made anew
    return [pair for pair in found if Path(pair.fixed).exists() and Path(pair.moving).exists()]


def remember(fixed: Path, moving: Path, out: Path) -> None:
    """Put a pair at the head of the list; a folder that cannot be written to is done without.

    Args:
        fixed: Where its scan lies.
        moving: Likewise.
        out: Where its points are kept.
    """
    new = Recent(str(fixed.absolute()), str(moving.absolute()), str(out.absolute()), time.strftime("%Y-%m-%d %H:%M"))
    others = [pair for pair in read_recent() if (pair.fixed, pair.moving) != (new.fixed, new.moving)]
    with contextlib.suppress(OSError):
        path = recent_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Paths may hold names of patients: the file is made for its owner alone before anything stands in it.
        path.touch(mode=0o600)
        path.chmod(0o600)  # a file that was there before
        write_json([asdict(pair) for pair in (new, *others)][:MOST], path)


def forget_all() -> None:
    """Remove the list."""
    with contextlib.suppress(OSError):
        recent_file().unlink(missing_ok=True)
