"""Where things are drawn: what a pixel shows is what lies at the place that a click there says."""

from __future__ import annotations

import numpy as np
import pytest
from opened_page import opened

from meddift.viewer.opening import pair_session
from meddift.viewer.server import Server
from texture import lattice, scan

TURN = np.linalg.qr(np.array([[1.0, 0.25, -0.1], [-0.2, 1.0, 0.3], [0.15, -0.3, 1.0]]))[0]
FLIPS = {
    "oblique": TURN * np.sign(np.diag(TURN)),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "turned": np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
}


@pytest.mark.parametrize("name", list(FLIPS))
def test_what_is_drawn_at_a_pixel_is_what_lies_at_the_place_that_a_click_there_says(
    name: str, browser, matcher, volumes, tmp_path
) -> None:
    volume = scan(lattice((40, 44, 36), spacing=(2.0, 2.0, 2.5), turn=FLIPS[name]))
    session = pair_session(matcher.scan(volume), matcher.scan(volumes[1]), tmp_path / "points")
    with Server(session) as server, opened(browser, server) as page:
        page.page.locator(".scan").first.locator("select").select_option("2")
        window = session.scan("s0").windows[2]
        low, high = window.low, window.high
        drawn, expected = [], []
        for plane in ("axial", "coronal", "sagittal"):
            for right, down in ((0.42, 0.45), (0.58, 0.6)):
                page.page.keyboard.press("Escape")  # no mark of the question before
                picture = page.picture()
                x, y = page.at(0, plane, right, down)
                mm = page.click(0, plane, right, down)
                drawn.append(picture[int(y), int(x)])
                expected.append(np.clip((volume.at(mm[None])[0] - low) / (high - low), 0, 1))
        away = np.abs(np.array(drawn) - np.array(expected))
        # A pixel is some tenths of a voxel, and the crosshair or a letter may be drawn over one place or another.
        assert np.median(away) < 0.02
        assert np.sort(away)[-2] < 0.06
        assert np.corrcoef(drawn, expected)[0, 1] > 0.9
