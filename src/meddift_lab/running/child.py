"""Running a process and measuring what it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Resources:
    """Time and memory used by a process.

    Attributes:
        wall_s: Seconds from start to end, loading of libraries included.
        user_s: Seconds of processor time, all threads and children together; None where the system does not tell.
        system_s: The same inside the operating system.
        peak_bytes: Most resident memory; None where the system does not tell.
    """

    wall_s: float
    user_s: float | None
    system_s: float | None
    peak_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code; negative for a signal.
        timed_out: Whether it was stopped because it took too long.
        resources: What it took.
    """

    code: int
    timed_out: bool
    resources: Resources


def run_child(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, timeout_s: float | None = None
) -> Ended:
    """Run a command to its end, in a group of its own, its output going to a file.

    Args:
        command: Program and arguments.
        environment: All environment variables of the process.
        log: File for its output.
        timeout_s: Time after which it is killed with all its children, s; None = never.
    """
    started = time.perf_counter()
    with log.open("wb") as stream:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=sys.platform != "win32",
        )
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            _kill(child)

        timer = threading.Timer(timeout_s, stop) if timeout_s is not None else None
        if timer is not None:
            timer.start()
        try:
            code, usage = _wait(child)
        except BaseException:  # Ctrl-C: the child must not go on alone
            _kill(child)
            child.wait()
            raise
        finally:
            if timer is not None:
                timer.cancel()
    wall = time.perf_counter() - started
    if usage is None:
        return Ended(code, expired.is_set(), Resources(wall, None, None, None))
    # Bytes on macOS, kilobytes elsewhere (getrusage(2)).
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Ended(code, expired.is_set(), Resources(wall, usage.ru_utime, usage.ru_stime, peak))


def _wait(child: subprocess.Popen[bytes]) -> tuple[int, Any]:
    """Exit code and resource usage of this child alone."""
    if not hasattr(os, "wait4"):  # Windows
        return child.wait(), None
    _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    return code, usage


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its own children."""
    try:
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
