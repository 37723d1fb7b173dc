"""A client for an ASGI application in this process, without a thread or a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

HOST = "127.0.0.1:4242"
TOKEN = "a-token-of-the-tests"
#: Where the world of the moving scan lies, seen from that of the fixed one, mm.
SHIFT = np.array([6.0, -3.0, 4.0])


@dataclass
class Client:
    """Asks as a program does, with the token; `bare` leaves out what is not given."""

    app: Any
    loop: asyncio.AbstractEventLoop

    def run(self, asked: Coroutine[Any, Any, Any]) -> Any:
        """Wait for what the thread of the loop does: in this one a browser may have a loop of its own."""
        return asyncio.run_coroutine_threadsafe(asked, self.loop).result(timeout=120)

    def ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        told = {"authorization": f"Bearer {TOKEN}"} if headers is None else headers
        return self.run(self._ask(method, path, told, more))

    def api(self, method: str, path: str, **more: Any) -> Any:
        """The content of an answer that has to be good."""
        answer = self.ask(method, f"/api/v1/{path}", **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def _ask(self, method: str, path: str, headers: dict[str, str], more: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", timeout=60) as client:
            return await client.request(method, path, headers=headers, **more)

    def together(self, *asked: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        """Many requests at the same time."""
        told = {"authorization": f"Bearer {TOKEN}"}

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*(self._ask(method, path, told, more) for method, path, more in asked))

        return self.run(all_of_them())


@contextmanager
def client_of(app: Any) -> Iterator[Client]:
    """A client with a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield Client(app, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
