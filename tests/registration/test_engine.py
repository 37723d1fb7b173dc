"""The engine between descriptors and field: candidates are chosen by fit, and what slides may jump."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meddift.errors import NoCorrespondenceError
from meddift.geometry import AffineTransform, Grid
from meddift.registration.compared import ComparedScans
from meddift.registration.engine import FieldWork
from meddift.registration.feature_map import DescribedScan, FeatureMap
from meddift.registration.start import Start
from meddift.volume import Volume

GRID = Grid((48, 48, 48), np.diag([2.0, 2.0, 2.0, 1.0]))
WORLD = GRID.voxel_centers().reshape(-1, 3)
MIDDLE = GRID.center[0]
ALL = Volume(np.ones(GRID.shape, dtype=bool), GRID)
LEFT = Volume((GRID.voxel_centers()[..., 0] < MIDDLE), GRID)
IDENTITY = AffineTransform.identity()


def described(positions: np.ndarray, *, seed: int = 0) -> FeatureMap:
    """Descriptors that are a smooth function of where in the body they are: waves of 15 to 50 mm."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=(3, 24))
    waves = direction / np.linalg.norm(direction, axis=0) * 2 * np.pi / random.uniform(15, 50, 24)
    values = np.sin(positions @ waves + random.uniform(0, 2 * np.pi, 24))
    return FeatureMap(torch.from_numpy(values.reshape(*GRID.shape, 24)).float(), GRID)


def scan(positions: np.ndarray, **more: FeatureMap) -> DescribedScan:
    return DescribedScan({**more, "mind": described(positions)}, GRID)


def shift(z: float) -> AffineTransform:
    matrix = np.eye(4)
    matrix[2, 3] = z
    return AffineTransform(matrix)


def slid() -> DescribedScan:
    """The left half moved up by 7 mm, the right half down by 7 mm: where places of the moving scan come from."""
    return scan(WORLD - np.where(WORLD[:, :1] < MIDDLE, 1.0, -1.0) * np.array([0.0, 0.0, 7.0]))


def points(away_mm: float) -> np.ndarray:
    """Inside, at least 16 mm from all borders, and this far from the plane between the halves."""
    random = np.random.default_rng(1)
    result = random.uniform(16, 78, (300, 3))
    side = np.where(random.uniform(size=300) < 0.5, -1.0, 1.0)
    result[:, 0] = MIDDLE + side * random.uniform(away_mm, 24, 300)
    return result


def quiet(stage: str, share: float) -> None:
    """Nobody listens."""


def test_what_slides_may_jump_and_without_being_told_it_does_not() -> None:
    places = points(2.0)
    truth = places + np.where(places[:, :1] < MIDDLE, 1.0, -1.0) * np.array([0.0, 0.0, 7.0])
    start = [Start("none", IDENTITY, IDENTITY)]
    stages = ("affine", "dense", "refine")

    def errors(sliding: Volume | None) -> np.ndarray:
        work = FieldWork(ComparedScans(scan(WORLD), slid(), ALL, ALL, sliding), quiet)
        return np.linalg.norm(work.fitted(start, stages).apply(places) - truth, axis=1)

    told, untold = errors(LEFT), errors(None)
    assert np.median(told) < 0.5
    assert np.percentile(told, 95) < 0.5 * np.percentile(untold, 95)


def test_of_two_starts_the_one_that_fits_is_kept_whatever_the_order() -> None:
    moving = scan(WORLD - [0.0, 0.0, 30.0])
    right, wrong = Start("right", shift(27.0), shift(27.0)), Start("wrong", shift(-28.0), shift(-28.0))
    for starts in ([right, wrong], [wrong, right]):
        field = FieldWork(ComparedScans(scan(WORLD), moving, ALL, ALL), quiet).fitted(
            starts, ("affine", "dense", "refine")
        )
        places = np.random.default_rng(2).uniform(14, 50, (100, 3))
        assert np.linalg.norm(field.apply(places) - places - [0.0, 0.0, 30.0], axis=1).max() < 0.5
        assert next(iter(field.evidence)).startswith("start by right")
        np.testing.assert_array_equal(field.affine.matrix, right.affine.matrix)


def test_a_network_that_agrees_with_itself_elsewhere_does_not_carry_the_field_away() -> None:
    # Its descriptors say 16 mm along x; those of the hand-made level say 4 mm along z.
    moved = WORLD - [0.0, 0.0, 4.0]
    network = {"up3": described(WORLD, seed=3)}, {"up3": described(WORLD - [16.0, 0.0, 0.0], seed=3)}
    work = FieldWork(ComparedScans(scan(WORLD, **network[0]), scan(moved, **network[1]), ALL, ALL), quiet)
    field = work.fitted([Start("network", IDENTITY, IDENTITY)], ("affine", "dense", "refine"))
    places = points(2.0)
    assert np.linalg.norm(field.apply(places) - places - [0.0, 0.0, 4.0], axis=1).max() < 0.5


def test_descriptors_with_nothing_in_common_are_refused() -> None:
    moving = DescribedScan({"mind": described(WORLD, seed=9)}, GRID)
    noise = torch.from_numpy(np.random.default_rng(4).normal(size=(*GRID.shape, 24))).float()
    noisy = DescribedScan({"mind": FeatureMap(noise, GRID)}, GRID)
    with pytest.raises(NoCorrespondenceError, match="no reliable correspondence"):
        FieldWork(ComparedScans(moving, noisy, ALL, ALL), quiet).fitted(
            [Start("none", IDENTITY, IDENTITY)], ("affine", "dense")
        )


def test_a_sliding_region_without_a_voxel_changes_nothing_elsewhere() -> None:
    start = [Start("none", IDENTITY, IDENTITY)]
    stages = ("affine", "dense", "refine")
    nothing = Volume(np.zeros(GRID.shape, dtype=bool), GRID)
    moving = scan(WORLD - [0.0, 0.0, 4.0])
    fields = [
        FieldWork(ComparedScans(scan(WORLD), moving, ALL, ALL, sliding), quiet).fitted(start, stages)
        for sliding in (nothing, None)
    ]
    places = points(2.0)
    moved = [field.apply(places) for field in fields]
    assert np.isfinite(moved[0]).all()
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-3)
