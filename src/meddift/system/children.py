"""Processes that this program starts: their environment, and that they do not outlive it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from meddift.system.device import WAITING

#: Variables that say how many threads libraries use.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def child_environment(threads: int) -> dict[str, str]:
    """Environment for a child process: this one, with a number of threads, how they wait, and this code of meddift.

    Args:
        threads: Number of threads that libraries use in the child.
    """
    environment = {**WAITING, **os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    # The same code as this process, wherever it was started from.
    source = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [environment.get("PYTHONPATH")])])
    return environment


def end_with_parent(parent: int) -> None:
    """End this process as soon as the process that started it has ended, even if that one was killed.

    Args:
        parent: Number of the process that started this one.
    """
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG = 1 (prctl(2)).
        ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGKILL))
    is_there = still_there(parent, launched_directly=os.name == "posix")
    if not is_there():
        os._exit(1)

    def watch() -> None:
        while is_there():
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def still_there(process: int, *, launched_directly: bool) -> Callable[[], bool]:
    """A function that tells whether the process which started this one is still there.

    Args:
        process: Its number.
        launched_directly: Whether it is the parent of this one. On Windows it is not: Python of a virtual
            environment starts another Python.
    """
    if launched_directly:
        return lambda: os.getppid() == process
    import psutil

    try:
        # Numbers are given out again; the library knows a process by its number and the time of its start.
        runner = psutil.Process(process)
    except psutil.NoSuchProcess:
        return lambda: False
    return lambda: bool(runner.is_running() and runner.status() != psutil.STATUS_ZOMBIE)
