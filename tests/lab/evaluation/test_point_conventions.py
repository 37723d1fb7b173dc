"""TRE agrees with the point transforms of SimpleITK and ANTs, and the known mistakes are caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from meddift.geometry import DisplacementField, Grid
from meddift.io import write_transform
from meddift.points import Points
from meddift_lab import target_errors
from meddift_lab.sets.learn2reg import challenge_tre


@pytest.fixture(scope="module")
def known() -> tuple[DisplacementField, Points, Points]:
    """A smooth known field on a left-handed, oblique grid; points in it; and places some mm beside their images."""
    angle = 0.3
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.75, 1.25, 2.0])
    affine[:3, 3] = [60.0, -40.0, 100.0]
    grid = Grid((24, 30, 26), affine)
    generator = np.random.default_rng(2)
    displacement = np.stack([ndimage.gaussian_filter(generator.normal(size=grid.shape), 4) * 90 for _ in range(3)])
    points = Points(grid.index_to_world(generator.uniform(3, [20, 26, 22], (60, 3))))
    field = DisplacementField(displacement, grid)
    truth = Points(field.apply(points.positions) + generator.normal(scale=2.0, size=(60, 3)))
    assert np.abs(displacement).max() > 5
    return field, points, truth


def flip(positions: np.ndarray) -> np.ndarray:
    """RAS to LPS, written down once more."""
    return positions * [-1.0, -1.0, 1.0]


def test_tre_is_that_of_simpleitk(known: tuple[DisplacementField, Points, Points], tmp_path: Path) -> None:
    field, points, truth = known
    ours = target_errors(Points(field.apply(points.positions)), truth)
    write_transform(field, tmp_path / "field.h5")
    transform = sitk.ReadTransform(str(tmp_path / "field.h5"))
    theirs = [
        np.linalg.norm(np.array(transform.TransformPoint(p.tolist())) - goal)
        for p, goal in zip(flip(points.positions), flip(truth.positions), strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_tre_is_that_of_ants(known: tuple[DisplacementField, Points, Points], tmp_path: Path) -> None:
    ants = pytest.importorskip("ants")
    import pandas as pd

    field, points, truth = known
    ours = target_errors(Points(field.apply(points.positions)), truth)
    write_transform(field, tmp_path / "Warp.nii.gz")
    table = pd.DataFrame(flip(points.positions), columns=["x", "y", "z"])
    moved = ants.apply_transforms_to_points(3, table, [str(tmp_path / "Warp.nii.gz")])[["x", "y", "z"]].to_numpy()
    np.testing.assert_allclose(ours, np.linalg.norm(moved - flip(truth.positions), axis=1), atol=1e-3)


def lungct() -> tuple[np.ndarray, np.ndarray, np.ndarray, Grid]:
    """A field in voxels, points in voxels and where they belong, on the grid of LungCT, cropped."""
    grid = Grid((40, 40, 40), np.diag([1.75, 1.25, 1.75, 1.0]))
    generator = np.random.default_rng(5)
    linear = np.eye(3) + generator.normal(scale=0.05, size=(3, 3))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    displacement = index @ (linear - np.eye(3)).T + [2.0, -1.5, 3.0]
    fixed = generator.uniform(5, 35, (50, 3))
    moving = fixed @ linear.T + [2.0, -1.5, 3.0] + generator.normal(scale=1.0, size=(50, 3))
    return displacement, fixed, moving, grid


def test_tre_is_that_of_the_challenge() -> None:
    # A field that is linear in the index is exact for every interpolation, so both must agree to rounding.
    displacement, fixed, moving, grid = lungct()
    challenge = challenge_tre(displacement, fixed, moving, grid.spacing)
    world = grid.index_to_world(displacement) - grid.index_to_world(np.zeros(3))
    field = DisplacementField(np.moveaxis(world, -1, 0), grid)
    ours = target_errors(
        Points(field.apply(grid.index_to_world(fixed))),
        Points(grid.index_to_world(moving)),
    )
    np.testing.assert_allclose(ours, challenge, atol=1e-3)


def test_voxels_taken_for_mm_would_be_noticed() -> None:
    # The reference code of the paper forgets the spacing: it reads 1.35 to 1.6 times too little on LungCT.
    displacement, fixed, moving, grid = lungct()
    right = challenge_tre(displacement, fixed, moving, grid.spacing).mean()
    wrong = challenge_tre(displacement, fixed, moving, [1.0, 1.0, 1.0]).mean()
    assert 1.35 < right / wrong < 1.7


def test_lps_taken_for_ras_would_be_noticed(known: tuple[DisplacementField, Points, Points]) -> None:
    # Answers in the wrong frame lie where x and y are mirrored: nowhere near.
    field, points, truth = known
    right = target_errors(Points(field.apply(points.positions)), truth)
    wrong = target_errors(Points(flip(field.apply(points.positions))), truth)
    assert np.median(right) < 5
    assert np.median(wrong) > 20


def test_a_field_whose_vectors_are_lps_would_be_noticed(known: tuple[DisplacementField, Points, Points]) -> None:
    # Points in RAS, displacements in LPS: the error is twice the displacement along x and y.
    field, points, _ = known
    mixed = DisplacementField(field.displacement * np.array([-1.0, -1.0, 1.0])[:, None, None, None], field.grid)
    exact = Points(field.apply(points.positions))
    off = target_errors(Points(mixed.apply(points.positions)), exact)
    moved = exact.positions - points.positions
    np.testing.assert_allclose(off, 2 * np.linalg.norm(moved[:, :2], axis=1), atol=1e-9)


def test_the_opposite_direction_would_be_noticed(known: tuple[DisplacementField, Points, Points]) -> None:
    # Images are pulled with the transform that pushes points; whoever turns it round is off by twice the displacement.
    field, points, _ = known
    exact = Points(field.apply(points.positions))
    moved = exact.positions - points.positions
    off = target_errors(Points(points.positions - moved), exact)
    np.testing.assert_allclose(off, 2 * np.linalg.norm(moved, axis=1), atol=1e-9)
