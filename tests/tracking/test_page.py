"""Pictures and curves of the report against what they show."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib import image

from drawn_lesions import GRID, balls, found
from meddift.geometry import Grid
from meddift.tracking.chart import HEIGHT, Curve, draw
from meddift.tracking.crops import PIXELS, best_plane, crop
from meddift.volume import Volume


def pixels(address: str) -> np.ndarray:
    head, content = address.split(",", 1)
    assert head == "data:image/png;base64"
    return image.imread(io.BytesIO(base64.b64decode(content)), format="png")[..., 0]


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAL"])
def test_pictures_show_the_right_on_the_left_and_the_front_on_top(orientation: str) -> None:
    data = np.full(GRID.shape, -1000, np.int16)
    places = GRID.voxel_centers()
    middle = np.array([80.0, 80.0, 60.0])
    data[(np.abs(places[..., 0] - middle[0]) < 60) & (np.abs(places[..., 1] - middle[1]) < 60)] = 40
    data[np.linalg.norm(places - middle - [16.0, 0, 0], axis=-1) < 4] = 300  # on the right of the patient
    data[np.linalg.norm(places - middle - [0, 12.0, 0], axis=-1) < 4] = -160
    scan = Volume(data, GRID).reoriented(orientation)
    picture = crop(scan, middle, axis=2, width_mm=60.0, parts=[], mask=None)
    grey = pixels(picture.png)
    assert (picture.plane, picture.window.split(",")[0]) == ("axial", "soft tissue")
    bright = np.argwhere(grey > 0.95).mean(axis=0)
    dark = np.argwhere(grey < 0.1).mean(axis=0)
    # World +x is the patient's right: it is on the left of the picture; +y is the front: it is on top.
    scale = PIXELS / 60.0
    np.testing.assert_allclose(bright, [(PIXELS - 1) / 2, (PIXELS - 1) / 2 - 16 * scale], atol=2.0)
    np.testing.assert_allclose(dark, [(PIXELS - 1) / 2 - 12 * scale, (PIXELS - 1) / 2], atol=2.0)
    assert picture.cross == ((PIXELS - 1) / 2, (PIXELS - 1) / 2)


def test_the_outline_runs_around_the_lesion() -> None:
    center = np.array([80.0, 80.0, 60.0])
    lesions = found((1, center, 10.0), (2, (40, 40, 40), 5.0))
    scan = Volume(np.full(GRID.shape, 40, np.int16), GRID)
    picture = crop(scan, center, axis=2, width_mm=56.0, parts=[lesions.items[0]], mask=lesions.grid)
    numbers = np.array(re.findall(r"[-\d.]+ [-\d.]+", picture.outline)[0].split(), float)
    points = np.array([pair.split() for pair in re.findall(r"[\d.]+ [\d.]+", picture.outline)], float)
    radius = np.linalg.norm(points - (PIXELS - 1) / 2, axis=1) * 56.0 / PIXELS
    assert len(numbers) == 2
    assert radius.min() > 10.0 - 2.9
    assert radius.max() < 10.0 + 2.9
    assert radius.mean() == pytest.approx(10.0, abs=0.7)
    assert picture.cross is None


def test_a_scan_is_cut_as_it_was_acquired() -> None:
    assert best_plane(Grid((9, 9, 9), np.diag([0.7, 0.7, 5.0, 1.0]))) == 2
    assert best_plane(Grid((9, 9, 9), np.diag([0.7, 4.0, 0.7, 1.0]))) == 1
    assert best_plane(balls((1, (40, 40, 40), 5)).grid) == 2


def test_curves_are_drawn_to_scale_and_their_names_do_not_overlap() -> None:
    curves = [Curve(str(n), ((0.0, 10.0 + n), (30.0, 20.0), (90.0, 20.0))) for n in range(12)]
    chart = draw(curves, [(0.0, "T0"), (30.0, "T1"), (90.0, "T2")])
    assert chart is not None
    heights = dict(chart.ticks), {number: place for place, number in chart.ticks}
    zero, ten = heights[1]["0"], heights[1]["10"]
    for n, curve in enumerate(chart.curves):
        (x0, y0, words), (x1, _, _), (x2, _, _) = curve.dots
        assert (x1 - x0) * 3 == pytest.approx(x2 - x0, abs=0.5)
        assert (zero - y0) / (zero - ten) * 10 == pytest.approx(10.0 + n, abs=0.05)
        assert words == f"lesion {n}: {10 + n:.1f} mm"
    labels = sorted(curve.label[1] for curve in chart.curves)
    assert np.diff(labels).min() >= 11.9
    assert labels[-1] <= HEIGHT
    # No two curves look alike.
    assert len({(curve.colour, curve.dash) for curve in chart.curves}) == 12


def test_nothing_to_draw_is_no_chart() -> None:
    assert draw([], [(0.0, "a"), (1.0, "b")]) is None
