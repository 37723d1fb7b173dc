"""One program at a time on one part of a cohort, on shared disks too."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meddift.errors import OutputError
from meddift.system.atomic import reason_of

#: Seconds after which a lock that nobody renews belongs to nobody, and how often it is renewed.
STALE_S, RENEW_S = 600.0, 60.0


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a lock file for the block.

    Made by `link`, which is atomic on NFS too. One of a process of this machine that has ended, or that was not
    renewed for ten minutes, is taken over.

    Args:
        path: The lock file.

    Yields:
        To be called now and then: renews the lock.

    Raises:
        OutputError: if another program holds it, or it cannot be made.
    """
    own = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        own.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}), encoding="utf-8")
        _take(path, own)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {reason_of(error)}") from error
    finally:
        with suppress(OSError):
            own.unlink(missing_ok=True)
    last = time.monotonic()

    def renew() -> None:
        nonlocal last
        if time.monotonic() - last > RENEW_S:
            last = time.monotonic()
            with suppress(OSError):
                os.utime(path)

    try:
        yield renew
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _take(path: Path, own: Path) -> None:
    for _ in range(3):
        try:
            os.link(own, path)
            return
        except FileExistsError:
            holder = _holder(path, now=own.stat().st_mtime)
        if holder:
            raise OutputError(
                f"{path.parent.parent} is being worked on by {holder}. Wait for it; if it is gone for good, delete "
                f"{path}"
            )
        path.unlink(missing_ok=True)
    raise OutputError(f"{path} is taken by other programs again and again")


def _holder(path: Path, *, now: float) -> str:
    """Who holds a lock, in words; "" if nobody does any more."""
    try:
        age = now - path.stat().st_mtime  # both by the clock of the disk
        content = json.loads(path.read_text(encoding="utf-8"))
        host, process = str(content["host"]), int(content["process"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "another program"
    if age > STALE_S:
        return ""
    if host == socket.gethostname() and not _is_running(process, before=path):
        return ""
    return f"process {process} on {host}"


def _is_running(process: int, *, before: Path) -> bool:
    import psutil

    try:
        # Numbers are given out again: one that began after the lock was made is another program.
        return bool(psutil.Process(process).create_time() < before.stat().st_mtime + 60.0)
    except (psutil.NoSuchProcess, OSError):
        return False
    except psutil.Error:
        return True
