"""`Guard`: access control of the server by token, host and origin, with limits on size and time of requests.

A page of another origin in the same browser can send requests to 127.0.0.1, and can let its own host name resolve to
127.0.0.1 (DNS rebinding). Therefore the headers Host and, if present, Origin must be those of this server, and every
request must carry the cookie or the token. Tokens are compared in constant time.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: Largest body of a request, bytes.
MOST_BYTES = 4_000_000
#: Longest time in which a body must arrive, s.
MOST_SECONDS = 20.0

#: Content security policy of the page: all content comes from this server. NiiVue keeps its font
#: and lookup tables as `data:` addresses.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors {frames}"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class CutOffError(Exception):
    """The body of a request is too large or arrives too slowly."""


class _Body:
    """Reads the body of a request within the limits on size and time.

    Attributes:
        problem: HTTP status and message if a limit was exceeded; otherwise None.
    """

    def __init__(self, receive: Receive, most_bytes: int, most_seconds: float) -> None:
        self._receive, self._most_bytes, self._most_seconds = receive, most_bytes, most_seconds
        self._received, self._complete = 0, False
        self._ends: float | None = None
        self.problem: tuple[int, str] | None = None

    async def receive(self) -> Message:
        """Receive the next part of the body.

        Raises:
            CutOffError: if a limit is exceeded.
        """
        if self._complete:
            return await self._receive()  # waits until the other side hangs up
        now = asyncio.get_running_loop().time()
        self._ends = now + self._most_seconds if self._ends is None else self._ends
        try:
            message = await asyncio.wait_for(self._receive(), max(self._ends - now, 0.01))
        except TimeoutError:
            self.problem = 408, "the request took too long to arrive"
            raise CutOffError from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._received > self._most_bytes:
                self.problem = 413, f"a request has at most {self._most_bytes} bytes"
                raise CutOffError
        return message


class Guard:
    """Passes permitted requests to an ASGI application and refuses all others.

    Args:
        app: The application.
        token: Secret token, part of the address that is opened.
        hosts: Values `name:port` of the header Host under which the server may be reached.
        framed: Whether pages of this machine, such as notebooks, may show it inside them.
        most_bytes: See `MOST_BYTES`.
        most_seconds: See `MOST_SECONDS`.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str,
        hosts: frozenset[str],
        framed: bool = False,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        self._app, self._token, self._hosts = app, token, hosts
        self._most_bytes, self._most_seconds = most_bytes, most_seconds
        # Cookies do not distinguish ports, so each server needs a cookie name of its own.
        port = next(iter(sorted(hosts))).rpartition(":")[2]
        self._cookie, self._secret = f"meddift-{port}", secrets.token_urlsafe(32)
        frames = "http://localhost:* http://127.0.0.1:*" if framed else "'none'"
        self._policy = _POLICY.format(frames=frames)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets: the connection is closed
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        fresh = self._brings_token(scope)
        refusal = self._refusal(scope, headers, fresh)
        if refusal is not None:
            await _refuse(send, *refusal, headers=self._headers())
            return
        body = _Body(receive, self._most_bytes, self._most_seconds)
        refused = False

        async def answer(message: Message) -> None:
            nonlocal refused
            if refused:
                return
            if message["type"] == "http.response.start":
                if body.problem is not None:
                    # Replaces the answer of the application to a body that was cut off.
                    refused = True
                    await _refuse(send, *body.problem, headers=self._headers())
                    return
                kept = [(n, v) for n, v in message.get("headers", []) if n.decode("latin-1").lower() not in _HEADERS]
                message = {**message, "headers": [*kept, *self._headers(cookie=fresh)]}
            await send(message)

        await self._app(scope, body.receive, answer)

    def _refusal(
        self, scope: MutableMapping[str, Any], headers: dict[str, str], fresh: bool
    ) -> tuple[int, str] | None:
        """HTTP status and message with which a request is refused; None if it is permitted."""
        host = headers.get("host", "")
        if host not in self._hosts:
            return 421, "this server answers under its own address only"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "requests of pages of another origin are not answered"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not fresh:
            return 403, "requests of pages of another site are not answered"
        if not fresh and not self._knows(headers):
            return 401, "open the address that meddift has printed: it holds the token of this server"
        try:
            length = int(headers.get("content-length", "0"))
        except ValueError:
            return 400, "the length of the request is no number"
        if length > self._most_bytes:
            return 413, f"a request has at most {self._most_bytes} bytes"
        return None

    def _brings_token(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a request is for the page and carries the token in its address."""
        if scope["path"] != "/" or scope["method"] not in ("GET", "HEAD"):
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _knows(self, headers: dict[str, str]) -> bool:
        """Whether a request carries the cookie, or the token in the header Authorization."""
        given = headers.get("authorization", "")
        if given.startswith("Bearer ") and secrets.compare_digest(given[7:].encode(), self._token.encode()):
            return True
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie and secrets.compare_digest(value.encode(), self._secret.encode()):
                return True
        return False

    def _headers(self, *, cookie: bool = False) -> list[tuple[bytes, bytes]]:
        """Headers of every answer."""
        told = {**_HEADERS, "content-security-policy": self._policy}
        if cookie:
            told["set-cookie"] = f"{self._cookie}={self._secret}; HttpOnly; SameSite=Strict; Path=/"
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]


async def _refuse(send: Send, status: int, message: str, *, headers: list[tuple[bytes, bytes]]) -> None:
    """Answer with an error, in the form of all errors of the API."""
    body = json.dumps({"error": {"code": "refused", "message": message}}).encode()
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*kind, *headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})
