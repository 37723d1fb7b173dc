"""Recently opened pairs, stored as paths in a file that only its owner can read."""

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

#: Number of pairs that are stored.
MOST = 20


@dataclass(frozen=True)
class Recent:
    """A pair that was opened.

    Attributes:
        fixed: Path of the fixed scan.
        moving: Path of the moving scan.
        out: Folder of the list of points.
        day: Time when the pair was last opened.
        about: Description of each scan without names, see `told_apart`.
    """

    fixed: str
    moving: str
    out: str
    day: str
    about: tuple[str, str] = ("", "")


def told_apart(scan: EncodedScan, path: Path) -> str:
    """Describe a scan by modality, size, spacing and date of its file, without a name or path."""
    grid = scan.grid
    modality = scan.volume.modality or ("CT" if scan.intensity.hounsfield else "scan")
    spacing = " × ".join(f"{v:.3g}" for v in grid.spacing)
    size = " × ".join(str(n) for n in grid.shape)
    day = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))
    return f"{modality}, {size} voxels of {spacing} mm, file of {day}"


def recent_file() -> Path:
    """Path of the file with the recent pairs.

    Raises:
        OutputError: if this user has no home directory.
    """
    return state_folder() / "viewer" / "recent.json"


def read_recent() -> list[Recent]:
    """Recent pairs whose scans still exist, the latest first."""
    try:
        told = json.loads(recent_file().read_text(encoding="utf-8"))
        found = [_read(row) for row in told]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # missing or damaged: it is written again
    return [pair for pair in found if Path(pair.fixed).exists() and Path(pair.moving).exists()]


def _read(row: dict[str, Any]) -> Recent:
    """Restore an entry of the file; entries of earlier versions have no description of the scans."""
    one, other = row.get("about", ("", ""))
    names = {name: str(row[name]) for name in ("fixed", "moving", "out", "day")}
    return Recent(**names, about=(str(one), str(other)))


def remember(fixed: Path, moving: Path, out: Path, *, about: tuple[str, str]) -> None:
    """Put a pair at the head of the list; errors of writing are ignored.

    Args:
        fixed: Path of the fixed scan.
        moving: Path of the moving scan.
        out: Folder of the list of points.
        about: Description of each scan, see `told_apart`.
    """
    day = time.strftime("%Y-%m-%d %H:%M")
    new = Recent(str(fixed.absolute()), str(moving.absolute()), str(out.absolute()), day, about)
    others = [pair for pair in read_recent() if (pair.fixed, pair.moving) != (new.fixed, new.moving)]
    with contextlib.suppress(OSError):
        path = recent_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Paths may contain names of patients, so the file gets its permissions before any content is written.
        path.touch(mode=0o600)
        path.chmod(0o600)  # for a file that existed before
        write_json([asdict(pair) for pair in (new, *others)][:MOST], path)


def forget_all() -> None:
    """Remove the list."""
    with contextlib.suppress(OSError):
        recent_file().unlink(missing_ok=True)
