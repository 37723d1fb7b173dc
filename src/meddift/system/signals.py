"""Signals that ask a program to stop, held back while files take their places."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, what schedulers and `kill` send, and a terminal that was closed; Windows has not all of them.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)

#: Held while files take their places; an end without return waits for it.
committing = threading.RLock()


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold signals that ask to stop back until the block has ended; the first of them is then raised anew.

    Python hands signals to the main thread only, so there is nothing to hold back in any other.
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
            signal.raise_signal(held[0])
