"""Points beside a surface along which something slides: the mask may be wrong by some mm, the fit tells."""

from __future__ import annotations

import numpy as np
import pytest

from meddift import Matcher
from meddift.geometry import AffineTransform, Grid
from meddift.pipeline.under_field import align_under
from meddift.registration.fitted import Field
from meddift.volume import Volume

#: How far the part with x < BORDER slides along y, mm (whole voxels), and where the mask says that it ends.
SLID, BORDER, SAID = 6.0, 44.0, 35.0


@pytest.fixture(scope="module")
def found():
    """Points of a texture whose left part slides, under a field that knows both motions and too small a mask."""
    from scipy import ndimage

    grid = Grid((44, 44, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    texture = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=grid.shape), 1.2) * 900
    slides = grid.voxel_centers()[..., 0] < BORDER
    moved = np.where(slides, np.roll(texture, int(SLID / 2), axis=1), texture)
    with Matcher(levels=("mind",), store=False, modality="other") as matcher:
        pair = matcher.pair(Volume(texture.astype(np.float32), grid), Volume(moved.astype(np.float32), grid))
        matrix = np.eye(4)
        matrix[1, 3] = SLID
        parts = (AffineTransform.identity(), AffineTransform(matrix))
        mask = Volume(grid.voxel_centers()[..., 0] < SAID, grid)
        field = Field(parts[0], parts, mask, parts[0], None, {}, {})
        y, z = np.meshgrid(np.linspace(24, 60, 5), np.linspace(20, 60, 4))
        points = {x: np.column_stack([np.full(20, x), y.ravel(), z.ravel()]) for x in (20.0, 32.0, 38.0, 50.0, 70.0)}
        return {x: (at, align_under(field, pair.sides, at, confidence=False)) for x, at in points.items()}


@pytest.mark.parametrize("x", [20.0, 32.0, 38.0])
def test_what_slides_is_found_there_also_where_the_mask_leaves_it_out(found, x) -> None:
    positions, located = found[x]
    assert np.median(np.linalg.norm(located.positions - positions - [0, SLID, 0], axis=1)) < 0.5


@pytest.mark.parametrize("x", [50.0, 70.0])
def test_what_does_not_slide_stays(found, x) -> None:
    positions, located = found[x]
    assert np.linalg.norm(located.positions - positions, axis=1).max() < 0.5
