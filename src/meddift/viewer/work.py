"""`Work`: runs computations of the server in threads, and drops requests that a later one has replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from meddift.errors import MeddiftError

Answer = TypeVar("Answer")

#: Number of threads. Each computation uses all processors, so more threads would be of no use.
THREADS = 2


class SupersededError(MeddiftError):
    """A later request of the same client has replaced this one."""


class Work:
    """Runs computations in threads, in the order of their requests."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="meddift-viewer")
        self._latest: dict[tuple[str, str], int] = {}

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """Run a computation in a thread and return its result; other requests are served meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def latest(self, kind: str, client: str, number: int, work: Callable[[], Answer]) -> Answer:
        """Run a computation unless the client has sent a later request of the same kind.

        Args:
            kind: Kind of request.
            client: Id of the client.
            number: Number of the request, which increases for each client.
            work: The computation.

        Raises:
            SupersededError: if a later request has arrived before this one was started.
        """
        if not client:
            return await self.run(work)
        key = kind, client
        self._latest[key] = max(self._latest.get(key, -1), number)
        if len(self._latest) > 1000:  # clients that were closed long ago
            self._latest = {key: self._latest[key]}

        def unless_late() -> Answer:
            if self._latest.get(key, -1) > number:
                raise SupersededError("a later question of the same window has taken the place of this one")
            return work()

        return await self.run(unless_late)

    def close(self) -> None:
        """Drop all waiting computations."""
        self._threads.shutdown(wait=False, cancel_futures=True)
