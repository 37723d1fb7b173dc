"""`Server`: serves one session with access control, by default to this machine only."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from meddift.errors import OptionsError
from meddift.system.atomic import reason_of
from meddift.viewer.app import make_app
from meddift.viewer.guard import Guard
from meddift.viewer.session import Session

LOOPBACK = "127.0.0.1"
_LOOPBACKS = (LOOPBACK, "localhost", "::1")


class _Quiet(uvicorn.Server):
    """A uvicorn server that Ctrl-C stops without an error.

    Args:
        config: Configuration of uvicorn.
        session: Session that is notified of the end, so that open streams of events are closed.
    """

    def __init__(self, config: uvicorn.Config, session: Session) -> None:
        super().__init__(config)
        self._session = session

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop."""
        self._session.ending = True
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal without raising the signal again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Server:
    """An HTTP server for one session; used in a `with` block, or started in a thread of its own.

    Args:
        session: The session.
        host: Address on which it listens. With another address than loopback, other machines can reach it.
        port: Port; 0 takes a free one.
        framed: Whether pages of this machine, such as notebooks, may show it inside them.

    Attributes:
        session: As above.
        token: Secret token, part of the address.
        port: Port on which it listens.

    Raises:
        OptionsError: if the address or port is not available.
    """

    def __init__(self, session: Session, *, host: str = LOOPBACK, port: int = 0, framed: bool = False) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._host = LOOPBACK if host in _LOOPBACKS else host
        names = {LOOPBACK, "localhost"} if host in _LOOPBACKS else {LOOPBACK, "localhost", host}
        self._app = make_app(session)
        guarded = Guard(
            self._app,
            token=self.token,
            hosts=frozenset(f"{name}:{self.port}" for name in names),
            framed=framed,
        )
        config = uvicorn.Config(
            guarded,
            # The application reports its own errors; other messages of uvicorn are about closed connections.
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            lifespan="off",
        )
        self._server = _Quiet(config, session)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Address to open in a browser; it contains the token."""
        return self.address_at(self._host)

    def address_at(self, name: str) -> str:
        """The address with another host name of this machine."""
        return f"http://{name}:{self.port}/?token={self.token}"

    def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Serve in the calling thread until Ctrl-C.

        Args:
            on_ready: Called in another thread once requests are answered.
        """
        if on_ready is not None:
            threading.Thread(target=self._when_started, args=(on_ready,), daemon=True).start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._free()

    def start(self) -> Self:
        """Serve in a thread of its own."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._server.run, kwargs={"sockets": [self._socket]}, name="meddift-server", daemon=True
            )
            self._thread.start()
            self._when_started(lambda: None)
        return self

    def close(self) -> None:
        """Stop serving and cancel background jobs."""
        self.session.ending = True
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._free()

    def __enter__(self) -> Self:
        """Serve."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.close()

    def _when_started(self, ready: Callable[[], None]) -> None:
        wait = threading.Event()
        while not self._server.started and not self._server.should_exit:
            wait.wait(0.02)
        if self._server.started:
            ready()

    def _free(self) -> None:
        self.session.close()
        self._app.state.work.close()
        self._socket.close()


def _listening(host: str, port: int) -> socket.socket:
    """A listening socket, so that no other program can take the port before the server starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise OptionsError(f"cannot listen on {host}, port {port}: {reason}; give another --port") from error
    return made
