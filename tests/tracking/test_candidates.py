from __future__ import annotations

import numpy as np
import pytest

from drawn_lesions import GRID, SCAN, balls, found
from meddift.errors import GeometryError, ImageError, OptionsError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.tracking.candidates import candidates_of_mask, candidates_of_points, joined, with_kinds
from meddift.volume import Volume

A, B = (40.0, 60.0, 50.0), (90.0, 60.0, 50.0)


def test_numbers_of_a_label_map_are_its_lesions():
    lesions = found((7, A, 6), (2, B, 9))
    assert [item.label for item in lesions.items] == ["2", "7"]
    np.testing.assert_allclose(lesions.items[1].center, A, atol=1e-6)
    assert lesions.items[0].measures.volume_mm3 == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.03)


def test_a_map_with_one_number_has_a_lesion_for_every_component():
    lesions = found((1, A, 6), (1, B, 9))
    assert [item.label for item in lesions.items] == ["1", "2"]
    # With several numbers components are lesions only if that is asked for.
    assert len(found((1, A, 6), (1, B, 9), (2, (60, 100, 60), 5))) == 2
    assert len(found((1, A, 6), (1, B, 9), (2, (60, 100, 60), 5), components=True)) == 3
    # One lesion keeps its number.
    assert found((4, A, 6)).items[0].label == "4"


def test_voxels_that_touch_by_an_edge_belong_together():
    data = np.zeros((20, 20, 20), np.uint8)
    data[5, 5, 5] = data[6, 6, 5] = data[15, 15, 15] = 1
    grid = Grid(data.shape, np.eye(4))
    scan = Volume(np.full(data.shape, 30, np.int16), grid)
    assert sorted(len(i.voxels) for i in candidates_of_mask(Volume(data, grid), scan).items) == [1, 2]


def test_the_order_of_the_axes_makes_no_difference():
    mask = balls((1, A, 6), (2, B, 9))
    for orientation in ("LPS", "SAR", "PIR"):
        turned = mask.reoriented(orientation)
        lesions = candidates_of_mask(turned, SCAN)
        np.testing.assert_allclose([i.center for i in lesions.items], [A, B], atol=1e-6)


def test_a_mask_on_other_voxels_of_the_same_world_is_taken_as_it_lies():
    fine = Grid((60, 60, 60), np.array([[1, 0, 0, 10.0], [0, 1, 0, 30], [0, 0, 1, 20], [0, 0, 0, 1]], float))
    lesions = candidates_of_mask(balls((1, A, 6), (2, (50, 80, 60), 4), grid=fine), SCAN)
    np.testing.assert_allclose(lesions.items[0].center, A, atol=1e-6)


def test_a_mask_of_another_place_or_scan_is_refused():
    mask = balls((1, A, 6), (2, B, 9))
    lost = Volume(mask.data, Grid(GRID.shape, np.eye(4)))  # saved without its geometry
    with pytest.raises(GeometryError, match="states another place"):
        candidates_of_mask(lost, SCAN)
    mirrored = Volume(mask.data, Grid(GRID.shape, np.diag([-2.0, -2.0, 2.0, 1.0])))
    with pytest.raises(GeometryError, match="states another place"):
        candidates_of_mask(mirrored, SCAN)
    far = Grid((30, 30, 30), np.array([[2, 0, 0, 400.0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], float))
    with pytest.raises(GeometryError, match="outside the scan"):
        candidates_of_mask(balls((1, (420, 30, 30), 6), grid=far), SCAN)


def test_a_mirrored_mask_whose_lesions_lie_in_air_is_refused():
    data = np.full(GRID.shape, -1000, np.int16)
    data[:40] = 50  # the patient lies on one side
    scan = Volume(data, GRID)
    mask = balls((1, A, 6), (2, (50, 100, 60), 5))
    assert len(candidates_of_mask(mask, scan)) == 2
    with pytest.raises(ImageError, match="lie in air"):
        candidates_of_mask(Volume(mask.data[::-1].copy(), GRID), scan)
    mostly = balls((1, A, 6), (2, (50, 100, 60), 5), (3, (140, 60, 60), 5))
    assert "lesion 3 of the mask lies in air" in candidates_of_mask(mostly, scan).notes


def test_what_is_no_label_map_is_refused():
    with pytest.raises(ImageError, match="not whole numbers"):
        candidates_of_mask(Volume(np.full(GRID.shape, 0.4, np.float32), GRID), SCAN)
    with pytest.raises(ImageError, match="negative"):
        candidates_of_mask(Volume(np.full(GRID.shape, -3, np.int16), GRID), SCAN)
    whole = balls((1, A, 6), (2, B, 5))
    assert len(candidates_of_mask(Volume(whole.data.astype(np.float32), GRID), SCAN)) == 2


def test_an_empty_map_has_no_lesion_and_says_so():
    lesions = candidates_of_mask(balls(), SCAN, name="late.nii.gz")
    assert len(lesions) == 0
    assert lesions.given
    assert lesions.notes == ("late.nii.gz is empty: no lesion was marked",)


def test_noise_is_refused_with_a_way_out():
    generator = np.random.default_rng(0)
    data = np.zeros(GRID.shape, np.uint8)
    for place in generator.integers(0, 20, (400, 3)) * [4, 4, 3]:
        data[tuple(place)] = 1
    big = np.argwhere(balls((1, A, 8)).data)
    data[tuple(big.T)] = 1
    with pytest.raises(ImageError, match="--minimum-mm3"):
        candidates_of_mask(Volume(data, GRID), SCAN)
    lesions = candidates_of_mask(Volume(data, GRID), SCAN, minimum_mm3=100.0)
    assert len(lesions) == 1
    assert "are below 100 mm3 and were left out" in lesions.notes[0]


def test_points_outside_are_left_out_and_told():
    points = Points(np.array([A, (900.0, 0, 0), (np.nan,) * 3]), ("a", "b", "c"))
    lesions = candidates_of_points(points, SCAN)
    assert [item.label for item in lesions.items] == ["a"]
    assert lesions.items[0].measures is None
    assert len(lesions.notes) == 2
    with pytest.raises(GeometryError, match="none of the points"):
        candidates_of_points(points.subset([1]), SCAN)


def test_masks_and_points_may_be_given_together_under_different_names():
    points = candidates_of_points(Points(np.array([B]), ("node",)), SCAN)
    both = joined([found((1, A, 6)), points])
    assert [item.label for item in both.items] == ["1", "node"]
    with pytest.raises(OptionsError, match="given twice"):
        joined([found((1, A, 6)), candidates_of_points(Points(np.array([B]), ("1",)), SCAN)])


def test_kinds_of_lesions_that_are_not_there_are_refused():
    lesions = with_kinds(found((1, A, 6), (2, B, 5)), {"2": ("target_node", "axilla")}, "targets.csv")
    assert [(i.kind, i.organ) for i in lesions.items] == [("", ""), ("target_node", "axilla")]
    with pytest.raises(OptionsError, match="names lesion 9"):
        with_kinds(lesions, {"9": ("target", "")}, "targets.csv")
