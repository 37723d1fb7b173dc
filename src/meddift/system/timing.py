"""How long the stages of a piece of work take."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager


@contextmanager
def timed(seconds: MutableMapping[str, float], stage: str) -> Iterator[None]:
    """Add the time that a block takes, also one that fails, to `seconds[stage]`.

    Args:
        seconds: Stage -> seconds by the clock; changed.
        stage: The name of this one.
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
