"""Signals that ask a program to stop.

The first signal interrupts the program, the second one ends it at once. Both wait while finished files replace old
ones.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Sent by Ctrl-C, by schedulers and `kill`, and by a terminal that is closed; not all of them exist on Windows.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)

#: Held while finished files replace old ones; a process that ends at once waits for it.
committing = threading.RLock()


@contextmanager
def signals_held() -> Iterator[None]:
    """Delay signals that ask to stop until the block has ended; the first of them is handled then.

    Python handles signals in the main thread only, so there is nothing to delay in any other.
    """
    if threading.current_thread() is not threading.main_thread():
        with committing:
            yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    before = {}
    try:
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            # None: set by another language. Ignored signals stay ignored (`nohup`).
            if handler is not None and handler != signal.SIG_IGN:
                before[number] = handler
                signal.signal(number, hold)
        with committing:
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            handler = before[held[0]]
            if callable(handler):
                handler(held[0], None)  # raising the signal anew would count as a second one
            else:
                signal.raise_signal(held[0])


@contextmanager
def stop_signals(leave: Callable[[], None]) -> Iterator[list[int]]:
    """Turn the signals that ask to stop into KeyboardInterrupt; the second one leaves at once.

    Python handles signals between two of its own instructions. The second signal is noticed by a separate thread, so
    that nobody has to wait for a long computation in a library. It still waits while files replace old ones.

    Args:
        leave: Ends the process; called on the second signal, from any thread.

    Yields:
        The signals that have come; some libraries turn a KeyboardInterrupt into errors of their own.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    inner, outer = socket.socketpair()
    outer.setblocking(False)
    before = signal.set_wakeup_fd(outer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(inner, leave), name="meddift-signals", daemon=True)
    watcher.start()
    try:
        with _handled_by(stop):
            yield came
    finally:
        signal.set_wakeup_fd(before)
        outer.close()
        watcher.join()
        inner.close()


def _watch(numbers: socket.socket, leave: Callable[[], None]) -> None:
    """Count signals as they come, until the other end is closed."""
    count = 0
    while read := numbers.recv(64):
        count += sum(number in STOP_SIGNALS for number in read)
        if count > 1:
            with committing:
                leave()


@contextmanager
def noted_stop_signals() -> Iterator[list[int]]:
    """Record the first signal that asks to stop, so that work in progress can be finished; the second one interrupts.

    Within `stop_signals` the second one leaves at once, as everywhere.

    Yields:
        The signals that have come.

    Raises:
        KeyboardInterrupt: in the block, on the second signal.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    with _handled_by(note):
        yield came


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block, signals that ask to stop go to a function; those that are ignored stay ignored."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    caught = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in caught:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)
