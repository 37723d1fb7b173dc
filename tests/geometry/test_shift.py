"""A plane moved by a fraction of a pixel: exact for a slope, filled outside of its faces."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.geometry import shifted


@pytest.mark.parametrize("start", [(0, 0), (2, -1), (0.25, -0.75), (-3.4, 1.5)])
def test_a_slope_is_read_exactly_and_nothing_is_made_up_outside(start) -> None:
    i, j = np.meshgrid(np.arange(9), np.arange(7), indexing="ij")
    moved = shifted(3.0 * i - 2.0 * j, start, shape=(12, 11), fill=-99)
    u, v = np.meshgrid(start[0] + np.arange(12), start[1] + np.arange(11), indexing="ij")
    outside = (u < -0.5) | (u > 8.5) | (v < -0.5) | (v > 6.5)
    assert (moved[outside] == -99).all()
    expected = 3.0 * np.clip(u, 0, 8) - 2.0 * np.clip(v, 0, 6)  # up to its faces a pixel holds its value
    np.testing.assert_allclose(moved[~outside], expected[~outside], atol=1e-5)
