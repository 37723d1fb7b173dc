"""A robust affine: what it recovers among wrong matches, and when it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from meddift.errors import NoCorrespondenceError
from meddift.geometry import AffineTransform
from meddift.matching import fit_robust_affine

#: Where scans lie: not around the origin.
CENTER = np.array([20.0, -180.0, 900.0])


def true_affine():
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.05, 0.08, -0.02], [-0.07, 0.94, 0.05], [0.03, -0.04, 1.1]]
    matrix[:3, 3] = [35.0, -12.0, 60.0]
    return AffineTransform(matrix)


@pytest.mark.parametrize("seed", range(5))
def test_six_in_ten_wrong_matches_do_not_matter(seed):
    generator = np.random.default_rng(seed)
    fixed = generator.uniform(-150, 150, (200, 3)) + CENTER
    true = true_affine()
    moving = true.apply(fixed) + generator.normal(0, 1.0, (200, 3))
    wrong = generator.permutation(200)[:120]
    moving[wrong] = true.apply(fixed.mean(0)[None]) + generator.uniform(-170, 170, (120, 3))
    found = fit_robust_affine(fixed, moving, tolerance_mm=10.0, seed=seed)
    probe = generator.uniform(-150, 150, (100, 3)) + CENTER
    # 80 right matches with 1 mm of error each: the fit is far better than one of them.
    assert np.linalg.norm(found.transform.apply(probe) - true.apply(probe), axis=1).max() < 2.0
    right = np.ones(200, dtype=bool)
    right[wrong] = False
    assert found.inliers[right].all()
    off = np.linalg.norm(moving - true.apply(fixed), axis=1)
    assert not found.inliers[off > 15].any()
    again = fit_robust_affine(fixed, moving, tolerance_mm=10.0, seed=seed)
    np.testing.assert_array_equal(found.transform.matrix, again.transform.matrix)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("count", "edge"), [(40, 100.0), (40, 300.0), (200, 300.0), (20, 90.0)])
def test_random_matches_agree_on_nothing(count, edge, seed):
    generator = np.random.default_rng([count, seed])
    fixed, moving = generator.uniform(0, edge, (2, count, 3))
    with pytest.raises(NoCorrespondenceError):
        fit_robust_affine(fixed, moving, tolerance_mm=20.0, seed=seed)


def test_points_in_a_plane_and_too_few_points_are_refused():
    generator = np.random.default_rng(0)
    flat = generator.uniform(-100, 100, (60, 3)) * [1, 1, 0]
    with pytest.raises(NoCorrespondenceError, match="plane"):
        fit_robust_affine(flat, flat)
    with pytest.raises(NoCorrespondenceError, match="too few"):
        fit_robust_affine(flat[:7], flat[:7])


def test_an_implausible_affine_is_not_found():
    """Mirrored or doubled in size: not two scans of one patient."""
    fixed = np.random.default_rng(1).uniform(-100, 100, (80, 3))
    for matrix in (np.diag([-1.0, 1, 1, 1]), np.diag([2.0, 2, 2, 1])):
        with pytest.raises(NoCorrespondenceError):
            fit_robust_affine(fixed, AffineTransform(matrix).apply(fixed), tolerance_mm=10.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_rigid_motion_among_wrong_matches(seed):
    """Half of the matches are wrong, and the rest show a growth of 3 % that no rotation can follow."""
    generator = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(generator.normal(0, 0.3, 3))
    fixed = generator.uniform(-150, 150, (200, 3)) + CENTER
    right = generator.permutation(200)[:100]
    moving = generator.uniform(-170, 170, (200, 3)) + CENTER
    moving[right] = turn.apply(1.03 * (fixed[right] - CENTER)) + np.array([35, -12, 60])
    found = fit_robust_affine(fixed, moving, tolerance_mm=10.0, seed=seed, rigid=True)
    linear = found.transform.matrix[:3, :3]
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(linear) > 0
    # What is found is the least-squares rotation of the matches that it calls right.
    kept = found.inliers
    best, _ = Rotation.align_vectors(moving[kept] - moving[kept].mean(0), fixed[kept] - fixed[kept].mean(0))
    np.testing.assert_allclose(linear, best.as_matrix(), atol=1e-9)
    assert (best * turn.inv()).magnitude() < np.radians(1)
    np.testing.assert_allclose(found.transform.apply(fixed[kept]).mean(0), moving[kept].mean(0), atol=1e-9)


def test_no_rigid_motion_mirrors():
    """The best orthogonal map of mirrored points is a mirror; the best rotation is not."""
    fixed = np.random.default_rng(3).uniform(-100, 100, (50, 3)) + CENTER
    found = AffineTransform.fit_rigid(fixed, fixed * [-1, 1, 1])
    assert np.linalg.det(found.matrix[:3, :3]) == pytest.approx(1)
    best, _ = Rotation.align_vectors((fixed - fixed.mean(0)) * [-1, 1, 1], fixed - fixed.mean(0))
    np.testing.assert_allclose(found.matrix[:3, :3], best.as_matrix(), atol=1e-9)


def test_a_thin_scan_is_no_obstacle():
    """Forty slices of 1 mm with 200 mm across."""
    generator = np.random.default_rng(2)
    fixed = generator.uniform(-0.5, 0.5, (150, 3)) * [200, 200, 40]
    true = true_affine()
    moving = true.apply(fixed)
    moving[:50] = generator.uniform(-150, 150, (50, 3))
    found = fit_robust_affine(fixed, moving, tolerance_mm=10.0)
    assert np.linalg.norm(found.transform.apply(fixed) - true.apply(fixed), axis=1).max() < 1.0
