"""Lock file that lets only one program at a time work on a shard of a cohort, also on shared disks."""

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
from meddift.system.processes import was_running

#: Age in seconds after which a lock that was not renewed is ignored, and seconds between renewals.
STALE_S, RENEW_S = 600.0, 60.0


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a lock file inside a `with` block.

    The file is created by `link`, which is atomic on NFS too. An existing lock is taken over if it belongs to a
    process of this machine that has ended, or if it was not renewed for ten minutes.

    Args:
        path: The lock file.

    Yields:
        Function that renews the lock; to be called at least every few minutes.

    Raises:
        OutputError: if another program holds the lock, or the file cannot be written.
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
    raise OutputError(f"cannot take the lock {path}: other programs take it first each time; start the run again")


def _holder(path: Path, *, now: float) -> str:
    """The holder of a lock, in words; "" if it is no longer held."""
    try:
        made = path.stat().st_mtime
        age = now - made  # both times are those of the file system
        content = json.loads(path.read_text(encoding="utf-8"))
        host, process = str(content["host"]), int(content["process"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "another program"
    if age > STALE_S:
        return ""
    if host == socket.gethostname() and not was_running(process, made):
        return ""
    return f"process {process} on {host}"
