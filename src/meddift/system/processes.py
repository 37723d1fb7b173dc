"""Other processes of this machine: whether one that wrote a file is still there."""

from __future__ import annotations


def was_running(process: int, when: float) -> bool:
    """Whether the process that had a number at a given time is still running.

    Systems give numbers out again: a process that started later is another one. One that has ended stays in the table
    of the system until its parent asks for its exit code; in a container nobody may ever do so.

    Args:
        process: Its number.
        when: The time, seconds since the epoch. Clocks of the file system and of the machine may differ by a minute.

    Returns:
        Whether it is running; True also if that cannot be determined.
    """
    import psutil

    try:
        found = psutil.Process(process)
        return found.status() != psutil.STATUS_ZOMBIE and bool(found.create_time() < when + 60.0)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
