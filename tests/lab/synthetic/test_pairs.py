from __future__ import annotations

import numpy as np
import pytest

from meddift.body import lung_mask
from meddift.errors import NoCorrespondenceError
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import chest_phantom, phantom_pair, scan_pair


@pytest.fixture(scope="module")
def drawn():
    return phantom_pair(2, spacing_mm=5.0, n_points=40)


@pytest.fixture(scope="module")
def scan() -> Volume:
    # As a real scan would come: LPS, oblique.
    phantom = chest_phantom(5, spacing_mm=4.0)
    volume = phantom.volume.reoriented("LPS")
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]
    return Volume(volume.data, Grid(volume.grid.shape, turn @ volume.grid.affine))


def local_agreement(pair) -> float:
    """Mean correlation of small neighbourhoods around corresponding places, resampled by the truth."""
    offsets = np.stack(np.meshgrid(*[np.arange(-12.0, 13.0, 4.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    scores = []
    for point in pair.points.positions:
        around = point + offsets
        moved = pair.transform.apply(around)
        keep = pair.moving.grid.contains(moved) & pair.fixed.grid.contains(around)
        pairwise = pair.fixed.at(around[keep]), pair.moving.at(moved[keep])
        scores.append(np.corrcoef(*pairwise)[0, 1])
    return float(np.mean(scores))


def test_a_drawn_pair_is_one_patient_seen_twice(drawn):
    assert np.array_equal(drawn.transform.apply(drawn.points.positions), drawn.truth.positions)
    assert drawn.points.labels == drawn.truth.labels
    assert len(drawn.points) == 40
    assert drawn.points.labels[0].startswith("lesion")
    assert drawn.in_view.all()
    assert drawn.initial_error_mm > 15
    assert drawn.name == "phantom-2"
    assert local_agreement(drawn) > 0.6
    wrong = type(drawn)(
        drawn.fixed, drawn.moving, _Shifted(drawn.transform, 16.0), drawn.points, drawn.truth, drawn.name, drawn.seed
    )
    assert local_agreement(wrong) < local_agreement(drawn) - 0.3


class _Shifted:
    def __init__(self, transform, mm):
        self.transform, self.mm = transform, mm

    def apply(self, positions):
        return self.transform.apply(positions) + np.array([self.mm, 0, 0])


def test_drawn_pairs_repeat_bit_by_bit(drawn):
    again = phantom_pair(2, spacing_mm=5.0, n_points=40)
    assert again.fixed.digest() == drawn.fixed.digest()
    assert again.moving.digest() == drawn.moving.digest()
    assert np.array_equal(again.truth.positions, drawn.truth.positions)


def test_a_pair_without_motion_is_the_same_place():
    pair = phantom_pair(
        4,
        spacing_mm=5.0,
        amplitude_mm=0,
        table_shift_mm=0,
        rotation_degrees=0,
        local_mm=0,
        thickness_mm=5.0,
        crop_mm=0,
    )
    assert pair.initial_error_mm < 1e-9


@pytest.mark.parametrize("kind", ["vessels", "body", "lattice"])
def test_a_pair_made_from_a_scan(scan, kind):
    pair = scan_pair(scan, 1, n_points=30, kind=kind, thickness_mm=5.0)
    assert pair.fixed.grid == scan.grid
    assert np.array_equal(pair.transform.apply(pair.points.positions), pair.truth.positions)
    assert 15 <= len(pair.points) <= 30
    assert pair.in_view.all()
    assert pair.moving.grid.orientation == "LPS"
    axis = pair.moving.grid.orientation.index("S")
    assert pair.moving.grid.spacing[axis] == pytest.approx(5.0, abs=0.25)
    assert local_agreement(pair) > 0.6


def test_the_lungs_of_both_scans_are_the_lungs_of_one_patient(scan):
    pair = scan_pair(scan, 3, thickness_mm=4.0, crop_mm=0.0)
    inner = pair.points.positions
    assert lung_mask(pair.fixed).at(inner).min() > 0
    assert lung_mask(pair.moving).at(pair.truth.positions).mean() > 0.9
    # Breathing in makes lungs larger.
    size = [lung_mask(v).data.sum() * np.prod(v.grid.spacing) for v in (pair.fixed, pair.moving)]
    assert size[1] > 1.02 * size[0]


def test_scans_without_common_ground_say_so(scan):
    with pytest.raises(NoCorrespondenceError):
        scan_pair(scan, 1, kind="body", n_points=5, crop_mm=5000.0)
