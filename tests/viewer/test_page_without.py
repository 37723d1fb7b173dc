"""The page where something is missing: no WebGL 2, no answer yet, little room."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
from opened_page import OpenPage, opened
from served import SHIFT

from meddift.viewer.copies import browser_copy
from meddift.viewer.server import Server
from meddift.viewer.session import Session


def test_without_webgl_the_server_draws_and_everything_else_is_the_same(page: OpenPage) -> None:
    assert "does not offer WebGL 2" in page.text("#notices")
    asked = page.click(0, "sagittal", 0.5, 0.45)
    page.answered()
    np.testing.assert_allclose(page.position(1), asked + SHIFT, atol=1.0)
    page.page.wait_for_timeout(500)
    picture = page.picture()
    x, y = page.at(0, "axial", 0.3, 0.3)
    around = picture[int(y) - 40 : int(y) + 40, int(x) - 40 : int(x) + 40]
    assert around.std() > 0.1  # something is drawn
    start = page.mark(1, "ok" if "Found" in page.text("#answer") else "uncertain")
    page.drag(start, (start[0] + 30, start[1]))
    page.wait("document.querySelector('#side tbody tr td:nth-child(4)')?.textContent === 'corrected'")


def test_work_is_cancelled_and_a_question_that_waits_is_answered_once_it_is_begun_again(
    plain_browser, session: Session, monkeypatch
) -> None:
    pair = session.pairs.pair("s0", "s1")
    ready, tries = threading.Event(), []
    real = pair.prepare

    def slow(*, on_progress) -> None:
        tries.append(time.monotonic())
        while not ready.is_set():
            on_progress("computing slowly", 0.3)
            time.sleep(0.02)
        real(on_progress=on_progress)

    monkeypatch.setattr(pair, "prepare", slow)
    with Server(session) as server, opened(plain_browser, server, prepared=False) as page:
        page.wait("document.querySelector('#notices').textContent.includes('computing slowly')")
        asked = page.click(0, "axial", 0.5, 0.5)
        page.wait("document.querySelector('#answer').dataset.state === 'waiting'")
        page.page.get_by_role("button", name="Cancel").click()
        page.wait("document.querySelector('#notices').textContent.includes('was cancelled')")
        assert len(tries) == 1
        ready.set()
        page.page.get_by_role("button", name="Start again").click()
        page.answered()
        np.testing.assert_allclose(page.position(1), asked + SHIFT, atol=1.0)


def test_a_late_answer_is_dropped(page: OpenPage) -> None:
    held = threading.Event()

    def first_waits(route) -> None:
        if not held.is_set():
            held.set()
            late.append(route)
        else:
            route.continue_()

    late: list = []
    page.page.route("**/api/v1/match", first_waits)
    page.click(0, "axial", 0.4, 0.4)
    asked = page.click(0, "axial", 0.55, 0.55)
    page.answered()
    found = page.position(1)
    np.testing.assert_allclose(found, asked + SHIFT, atol=1.0)
    late[0].continue_()
    page.page.wait_for_timeout(700)
    np.testing.assert_allclose(page.position(1), found)


def test_everything_is_reached_by_the_keyboard_and_fits_a_narrow_window(
    plain_browser, session: Session, monkeypatch
) -> None:
    monkeypatch.setattr("meddift.viewer.opened.browser_copy", partial(browser_copy, most_voxels=20_000))
    with Server(session) as server, opened(plain_browser, server, viewport={"width": 390, "height": 844}) as page:
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert "points are looked for in the full scan" in page.text(".scan >> nth=0")  # the browser has a coarser one
        keyboard = page.page.keyboard
        page.page.locator(".stage svg").first.focus()
        before = page.position(0)
        keyboard.press("ArrowRight")  # on the screen: to the patient's left
        keyboard.press("ArrowUp")
        keyboard.press("PageUp")
        np.testing.assert_allclose(page.position(0) - before, [-2.0, 2.0, 2.0], atol=0.05)
        keyboard.press("Enter")
        page.answered()
        keyboard.press("c")  # it is where the other crosshair is
        page.wait("document.querySelectorAll('#side tbody tr').length === 1")
        keyboard.press("n")
        page.wait("document.querySelector('#side tbody tr td:nth-child(4)').textContent === 'no counterpart'")
        keyboard.press("Delete")
        page.wait("document.querySelectorAll('#side tbody tr').length === 0")
        keyboard.press("u")
        page.wait("document.querySelectorAll('#side tbody tr').length === 1")
        keyboard.press("s")
        page.wait("document.querySelector('#notices').textContent.includes('Saved')")
        keyboard.press("?")
        assert page.page.locator("#keys").is_visible()
