"""Questions to the engine from a server that must not wait: a few threads, and late questions given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from meddift.errors import MeddiftError

Answer = TypeVar("Answer")

#: Threads that ask. Each question uses all processors by itself; more would only wait for each other.
THREADS = 2


class SupersededError(MeddiftError):
    """The same client has asked a later question meanwhile."""


class Work:
    """Runs questions in threads, in the order in which they come."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="meddift-viewer")
        self._latest: dict[tuple[str, str], int] = {}

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """What a question returns; other requests are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def latest(self, kind: str, client: str, number: int, work: Callable[[], Answer]) -> Answer:
        """The same for a client that numbers its questions: only the latest one of a kind is worth the work.

        Raises:
            SupersededError: if a later one has come before this one had its turn.
        """
        if not client:
            return await self.run(work)
        key = kind, client
        self._latest[key] = max(self._latest.get(key, -1), number)
        if len(self._latest) > 1000:  # windows that were closed long ago
            self._latest = {key: self._latest[key]}

        def unless_late() -> Answer:
            if self._latest.get(key, -1) > number:
                raise SupersededError("a later question of the same window has taken the place of this one")
            return work()

        return await self.run(unless_late)

    def close(self) -> None:
        """Give up what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
