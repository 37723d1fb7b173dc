"""The page in a browser, as a person sees it: what stands on it, and where things are drawn."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from meddift.viewer.server import Server

SECONDS = 90


@dataclass
class OpenPage:
    """A page, and what it has asked for and complained about."""

    page: Any
    server: Server
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def wait(self, script: str) -> None:
        """Look until something is so; the page's policy forbids the way in which Playwright would wait."""
        until = time.monotonic() + SECONDS
        while not self.page.evaluate(script):
            assert time.monotonic() < until, f"never came true: {script}; the page says {self.text('body')!r}"
            self.page.wait_for_timeout(20)

    def ready(self, *, prepared: bool = True) -> None:
        """Both scans are drawn, by the browser if it can, and, if wanted, both directions are ready."""
        self.wait("document.body.dataset.ready === 'yes'")
        self.wait("[...document.querySelectorAll('.scan')].every((scan) => scan.dataset.drawn !== 'for now')")
        for about in ("s0>s1", "s1>s0") if prepared else ():
            self.server.session.pairs.prepare(*about.split(">")).result.result(timeout=SECONDS)

    def stage(self, number: int) -> Any:
        return self.page.locator(".stage").nth(number)

    def tile(self, number: int, plane: str) -> dict[str, float]:
        """Where a plane of a scan is drawn, in pixels of the page."""
        script = """([number, plane]) => {
            const stage = document.querySelectorAll('.stage')[number], frame = stage.getBoundingClientRect();
            const name = [...stage.querySelectorAll('.plane-name')].find((text) => text.textContent === plane);
            const inner = [...stage.querySelectorAll('svg > rect.frame')].find((r) => {
                const x = Number(name.getAttribute('x')) - 6, y = Number(name.getAttribute('y')) - 14;
                return Math.abs(r.x.baseVal.value - x) < 1 && Math.abs(r.y.baseVal.value - y) < 1;
            });
            const {x, y, width, height} = inner;
            return {x: frame.x + x.baseVal.value, y: frame.y + y.baseVal.value,
                    width: width.baseVal.value, height: height.baseVal.value};
        }"""
        return self.page.evaluate(script, [number, plane])

    def position(self, number: int) -> np.ndarray:
        """Where the crosshair of a scan is, as the page says."""
        inputs = self.page.locator(".scan").nth(number).locator("input[type=number]")
        return np.array([float(inputs.nth(i).input_value()) for i in range(3)])

    def at(self, number: int, plane: str, right: float, down: float) -> tuple[float, float]:
        """A pixel of the page, by shares of a plane."""
        tile = self.tile(number, plane)
        return tile["x"] + right * tile["width"], tile["y"] + down * tile["height"]

    def click(self, number: int, plane: str, right: float, down: float) -> np.ndarray:
        """Click in a plane; where the page says that this was."""
        self.page.mouse.click(*self.at(number, plane, right, down))
        return self.position(number)

    def answered(self) -> None:
        self.wait("document.querySelector('#answer').dataset.state === 'answered'")

    def drag(self, start: tuple[float, float], stop: tuple[float, float], *, button: str = "left") -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down(button=button)
        for share in (0.3, 0.7, 1.0):
            mouse.move(*(a + share * (b - a) for a, b in zip(start, stop, strict=True)))
        mouse.up(button=button)

    def mark(self, number: int, kind: str) -> tuple[float, float]:
        """Where the first mark of a kind is drawn on a scan, in pixels of the page."""
        script = """([number, kind]) => {
            const box = document.querySelectorAll('.stage')[number].querySelector(`.mark.${kind} .line`);
            const {x, y, width, height} = box.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }"""
        x, y = self.page.evaluate(script, [number, kind])
        return x, y

    def picture(self) -> np.ndarray:
        """(rows, columns) grey values 0 to 1 of the whole page."""
        import matplotlib.image

        picture = matplotlib.image.imread(io.BytesIO(self.page.screenshot()))
        return picture[..., :3].mean(axis=-1)

    def text(self, selector: str) -> str:
        return re.sub(r"\s+", " ", self.page.locator(selector).inner_text())


@contextmanager
def opened(browser: Any, server: Server, *, prepared: bool = True, **more: Any) -> Iterator[OpenPage]:
    """Open the page, and see at the end that it has asked nobody else, and that nothing has failed.

    Args:
        browser: The browser.
        server: Already serving.
        prepared: Whether to wait until points of the pair can be asked.
        more: For the browser: viewport, color_scheme, ...
    """
    context = browser.new_context(**{"viewport": {"width": 1000, "height": 680}, **more})
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    made = OpenPage(page, server)
    page.on("request", lambda request: made.asked.append(request.url))
    page.on("pageerror", lambda error: made.wrong.append(str(error)))
    page.on("console", lambda said: made.wrong.append(said.text) if _is_wrong(said) else None)
    try:
        page.goto(server.address)
        made.ready(prepared=prepared)
        yield made
        elsewhere = [url for url in made.asked if urlsplit(url).scheme not in ("data", "blob")]
        assert {urlsplit(url).hostname for url in elsewhere} == {"127.0.0.1"}
        assert not made.wrong
    finally:
        context.close()


def _is_wrong(said: Any) -> bool:
    """Whether a line of the console tells of an error; answers such as 409 are part of the way things go."""
    return said.type == "error" and "the server responded with a status of 409" not in said.text
