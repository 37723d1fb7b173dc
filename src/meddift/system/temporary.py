"""Temporary files and folders: their names say who is writing them, so that what a killed run left can be removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from meddift.errors import OutputError
from meddift.system.processes import was_running

#: `.tmp-`, six digits of the machine, eight of the process, ten random ones. Version 0.1 wrote twelve random ones.
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
    """Remove all temporary files of this process, before it ends without returning."""
    for path in list(_in_use):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove temporary files of killed runs from a folder: those that are old and whose process has ended.

    Files with other names are never touched. Each process searches each folder once.
    """
    with _lock:
        if folder in _swept:
            return
        _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.match(entry.name) and entry.is_file(follow_symlinks=False) and is_left_over(Path(entry.path)):
                Path(entry.path).unlink(missing_ok=True)


def sweep_tree(folder: Path) -> None:
    """Remove temporary files from one of meddift's own folders and all below it once their process has ended."""
    for path in folder.rglob(".tmp-*"):
        if path.is_file() and is_left_over(path, after_end=0.0):
            path.unlink(missing_ok=True)


def sweep_store(folder: Path) -> None:
    """Remove old temporary files of any name from a folder that holds nothing but what meddift keeps.

    Libraries that write files give them names of their own (`.tmpAb12Cd` of safetensors).
    """
    for path in folder.glob(".tmp*"):
        with contextlib.suppress(OSError):
            if path.is_file() and (is_left_over(path) or time.time() - path.stat().st_mtime > _STALE_AFTER):
                path.unlink(missing_ok=True)


def is_left_over(path: Path, *, after_end: float = _STALE_AFTER_END) -> bool:
    """Whether a file has the name of a temporary file of meddift, is old, and nobody is writing it.

    Args:
        path: The file.
        after_end: Seconds after which it is old, if the process that wrote it has ended.
    """
    found = _NAME.match(path.name)
    if found is None:
        return False
    try:
        written = path.stat(follow_symlinks=False).st_mtime
    except OSError:
        return False
    age = time.time() - written
    if found.group(1) == _machine():
        return age > after_end and not was_running(int(found.group(2), 16), written)
    return age > _STALE_AFTER


@cache
def _machine() -> str:
    """Six hexadecimal digits that stand for this machine or container: from the sha256 of its host name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


@contextlib.contextmanager
def temporary_folder(purpose: str, inside: Path | None = None) -> Iterator[Path]:
    """A folder that is removed at the end of the block; folders of killed runs with the same purpose are removed too.

    Args:
        purpose: A word for its name.
        inside: Where to make it; by default in the folder of the system for such things.

    Raises:
        OutputError: if there is no place for it, or it cannot be made.
    """
    path = None
    try:
        place = inside or Path(tempfile.gettempdir())
        _sweep_folders(place, purpose)
        path = Path(tempfile.mkdtemp(prefix=f"meddift-{purpose}-{_machine()}{os.getpid():08x}-", dir=place))
    except OSError as error:
        raise OutputError(
            f"cannot make a temporary folder: {error.strerror or error}. Set the environment variable TMPDIR to a "
            f"folder that can be written to"
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep_folders(place: Path, purpose: str) -> None:
    """Remove folders of this user that are old, and whose process has ended."""
    pattern = re.compile(rf"meddift-{re.escape(purpose)}-([0-9a-f]{{6}})([0-9a-f]{{8}})-")
    for folder in place.glob(f"meddift-{purpose}-*"):
        found = pattern.match(folder.name)
        if found is None or found.group(1) != _machine() or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):
            made = folder.stat()
            mine = not hasattr(os, "getuid") or made.st_uid == os.getuid()
            old = time.time() - made.st_mtime > _STALE_AFTER_END
            if mine and old and not was_running(int(found.group(2), 16), made.st_mtime):
                shutil.rmtree(folder, ignore_errors=True)
