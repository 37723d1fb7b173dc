"""How long the stages of a piece of work take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

_ADDING = threading.Lock()


@contextmanager
def timed(seconds: MutableMapping[str, float], stage: str) -> Iterator[None]:
    """Add the time that a block takes, also one that fails, to `seconds[stage]`; several threads may share `seconds`.

    Args:
        seconds: Stage -> elapsed wall-clock seconds; modified in place.
        stage: Name of the stage that the block belongs to.
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        taken = time.perf_counter() - started
        with _ADDING:
            seconds[stage] = seconds.get(stage, 0.0) + taken
