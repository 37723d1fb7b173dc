"""Attacks: what is not answered, and that nothing else is held up by it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import HOST, TOKEN, Client

from meddift.points import Points
from meddift.viewer.opened import OpenedScan
from meddift.viewer.server import Server
from meddift.viewer.session import Session, private_names

BEARER = {"authorization": f"Bearer {TOKEN}"}
PAGE = resources.files("meddift.viewer").joinpath("page")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"cookie": f"meddift-4242={TOKEN}"}, 401),  # the cookie is another secret than the token
        ({**BEARER, "host": "evil.example:4242"}, 421),
        ({**BEARER, "host": "127.0.0.1"}, 421),
        ({**BEARER, "host": "127.0.0.1:80"}, 421),
        ({**BEARER, "origin": "http://evil.example"}, 403),
        ({**BEARER, "origin": "http://127.0.0.1:9999"}, 403),
        ({**BEARER, "origin": "null"}, 403),
        ({**BEARER, "sec-fetch-site": "cross-site"}, 403),
        ({**BEARER, "sec-fetch-site": "same-site"}, 403),  # another port of this machine
        ({**BEARER, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_who_is_answered(client: Client, headers: dict[str, str], status: int) -> None:
    answer = client.ask("GET", "/api/v1/session", headers=headers)
    assert answer.status_code == status, answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_token_is_changed_for_a_cookie_that_scripts_and_other_sites_do_not_get(client: Client) -> None:
    first = client.ask("GET", f"/?token={TOKEN}", headers={"sec-fetch-site": "cross-site"})
    assert first.status_code == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    name = cookie.split(";")[0]
    assert client.ask("GET", "/api/v1/session", headers={"cookie": name}).status_code == 200
    assert client.ask("GET", "/", headers={"cookie": name}).status_code == 200
    assert client.ask("GET", "/?token=wrong", headers={}).status_code == 401
    # The token opens the page, and nothing else by its address.
    assert client.ask("GET", f"/api/v1/session?token={TOKEN}", headers={}).status_code == 401
    assert client.ask("POST", f"/?token={TOKEN}", headers={}).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/%2e%2e/errors.py",
        "/page//etc/passwd",
        "/page/vendor/../../guard.py",
        "/page/vendor/..\\..\\guard.py",
        "/api/v1/scans/..%2f..%2fetc/volume.nii",
        "/api/v1/scans/s0%00/volume.nii",
        "/api/v1/maps/../../session.nii",
        "/docs",
        "/redoc",
        "/openapi.json",
    ],
)
def test_no_request_leads_to_another_file(client: Client, path: str) -> None:
    answer = client.ask("GET", path)
    assert answer.status_code in (404, 422), answer.text
    assert "import" not in answer.text


def test_two_gigabytes_are_refused_before_they_come(client: Client) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(2000):
            sent += 1_000_000
            yield b"x" * 1_000_000

    declared = {**BEARER, "content-length": "2000000000"}
    assert client.ask("POST", "/api/v1/match", headers=declared, content=endless()).status_code == 413
    assert sent == 0
    # Sent in pieces, without saying how long it will be.
    assert client.ask("POST", "/api/v1/points/import", headers=BEARER, content=endless()).status_code == 413
    assert sent <= 6_000_000


def test_a_slow_request_holds_nobody_up_and_is_given_up(client: Client) -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    async def both() -> tuple[httpx.Response, list[float]]:
        waiting = asyncio.ensure_future(client._ask("POST", "/api/v1/match", BEARER, {"content": slow()}))
        took = []
        for _ in range(5):
            began = asyncio.get_running_loop().time()
            assert (await client._ask("GET", "/api/v1/session", BEARER, {})).status_code == 200
            took.append(asyncio.get_running_loop().time() - began)
        assert not waiting.done()
        return await waiting, took

    answer, took = client.run(both())
    assert answer.status_code == 408
    assert min(took) < 0.5


@pytest.mark.usefixtures("ready")
def test_fifty_clicks_at_once_get_the_answers_that_each_gets_alone(client: Client, session: Session) -> None:
    places = np.random.default_rng(0).uniform(-20, 20, (50, 3)).round(3)
    two = {"fixed": "s0", "moving": "s1"}
    asked = [
        ("POST", "/api/v1/match", {"json": {**two, "points": [place.tolist()], "number": i}})
        for i, place in enumerate(places)
    ]
    answers = client.together(*asked)
    expected = session.pairs.pair("s0", "s1").match(Points(places)).rows()
    for i, (answer, row) in enumerate(zip(answers, expected, strict=True)):
        told = answer.json()
        assert told["number"] == i
        assert told["matches"][0]["verdict"] == row["verdict"]
        if row["moving"] is not None:
            np.testing.assert_allclose(told["matches"][0]["moving"], row["moving"], atol=1e-3)


@pytest.mark.usefixtures("ready")
def test_a_question_that_a_later_one_of_the_same_window_has_overtaken_is_given_up(client: Client) -> None:
    two = {"fixed": "s0", "moving": "s1", "client": "window"}
    asked = [("POST", "/api/v1/match", {"json": {**two, "points": [[0, 0, 0]], "number": i}}) for i in range(12)]
    answers = client.together(*asked)
    codes = [answer.json().get("error", {}).get("code", "answered") for answer in answers]
    assert codes[-1] == "answered"
    assert set(codes) == {"answered", "superseded"}


def test_names_of_files_do_not_reach_the_page(tmp_path: Path) -> None:
    path = tmp_path / "DOE^JANE_1970" / "scan.nii.gz"

    def read() -> None:
        raise AssertionError

    session = Session("pair", [OpenedScan("s0", "Fixed scan", read, private_names(path))])  # type: ignore[arg-type]
    said = session.public(f"{path}: it is damaged; scan.nii.gz cannot be read")
    assert "DOE" not in said
    assert "scan.nii.gz" not in said
    assert said.count("'Fixed scan'") == 2


def test_the_page_asks_nobody_else_and_what_is_vendored_is_what_it_says() -> None:
    told = json.loads(PAGE.joinpath("vendor", "niivue.json").read_text(encoding="utf-8"))
    content = PAGE.joinpath("vendor", "niivue.umd.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    assert "BSD 2-Clause" in PAGE.joinpath("vendor", "niivue.LICENSE.txt").read_text(encoding="utf-8")
    for file in PAGE.iterdir():
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            found = set(re.findall(r"https?://[^\s\"'`<]+", text)) - {"http://www.w3.org/2000/svg"}
            assert not found, file.name
            # The policy forbids scripts and styles in attributes.
            assert not re.search(r"<[^>]+\s(on\w+|style)=", text), file.name


def test_another_session_does_not_get_in_and_the_port_is_free_afterwards(session: Session) -> None:
    with Server(session) as server:
        address = f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{address}/api/v1/session").status_code == 401
        mine = {"authorization": f"Bearer {server.token}"}
        assert httpx.get(f"{address}/api/v1/session", headers=mine, timeout=60).status_code == 200
        assert httpx.get(f"{address}/api/v1/session", headers=BEARER, timeout=60).status_code == 401
        assert (
            httpx.get(f"{address}/api/v1/session", headers={**mine, "host": "evil.example"}, timeout=60).status_code
            == 421
        )
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/api/v1/session")
