"""Pairs that were opened lately: paths in a small file that only its owner can read."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.system.atomic import write_json
from meddift.system.homes import state_folder

if TYPE_CHECKING:
    from meddift.pipeline.scan import EncodedScan

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
        about: Of each scan, what tells it from others without naming anybody; see `told_apart`.
    """

    fixed: str
    moving: str
    out: str
    day: str
    about: tuple[str, str] = ("", "")


def told_apart(scan: EncodedScan, path: Path) -> str:
    """A scan in words: modality, size, voxels, and the day of its file; neither a name nor a path."""
    grid = scan.grid
    modality = scan.volume.modality or ("CT" if scan.intensity.hounsfield else "scan")
    spacing = " × ".join(f"{v:.3g}" for v in grid.spacing)
    size = " × ".join(str(n) for n in grid.shape)
    day = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))
    return f"{modality}, {size} voxels of {spacing} mm, file of {day}"


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
        found = [_read(row) for row in told]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # not there, or damaged: it is made anew
    return [pair for pair in found if Path(pair.fixed).exists() and Path(pair.moving).exists()]


def _read(row: dict[str, Any]) -> Recent:
    """A line of the file; those of earlier versions say nothing about the scans."""
    one, other = row.get("about", ("", ""))
    names = {name: str(row[name]) for name in ("fixed", "moving", "out", "day")}
    return Recent(**names, about=(str(one), str(other)))


def remember(fixed: Path, moving: Path, out: Path, *, about: tuple[str, str]) -> None:
    """Put a pair at the head of the list; a folder that cannot be written to is done without.

    Args:
        fixed: Where its scan lies.
        moving: Likewise.
        out: Where its points are kept.
        about: Of each scan; see `told_apart`.
    """
    day = time.strftime("%Y-%m-%d %H:%M")
    new = Recent(str(fixed.absolute()), str(moving.absolute()), str(out.absolute()), day, about)
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
