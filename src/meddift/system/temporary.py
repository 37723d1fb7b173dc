"""Names of temporary files: who is writing them is told by the name, so that what a killed run left can be removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import threading
import time
from functools import cache
from pathlib import Path

#: `.tmp-`, six digits of the machine, eight of the process, ten drawn. Twelve drawn ones are what version 0.1 wrote.
_NAME = re.compile(r"\.tmp-(?:([0-9a-f]{6})([0-9a-f]{8})[0-9a-f]{10}|[0-9a-f]{12})-")

#: Seconds after which a file is left over: of a process of this machine that has ended, and of any other.
_STALE_AFTER_END, _STALE_AFTER = 3600.0, 24 * 3600.0

_lock = threading.Lock()
_in_use: set[Path] = set()
_swept: set[Path] = set()


def temporary_path(place: Path, suffix: str = "") -> Path:
    """A path beside `place` that does not exist yet; it ends with the name of `place`, so that its suffix stays.

    Args:
        place: The file that is going to be written.
        suffix: What the name ends with in addition.
    """
    # The last 64 characters keep every suffix, and the temporary name within the limit of the file system.
    drawn = f"{_machine()}{os.getpid():08x}{secrets.token_hex(5)}"
    return place.with_name(f".tmp-{drawn}-{place.name[-64:]}{suffix}")


def keep_in_use(path: Path) -> None:
    """Remember a temporary file of this process, for `remove_all_in_use`."""
    with _lock:
        _in_use.add(path)


def discard(path: Path) -> None:
    """Remove a temporary file of this process, if it is still there."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    with _lock:
        _in_use.discard(path)


def remove_all_in_use() -> None:
    """Remove all temporary files of this process: for an end without return."""
    for path in list(_in_use):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs of meddift left in a folder: old, and written by no process that is still there.

    Files with other names are never touched. Each folder is looked through once in the life of a process.
    """
    with _lock:
        if folder in _swept:
            return
        _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.match(entry.name) and entry.is_file(follow_symlinks=False) and is_left_over(Path(entry.path)):
                Path(entry.path).unlink(missing_ok=True)


def sweep_store(folder: Path) -> None:
    """Remove old temporary files of any name from a folder that holds nothing but what meddift keeps.

    Libraries that write files give them names of their own (`.tmpAb12Cd` of safetensors).
    """
    for path in folder.glob(".tmp*"):
        with contextlib.suppress(OSError):
            if path.is_file() and (is_left_over(path) or time.time() - path.stat().st_mtime > _STALE_AFTER):
                path.unlink(missing_ok=True)


def is_left_over(path: Path) -> bool:
    """Whether a file has the name of a temporary file of meddift, is old, and nobody is writing it."""
    found = _NAME.match(path.name)
    if found is None:
        return False
    try:
        written = path.stat(follow_symlinks=False).st_mtime
    except OSError:
        return False
    age = time.time() - written
    if found.group(1) == _machine():
        return age > _STALE_AFTER_END and not _was_running(int(found.group(2), 16), written)
    return age > _STALE_AFTER


def _was_running(process: int, when: float) -> bool:
    """Whether the process of this number is the one that was there at a time: numbers are given out again."""
    import psutil

    try:
        # Clocks of the file system and of the machine may differ a little.
        return bool(psutil.Process(process).create_time() < when + 60.0)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


@cache
def _machine() -> str:
    """Six digits for this machine, or this container."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
