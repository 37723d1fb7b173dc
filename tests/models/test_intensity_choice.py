"""Which intensity rule a scan is given: by what it is said to be, else by its values."""

from __future__ import annotations

import numpy as np
import pytest

from meddift.geometry import Grid
from meddift.models import find_spec, prepare_volume
from meddift.models.intensity import choose_intensity
from meddift.volume import Volume

BUILTIN = find_spec("builtin")
GRID = Grid((48, 48, 48), np.eye(4))


def body_ct() -> np.ndarray:
    """Hounsfield units: air, a shell of fat, muscle, a bone; with noise."""
    away = np.linalg.norm(GRID.voxel_centers() - GRID.center, axis=-1)
    data = np.select([away < 4, away < 18, away < 21], [700.0, 50.0, -100.0], -1000.0)
    return np.rint(data + np.random.default_rng(0).normal(0, 10, data.shape))


def head_mr() -> np.ndarray:
    away = np.linalg.norm(GRID.voxel_centers() - GRID.center, axis=-1)
    data = np.select([away < 10, away < 18, away < 21], [300.0, 500.0, 900.0], 0.0)
    return np.abs(data + np.random.default_rng(0).normal(0, 15, data.shape))


def test_hounsfield_units_get_the_window_of_the_model() -> None:
    choice = choose_intensity(Volume(body_ct().astype(np.int16), GRID), BUILTIN)
    assert choice.rule == BUILTIN.intensity
    assert choice.hounsfield
    assert not choice.warning


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda hu: np.clip((hu + 1000) / 2000, 0, 1).astype(np.float32), "between 0 and 1"),
        (lambda hu: np.clip((hu + 1000) / 2000 * 255, 0, 255).astype(np.uint8), "8 bits"),
        (lambda hu: (hu + 32768).astype(np.uint16), "32768"),
        (lambda hu: np.maximum(hu + 1024, 0).astype(np.uint16), "not Hounsfield units"),
    ],
)
@pytest.mark.parametrize("said", ["CT", ""])
def test_a_ct_that_is_not_in_hounsfield_units_is_named_and_still_fills_the_range(spoil, named: str, said: str) -> None:
    volume = Volume(spoil(body_ct()), GRID, modality=said)
    choice = choose_intensity(volume, BUILTIN)
    assert named in choice.warning
    assert "Hounsfield" in choice.warning
    assert not choice.hounsfield
    shown = prepare_volume(volume, BUILTIN).data
    assert shown.min() == 0.0
    assert shown.max() == 1.0


def test_mr_fills_the_range_of_the_model_from_air_to_the_brightest_tissue_of_the_body() -> None:
    volume = Volume(head_mr().astype(np.uint16), GRID)
    choice = choose_intensity(volume, BUILTIN)
    assert not choice.warning
    assert not choice.hounsfield
    assert choice.modality == "other"
    (low, at_low), (high, at_high) = choice.rule.knots
    assert (at_low, at_high) == (0.0, 1.0)
    assert low < 5
    # The brightest tissue is drawn at 900, with noise of 15: its 97th percentile and not more.
    assert 900 < high < 945


def test_how_much_air_is_in_view_hardly_changes_what_tissue_is_shown_as() -> None:
    wide = Volume(np.pad(head_mr(), 40).astype(np.float32), Grid((128, 128, 128), np.eye(4)))
    narrow = Volume(head_mr().astype(np.float32), GRID)
    highs = [choose_intensity(volume, BUILTIN).rule.knots[1][0] for volume in (wide, narrow)]
    assert highs[0] == pytest.approx(highs[1], rel=0.02)


def test_dicom_and_the_user_are_believed() -> None:
    # An MR whose values could be Hounsfield units, such as a phase image.
    volume = Volume(body_ct().astype(np.int16), GRID, modality="MR")
    choice = choose_intensity(volume, BUILTIN)
    assert choice.modality == "MR"
    assert not choice.hounsfield
    assert "said to be MR" in choice.reason
    for turned in (volume.reoriented("LPS"), volume.cropped((0, 0, 0), (9, 9, 9)), volume.resampled_along_axes(GRID)):
        assert turned.modality == "MR"


def test_a_model_with_percentiles_of_its_own_keeps_them() -> None:
    spec = find_spec("maisi-mr-brain")
    assert choose_intensity(Volume(head_mr(), GRID), spec).rule == spec.intensity
    assert choose_intensity(Volume(body_ct(), GRID, modality="CT"), spec).rule == spec.intensity


def test_a_few_bright_voxels_are_contrast_enough() -> None:
    data = np.zeros(GRID.shape, dtype=np.uint8)
    data[:24, 20, 20] = 9
    assert choose_intensity(Volume(data, GRID), BUILTIN).rule.knots == ((0.0, 0.0), (9.0, 1.0))


def test_the_body_of_an_mr_is_what_was_drawn_and_not_everything() -> None:
    from meddift.body import foreground_of

    away = np.linalg.norm(GRID.voxel_centers() - GRID.center, axis=-1)
    found = foreground_of(Volume(head_mr().astype(np.uint16), GRID).reoriented("LPS"))
    # Smoothing and steps of 2 mm blur the border by some mm.
    assert found.data[away < 18].all()
    assert not found.data[away > 27].any()
