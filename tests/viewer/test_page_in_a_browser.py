"""The page in a browser: look, click, correct, save, and find it again."""

from __future__ import annotations

import numpy as np
from opened_page import OpenPage
from served import SHIFT

from meddift.io import read_points
from meddift.points import Points


def test_a_click_is_answered_with_the_place_that_the_engine_finds(drawn: OpenPage) -> None:
    asked = drawn.click(0, "axial", 0.45, 0.55)
    drawn.answered()
    match = drawn.server.session.pairs.pair("s0", "s1").match(Points(asked[None]))[0]
    assert np.linalg.norm(drawn.position(1) - match.moving) <= 1.0
    np.testing.assert_allclose(drawn.position(1), asked + SHIFT, atol=1.0)
    told = drawn.text("#answer")
    assert {"ok": "Found", "uncertain": "Uncertain"}[match.verdict] in told
    assert f"{match.similarity:.2f}" in told
    back = drawn.click(1, "coronal", 0.5, 0.5)
    drawn.answered()
    np.testing.assert_allclose(drawn.position(0), back - SHIFT, atol=1.0)


def test_three_clicks_lead_to_saved_points_which_are_there_after_loading_anew(page: OpenPage, tmp_path) -> None:
    asked = page.click(0, "axial", 0.5, 0.45)
    page.answered()
    found = page.position(1)
    page.page.get_by_role("button", name="Accept").click()
    page.wait("document.querySelectorAll('#side tbody tr').length === 1")
    page.page.get_by_role("button", name="Save").click()
    page.wait("document.querySelector('#notices').textContent.includes('moving.mrk.json')")
    np.testing.assert_allclose(read_points(tmp_path / "points" / "moving.mrk.json").positions[0], found, atol=0.06)
    np.testing.assert_allclose(read_points(tmp_path / "points" / "fixed.mrk.json").positions[0], asked, atol=0.06)
    page.page.reload()
    page.ready()
    page.wait("document.querySelectorAll('#side tbody tr').length === 1")
    page.page.locator("#side tbody tr").first.click()
    np.testing.assert_allclose(page.position(1), found, atol=0.06)


def test_a_mark_is_dragged_to_where_it_belongs(drawn: OpenPage) -> None:
    drawn.click(0, "axial", 0.5, 0.5)
    drawn.answered()
    found = drawn.position(1)
    kind = "ok" if "Found" in drawn.text("#answer") else "uncertain"
    start = drawn.mark(1, kind)
    drawn.drag(start, (start[0] + 40, start[1] + 24))
    drawn.wait("document.querySelector('#side tbody tr td:nth-child(4)')?.textContent === 'corrected'")
    tile = drawn.tile(1, "axial")
    grid = drawn.server.session.pairs.scan("s1").encoded.grid
    width, height = (grid.extent[:2]).tolist()
    row = drawn.server.session.sheet.rows[0]
    # Right and down on the screen is to the left and to the back of the patient.
    moved = np.array(row.moving) - found
    np.testing.assert_allclose(moved, [-40 * width / tile["width"], -24 * height / tile["height"], 0], atol=0.7)
    drawn.page.keyboard.press("u")
    drawn.wait("document.querySelectorAll('#side tbody tr').length === 0")


def test_a_drag_is_no_question(drawn: OpenPage) -> None:
    before = len(drawn.asked)
    drawn.drag(drawn.at(0, "axial", 0.4, 0.4), drawn.at(0, "axial", 0.6, 0.6))
    drawn.drag(drawn.at(0, "axial", 0.4, 0.4), drawn.at(0, "axial", 0.6, 0.5), button="right")
    drawn.page.wait_for_timeout(200)
    assert not [url for url in drawn.asked[before:] if url.endswith("/match")]
    assert "-160 to 240" not in drawn.text(".scan >> nth=0")
