"""The viewer in headless Chromium: until both scans are shown, and until the browser draws them by itself; clicks."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from meddift import Matcher
from meddift.system.memory import resident_peak_bytes
from meddift.viewer.opening import pair_session
from meddift.viewer.server import Server
from meddift_lab.synthetic import phantom_pair

#: Read and changed in the page as a person would see it; times are those of the page's own clock.
_WAIT = """(wanted) => new Promise((done) => {
  const look = () => (eval0(wanted) ? done(performance.now()) : requestAnimationFrame(look));
  const eval0 = (name) => ({
    shown: () => document.body.dataset.ready === 'yes',
    fluent: () => [...document.querySelectorAll('.scan')].every((scan) => scan.dataset.drawn === 'browser'),
    answered: () => document.querySelector('#answer').dataset.state === 'answered',
    mapped: () => Boolean(document.body.dataset.map),
  })[name]();
  look();
})"""
_CLICK = """([x, y]) => {
  const svg = document.querySelector('.stage svg'), frame = svg.getBoundingClientRect();
  const at = {clientX: frame.x + x * frame.width, clientY: frame.y + y * frame.height, button: 0, pointerId: 1,
              bubbles: true, isPrimary: true, pointerType: 'mouse'};
  svg.setPointerCapture = () => {};
  const began = performance.now();
  svg.dispatchEvent(new PointerEvent('pointerdown', at));
  svg.dispatchEvent(new PointerEvent('pointerup', at));
  return began;
}"""


def page(told: dict[str, Any]) -> dict[str, Any]:
    """A drawn pair whose features and field lie in the store; medians over the clicks."""
    browser = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if browser is None:
        return {"missing": "apt-get install chromium"}
    from playwright.sync_api import sync_playwright

    made = phantom_pair(1, crop_mm=0.0, thickness_mm=2.0)
    scans = []
    for scan in (made.fixed, made.moving):
        start = [(n - m) // 2 for n, m in zip(scan.grid.shape, told["shape"], strict=True)]
        scans.append(scan.cropped(start, told["shape"], fill=-1000))
    with tempfile.TemporaryDirectory() as name, sync_playwright() as play:
        folder = Path(name)
        first = Matcher(store=folder / "store")
        began = time.perf_counter()
        first.pair(*scans).prepare()
        cold = time.perf_counter() - began
        matcher = Matcher(store=folder / "store")
        session = pair_session(matcher.scan(scans[0]), matcher.scan(scans[1]), folder / "points")
        chromium = play.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-gpu-watchdog"]
        )
        with Server(session) as server:
            shown_page = chromium.new_page(viewport={"width": 1440, "height": 900})
            began = time.perf_counter()
            shown_page.goto(server.address)
            shown_page.evaluate(_WAIT, "shown")
            shown = time.perf_counter() - began
            session.pairs.prepare("s0", "s1").result.result()
            ready = time.perf_counter() - began
            shown_page.evaluate(_WAIT, "fluent")
            fluent = time.perf_counter() - began
            # The way back is prepared behind it; clicks are timed when the processor is free.
            session.pairs.prepare("s1", "s0").result.result()
            places = np.random.default_rng(0).uniform([0.35, 0.18], [0.65, 0.42], (told["clicks"] + 2, 2))
            answers = [_times(shown_page, place, "answered") for place in places][2:]
            shown_page.locator("#map").check()
            maps = [_times(shown_page, place, "mapped") for place in places][2:]
        chromium.close()
    return {
        "seconds": statistics.median(answers),
        "shown_seconds": shown,
        "ready_seconds": ready,
        "fluent_seconds": fluent,
        "cold_seconds": cold,
        "map_seconds": statistics.median(maps),
        "slowest_seconds": max(answers),
        "slowest_map_seconds": max(maps),
        "clicks": told["clicks"],
        "peak_bytes": resident_peak_bytes(),
    }


def _times(shown_page: Any, place: np.ndarray, until: str) -> float:
    """Seconds from a click until something is seen."""
    shown_page.keyboard.press("Escape")
    began = shown_page.evaluate(_CLICK, place.tolist())
    return float(shown_page.evaluate(_WAIT, until) - began) / 1000
