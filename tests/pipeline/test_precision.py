"""What the precision of the network does to answers."""

from __future__ import annotations

import numpy as np
import pytest

from meddift import Matcher
from meddift.errors import OptionsError
from meddift.geometry import AffineTransform
from texture import lattice, scan


def test_bfloat16_moves_what_is_found_by_less_than_a_twentieth_of_a_millimetre() -> None:
    grid = lattice((56, 56, 56))
    matrix = np.eye(4)
    matrix[:3, 3] = [3.7, -2.3, 4.9]
    fixed, moving = scan(grid), scan(grid, AffineTransform(matrix))
    places = np.random.default_rng(0).uniform(-30, 30, (40, 3))
    found = {}
    for precision in ("float32", "bfloat16"):
        with Matcher(precision=precision, store=False, modality="ct") as matcher:
            pair = matcher.pair(fixed, moving)
            matches = pair.match(places)
        assert pair.provenance["precision"] == precision
        found[precision] = matches
    sure = found["float32"].ok & found["bfloat16"].ok
    assert sure.sum() >= 20
    away = found["float32"].moving.positions - found["bfloat16"].moving.positions
    assert np.linalg.norm(away[sure], axis=1).max() < 0.05
    # The network did compute otherwise.
    assert (found["float32"].similarity != found["bfloat16"].similarity).any()


def test_the_preset_of_the_paper_stays_in_float32_unless_told_otherwise() -> None:
    assert Matcher(preset="paper", store=False).settings.precision == "float32"
    assert Matcher(preset="paper", precision="bfloat16", store=False).settings.precision == "bfloat16"


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionsError, match="auto, float32 or bfloat16, got 'half'"):
        Matcher(precision="half")
