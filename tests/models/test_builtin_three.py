"""The third built-in model finds places in another contrast of a scan, anywhere in it; the second does not."""

from __future__ import annotations

import numpy as np
import pytest

from meddift import Matcher, Volume
from meddift.geometry import Grid
from meddift.models import find_spec, prepare_volume
from meddift.pipeline.landmarks import textured_points
from meddift_lab.synthetic import chest_phantom

SHIFT = np.array([24.0, 0.0, -16.0])


@pytest.fixture(scope="module")
def contrasts():
    """A box of a drawn chest as a scan that is not CT; its brightness turned around, shifted; and places in it."""
    whole = chest_phantom(41, spacing_mm=4.0, noise_std_hu=4.0).volume
    drawn = whole.cropped([(n - 40) // 2 for n in whole.grid.shape], (40, 40, 40), fill=-1000)
    hu = drawn.data.astype(np.float32)
    shown = np.clip((hu + 1000) / 2000, 0, 1)
    bright, dark = (np.where(hu > -950, 900 * v, 0).astype(np.float32) for v in (shown + 0.1, 1.1 - shown))
    moved = drawn.grid.affine.copy()
    moved[:3, 3] += SHIFT
    fixed = Volume(bright, drawn.grid, modality="MR")
    places = textured_points(prepare_volume(drawn, find_spec("builtin")), 60, within=drawn.grid, distance_mm=15.0)
    return fixed, Volume(dark, Grid(drawn.grid.shape, moved), modality="MR"), places


def share_found(model: str, contrasts) -> float:
    fixed, moving, places = contrasts
    matcher = Matcher(
        model, store=False, levels=("up0", "up1", "up2", "up3"), prior="none", refine=False, confidence=False
    )
    found = matcher.pair(fixed, moving).match(places).moving.positions
    return float((np.linalg.norm(found - places - SHIFT, axis=1) < 10).mean())


@pytest.mark.slow
def test_the_third_model_finds_places_in_another_contrast(contrasts):
    assert share_found("builtin", contrasts) > 0.5  # which takes the third model for such scans
    assert share_found("builtin-2", contrasts) < 0.1
