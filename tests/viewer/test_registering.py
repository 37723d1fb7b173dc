"""Registering on the page: progress, an end to it, and the crosshair that follows the transform."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
from opened_page import opened
from served import SHIFT

from meddift.io import read_transform
from meddift.viewer.server import Server
from meddift.viewer.session import Session


def test_the_crosshair_follows_what_was_registered_on_the_page_and_save_writes_it(
    plain_browser, session: Session, tmp_path: Path, monkeypatch
) -> None:
    pair = session.pairs.pair("s0", "s1")
    free, real = threading.Event(), pair.register

    def slow(*, on_progress):
        while not free.is_set():
            on_progress("fitting slowly", 0.4)
            time.sleep(0.02)
        return real(stages=("affine", "dense"), on_progress=on_progress)

    monkeypatch.setattr(pair, "register", slow)
    with Server(session) as server, opened(plain_browser, server) as page:
        button = page.page.get_by_role("button", name="Register")
        button.click()
        page.wait("document.querySelector('#notices').textContent.includes('fitting slowly')")
        page.page.get_by_role("button", name="Cancel").click()
        page.wait("document.querySelector('#notices').textContent.includes('was cancelled')")
        free.set()
        button.click()
        page.wait("document.querySelector('#notices').textContent.includes('Registered')")
        page.page.locator("#follow").check()
        page.page.locator(".stage svg").first.focus()
        page.page.keyboard.press("ArrowRight")
        expected = page.position(0) + SHIFT
        page.wait(f"Math.abs(document.querySelectorAll('.scan input')[3].value - {expected[0]}) < 1.2")
        np.testing.assert_allclose(page.position(1), expected, atol=1.5)
        # The way back is the inverse of it.
        page.page.locator(".stage svg").nth(1).focus()
        before = page.position(1)
        page.page.keyboard.press("ArrowUp")
        page.wait(f"Math.abs(document.querySelectorAll('.scan input')[1].value - {before[1] + 2 - SHIFT[1]}) < 1.2")
        page.page.keyboard.press("s")
        page.wait("document.querySelector('#notices').textContent.includes('fixed-to-moving.h5')")
        page.wait("document.querySelector('#notices').textContent.includes('Saved')")
        place = page.position(0)
    written = read_transform(tmp_path / "points" / "fixed-to-moving.h5")
    np.testing.assert_allclose(written.apply(place[None])[0], place + SHIFT, atol=1.5)
