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


@pytest.mark.parametrize("names", [("oblique", "flipped"), ("turned", "oblique")])
def test_what_is_drawn_at_a_pixel_is_what_lies_at_the_place_that_a_click_there_says(
    names: tuple[str, str], browser, matcher, tmp_path
) -> None:
    volumes = [scan(lattice((40, 44, 36), spacing=(2.0, 2.0, 2.5), turn=FLIPS[name])) for name in names]
    session = pair_session(*map(matcher.scan, volumes), tmp_path / "points")
    with Server(session) as server, opened(browser, server) as page:
        for number, volume in enumerate(volumes):
            page.page.locator(".scan").nth(number).locator("select").select_option("2")
            window = session.pairs.scan(f"s{number}").windows[2]
            drawn, expected = [], []
            for plane in ("axial", "coronal", "sagittal"):
                for right, down in ((0.42, 0.45), (0.58, 0.6)):
                    page.page.keyboard.press("Escape")  # no mark of the question before
                    picture = page.picture()
                    x, y = page.at(number, plane, right, down)
                    mm = page.click(number, plane, right, down)
                    drawn.append(picture[int(y), int(x)])
                    value = (volume.at(mm[None])[0] - window.low) / (window.high - window.low)
                    expected.append(np.clip(value, 0, 1))
            away = np.abs(np.array(drawn) - np.array(expected))
            # A pixel is some tenths of a voxel, and the crosshair or a letter may be drawn over one place or another.
            assert np.median(away) < 0.02
            assert np.sort(away)[-2] < 0.06
            assert np.corrcoef(drawn, expected)[0, 1] > 0.9
