"""Methods: what each answers is what its own transform does, in the right frame and direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_pairs import small_scan

from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.methods import find_methods
from meddift_lab.methods.answer import Answer
from meddift_lab.running.case import Case, CaseData, PointSet, StoredCase, store_case
from meddift_lab.running.runner import RunSettings, run_one
from meddift_lab.synthetic import phantom_pair


def find(name: str, fixed: Volume, moving: Volume, points: np.ndarray, work: Path) -> Answer:
    (method,) = find_methods([name])
    return method.load()(fixed, moving, points, settings=method.settings, work=work)


@pytest.mark.parametrize("name", ["translation", "translation-mass"])
def test_a_moved_lattice_is_followed(name: str, tmp_path: Path) -> None:
    fixed = small_scan(1)
    affine = fixed.grid.affine.copy()
    affine[:3, 3] += [12.0, -7.0, 30.0]
    moving = Volume(fixed.data, Grid(fixed.grid.shape, affine))
    points = fixed.grid.index_to_world(np.random.default_rng(0).uniform(2, 14, (9, 3)))
    answer = find(name, fixed, moving, points, tmp_path)
    np.testing.assert_allclose(answer.positions, points + np.array([12.0, -7.0, 30.0]), atol=1e-6)
    assert answer.field is not None
    np.testing.assert_allclose(answer.field(fixed.grid).displacement[:, 3, 4, 5], [12.0, -7.0, 30.0], atol=1e-4)


def test_not_moving_does_not_move(tmp_path: Path) -> None:
    scan = small_scan(1)
    answer = find("identity", scan, scan, np.ones((3, 3)), tmp_path)
    np.testing.assert_array_equal(answer.positions, np.ones((3, 3)))
    assert answer.field is None


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> StoredCase:
    """A small breathing chest as files."""
    pair = phantom_pair(3, amplitude_mm=20, spacing_mm=4.0, n_points=40, thickness_mm=4.0, crop_mm=0.0)
    assert pair.initial_error_mm > 20
    data = CaseData(pair.fixed, pair.moving, (PointSet("exact", pair.points, pair.truth),))
    folder = tmp_path_factory.mktemp("run")
    (folder / "results").mkdir()
    return store_case(Case("chest", "tests", lambda: data), folder / "cases" / "chest")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "below_mm"),
    [
        # Its affine comes first and is tested along; alone, with the one voxel in a hundred that its settings
        # sample, it stays where it began on a scan as small as this.
        ("simpleitk-demons", 8.0),
        ("elastix-affine", 8.0),
        ("elastix-bspline", 4.0),
        ("ants-syn", 5.0),
        ("convexadam", 4.0),
        ("meddift-register", 4.0),
    ],
)
def test_a_method_finds_points_and_its_field_agrees(name: str, below_mm: float, chest: StoredCase) -> None:
    # A frame, a direction or an order of transforms mistaken would be an error of centimetres.
    (method,) = find_methods([name])
    if method.unavailable():
        pytest.skip(str(method.unavailable()))
    result = run_one(chest, method, chest.fixed.parents[2], settings=RunSettings())
    assert result["status"] == "ok", result["reason"]
    found = np.array(result["positions_ras_mm"], dtype=np.float64)
    assert np.linalg.norm(found - chest.sets[0].moving.positions, axis=1).mean() < below_mm
    # Between voxels of 4 mm a field is linear and a spline is not.
    assert result["field_off_points_mm"] < 0.5
    assert 0 <= result["regularity"]["folding"] < 0.05
    assert result["resources"]["peak_bytes"] > 1e8
