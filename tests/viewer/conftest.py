"""A small pair, its session behind the guard, and one browser for all tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import launched
from opened_page import OpenPage, opened
from served import HOST, SHIFT, TOKEN, Client, client_of

from meddift.geometry import AffineTransform
from meddift.pipeline import Matcher
from meddift.viewer.app import make_app
from meddift.viewer.guard import Guard
from meddift.viewer.opening import pair_session
from meddift.viewer.server import Server
from meddift.viewer.session import Session
from texture import lattice, scan

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def matcher() -> Matcher:
    """The hand-made level alone, near the same place: an answer in a moment, without a network."""
    return Matcher(levels=("mind",), store=False, prior="identity", search_radius_mm=12.0, device="cpu", threads=1)


def shifted(by: np.ndarray) -> AffineTransform:
    matrix = np.eye(4)
    matrix[:3, 3] = -by
    return AffineTransform(matrix)


@pytest.fixture(scope="session")
def volumes():
    """Two scans of one world, the second with everything moved by `SHIFT`."""
    return scan(lattice((46, 44, 42))), scan(lattice((44, 46, 40)), shifted(SHIFT))


@pytest.fixture(scope="session")
def encoded(matcher: Matcher, volumes):
    """Both scans; encoded once, by whichever test needs it first."""
    return matcher.scan(volumes[0]), matcher.scan(volumes[1])


@pytest.fixture
def session(encoded, tmp_path: Path) -> Iterator[Session]:
    made = pair_session(*encoded, tmp_path / "points")
    yield made
    made.close()


@pytest.fixture
def client(session: Session) -> Iterator[Client]:
    """Speaks to the application through the guard, in this process."""
    app = make_app(session)
    with client_of(Guard(app, token=TOKEN, hosts=frozenset({HOST}), most_seconds=2.0)) as made:
        yield made
    app.state.work.close()


@pytest.fixture
def ready(session: Session) -> Session:
    """The session with both directions ready to answer."""
    for fixed, moving in (("s0", "s1"), ("s1", "s0")):
        session.pairs.prepare(fixed, moving).result.result(timeout=60)
    return session


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is; on a machine of one's own tests of the page are left out without it."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("tests of the page need Chromium: apt-get install chromium")
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    return CHROMIUM


@pytest.fixture(scope="session")
def play(chromium: str) -> Iterator[Any]:
    """Playwright, once for all tests: it keeps a loop of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as made:
        yield made


@pytest.fixture(scope="session")
def browser(play: Any, chromium: str) -> Iterator[Any]:
    """One browser for all tests that look at what it draws; WebGL is drawn by the processor."""
    with launched(play, chromium, "--enable-unsafe-swiftshader") as made:
        yield made


@pytest.fixture
def server(session: Session) -> Iterator[Server]:
    with Server(session) as made:
        yield made


@pytest.fixture(scope="session")
def plain_browser(play: Any, chromium: str) -> Iterator[Any]:
    """One without WebGL: the server draws, which takes a fraction of the time on a machine without a graphics card."""
    with launched(play, chromium, "--disable-3d-apis") as made:
        yield made


@pytest.fixture
def page(plain_browser: Any, server: Server) -> Iterator[OpenPage]:
    """The page of the pair, open and drawn, for tests of what is the same however it is drawn."""
    with opened(plain_browser, server) as made:
        yield made


@pytest.fixture(scope="module")
def drawn(browser: Any, encoded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    """The page of the pair as the browser draws it, one for all tests of a module."""
    session = pair_session(*encoded, tmp_path_factory.mktemp("drawn") / "points")
    with Server(session) as server, opened(browser, server) as made:
        yield made
