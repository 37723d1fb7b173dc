"""Starting a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def launched(play: Any, chromium: str, *flags: str) -> Iterator[Any]:
    """A browser that ends with the block.

    Args:
        play: Playwright; a process can have but one.
        chromium: Where the browser is.
        flags: How it is started.
    """
    made = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu-watchdog", *flags])
    yield made
    made.close()
