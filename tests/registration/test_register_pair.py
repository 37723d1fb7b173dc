"""`Pair.register` on small scans with a known deformation, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

import meddift
from meddift.errors import GeometryError, NoCorrespondenceError, OptionsError
from meddift.geometry import AffineTransform, DisplacementField, Grid
from meddift.io import write_transform
from meddift.points import Points
from meddift.registration.carrying import carry_points

SHIFT = np.array([7.0, -5.0, 9.0])
SHAPE = (48, 46, 44)


class Bent:
    """A shift, and a smooth bulge of 6 mm."""

    def __init__(self, center: np.ndarray) -> None:
        self.center = center

    def apply(self, positions: np.ndarray) -> np.ndarray:
        away = np.asarray(positions, dtype=float) - self.center
        bulge = np.exp(-(away**2).sum(axis=-1) / (2 * 25.0**2))
        return positions + SHIFT + bulge[..., None] * np.array([0.0, 0.0, 6.0])


def lattice() -> Grid:
    """Oblique and neither RAS nor LPS: index axes run to A, L and S, turned by 10 degrees."""
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[0, -1.0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * 3.0
    affine[:3, 3] = [60, -40, 100]
    return Grid(SHAPE, affine)


@pytest.fixture(scope="module")
def scans() -> tuple[meddift.Volume, meddift.Volume, Bent]:
    grid = lattice()
    large = gaussian_filter(np.random.default_rng(0).normal(size=(80, 80, 80)), 1.7)
    large *= 300 / large.std()
    bent = Bent(grid.center)

    def tissue(world: np.ndarray) -> np.ndarray:
        return map_coordinates(large, ((world - grid.center) / 3.0 + 40).reshape(-1, 3).T, order=1, mode="wrap")

    moving_affine = grid.affine.copy()
    moving_affine[:3, 3] += SHIFT
    moving_grid = Grid(SHAPE, moving_affine)
    # The moving scan shows at T(x) what the fixed one shows at x; T is inverted by iteration.
    world = moving_grid.voxel_centers().reshape(-1, 3)
    start = world - SHIFT
    for _ in range(30):
        start = start - (bent.apply(start) - world)
    fixed = tissue(grid.voxel_centers()).reshape(SHAPE)
    moving = tissue(start).reshape(SHAPE)
    noise = np.random.default_rng(1).normal(0, 15, (2, *SHAPE))
    to_hu = [
        np.clip(data + extra, -900, 900).astype(np.int16) for data, extra in zip((fixed, moving), noise, strict=True)
    ]
    return meddift.Volume(to_hu[0], grid), meddift.Volume(to_hu[1], moving_grid), bent


def matcher(**options: Any) -> meddift.Matcher:
    return meddift.Matcher(levels=("mind",), store=False, **options)


def inner(grid: Grid, count: int = 150) -> np.ndarray:
    return grid.index_to_world(np.random.default_rng(2).uniform(10, 34, (count, 3)))


@pytest.fixture(scope="module")
def registered(scans: tuple[meddift.Volume, meddift.Volume, Bent]) -> Any:
    pair = matcher().pair(scans[0], scans[1])
    return pair, pair.register()


def test_the_deformation_is_found(scans: tuple[meddift.Volume, meddift.Volume, Bent], registered: Any) -> None:
    fixed, _, bent = scans
    _, found = registered
    points = inner(fixed.grid)
    away = np.linalg.norm(found.transform.apply(points) - bent.apply(points), axis=1)
    straight = np.linalg.norm(found.affine.apply(points) - bent.apply(points), axis=1)
    assert away.mean() < 0.4
    assert away.mean() < 0.5 * straight.mean()
    assert np.linalg.norm(found.inverse.apply(bent.apply(points)) - points, axis=1).mean() < 0.5
    assert found.folding == 0
    assert found.supported_share > 0.8


def test_each_stage_is_at_least_as_good_as_the_one_before(
    scans: tuple[meddift.Volume, meddift.Volume, Bent], registered: Any
) -> None:
    fixed, _, bent = scans
    pair, whole = registered
    points = inner(fixed.grid)
    errors = []
    for found in (pair.register(stages=("affine",)), pair.register(stages=("affine", "dense")), whole):
        errors.append(np.linalg.norm(found.transform.apply(points) - bent.apply(points), axis=1).mean())
    assert isinstance(pair.register(stages=("affine",)).transform, AffineTransform)
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.slow
def test_what_cannot_fold_is_as_good(scans: tuple[meddift.Volume, meddift.Volume, Bent], registered: Any) -> None:
    fixed, moving, bent = scans
    pair, _ = registered
    found = pair.register(symmetric=True)
    points = inner(fixed.grid)
    assert np.linalg.norm(found.transform.apply(points) - bent.apply(points), axis=1).mean() < 0.4
    assert found.inverse_residual.median < 0.1
    other = matcher().pair(moving, fixed).register(symmetric=True)
    there_and_back = other.transform.apply(found.transform.apply(points))
    assert np.linalg.norm(there_and_back - points, axis=1).mean() < 0.35
    assert found.provenance["registration"]["symmetric"]


def test_masks_decide_where_scans_are_compared(
    scans: tuple[meddift.Volume, meddift.Volume, Bent], registered: Any
) -> None:
    fixed, moving, bent = scans
    pair, _ = registered
    half = np.zeros(SHAPE, dtype=np.uint8)
    half[:, :, :22] = 1
    found = pair.register(fixed_mask=meddift.Volume(half, fixed.grid))
    inside = inner(fixed.grid)
    z = fixed.grid.world_to_index(inside)[:, 2]
    away = np.linalg.norm(found.transform.apply(inside) - bent.apply(inside), axis=1)
    assert away[z < 20].mean() < 0.5
    assert found.body.data.mean() < 0.6
    # Nothing of the upper half of the moving scan counts: there the transform has no support.
    moving_half = meddift.Volume(half, moving.grid)
    found = pair.register(moving_mask=moving_half)
    at = found.supported.grid.world_to_index(fixed.grid.index_to_world([[24, 23, 38]]))[0].round().astype(int)
    assert not found.supported.data[tuple(at)]
    assert found.supported_share < 0.7


def test_impossible_wishes_are_refused(scans: tuple[meddift.Volume, meddift.Volume, Bent], registered: Any) -> None:
    fixed, moving, _ = scans
    pair, _ = registered
    with pytest.raises(OptionsError, match="in this order"):
        pair.register(stages=("dense", "affine"))
    with pytest.raises(NoCorrespondenceError, match="fixed mask is empty"):
        pair.register(fixed_mask=meddift.Volume(np.zeros(SHAPE), fixed.grid))
    with pytest.raises(GeometryError, match="three axes"):
        pair.register(fixed_mask=meddift.Volume(np.ones((2, *SHAPE)), fixed.grid))
    without = matcher(prior="none").pair(fixed, moving)
    with pytest.raises(OptionsError, match="roughly"):
        without.register()
    assert not without.fixed.is_encoded  # said before anything was computed


def test_noise_against_noise_is_no_registration() -> None:
    grid = Grid((40, 40, 40), np.diag([3.0, 3.0, 3.0, 1.0]))
    generator = np.random.default_rng(0)
    scans = [meddift.Volume(generator.normal(0, 200, grid.shape).astype(np.int16), grid) for _ in range(2)]
    with pytest.raises(NoCorrespondenceError):
        matcher().pair(*scans).register()


def test_carried_points_say_what_is_known(scans: tuple[meddift.Volume, meddift.Volume, Bent], registered: Any) -> None:
    fixed, moving, _ = scans
    _, found = registered
    good = fixed.grid.index_to_world([24, 23, 22])
    edge = fixed.grid.index_to_world([24, 23, 43])
    asked = Points(np.stack([good, good + 900, np.full(3, np.nan), edge]), ("in", "far", "none", "edge"))
    matches = carry_points(found, asked, fixed.grid, moving.grid)
    assert matches.verdict[:3] == ("ok", "outside", "outside")
    assert matches.reason[1] == "the point lies outside the fixed scan"
    assert matches.reason[2] == "the point has no position"
    assert np.isnan(matches.moving.positions[1:3]).all()
    assert matches.inverse_error_mm[0] < 0.5


def test_an_affine_alone_is_never_sure(scans: tuple[meddift.Volume, meddift.Volume, Bent]) -> None:
    fixed, moving, _ = scans
    found = matcher().pair(fixed, moving).register(stages=("affine",))
    asked = Points(fixed.grid.index_to_world([[24, 23, 22]]), ("in",))
    matches = carry_points(found, asked, fixed.grid, moving.grid)
    assert matches.verdict == ("uncertain",)
    assert "affine" in matches.reason[0]


@pytest.mark.parametrize("prior", ["affine", "file"])
def test_a_rigid_motion_is_found_and_read_by_simpleitk(
    scans: tuple[meddift.Volume, meddift.Volume, Bent], tmp_path: Path, prior: str
) -> None:
    fixed, _, _ = scans
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(np.radians([6, -4, 9])).as_matrix()
    motion[:3, 3] = [12.0, -7.0, 20.0]
    noise = np.random.default_rng(5).normal(0, 15, SHAPE)
    moving = meddift.Volume((fixed.data + noise).astype(np.int16), Grid(SHAPE, motion @ fixed.grid.affine))
    if prior == "file":  # a prior that stretches as well: only its rotation and shift are kept
        write_transform(AffineTransform(motion @ np.diag([1.02, 1.02, 1.02, 1])), tmp_path / "start.tfm")
    found = matcher(prior=prior if prior == "affine" else tmp_path / "start.tfm").pair(fixed, moving)
    result = found.register(stages="rigid")
    linear = result.transform.matrix[:3, :3]
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-9)
    points = inner(fixed.grid)
    truth = points @ motion[:3, :3].T + motion[:3, 3]
    if prior == "affine":
        assert np.linalg.norm(result.transform.apply(points) - truth, axis=1).max() < 1.0
    else:
        np.testing.assert_allclose(linear, motion[:3, :3], atol=1e-9)
    result.save(tmp_path / "rigid.tfm")
    lps = np.array([-1.0, -1.0, 1.0])
    read = sitk.ReadTransform(str(tmp_path / "rigid.tfm"))
    theirs = np.array([read.TransformPoint((point * lps).tolist()) for point in points]) * lps
    np.testing.assert_allclose(theirs, result.transform.apply(points), atol=1e-6)
    np.testing.assert_allclose(result.inverse.apply(theirs), points, atol=1e-6)


def test_a_given_transform_is_a_start(scans: tuple[meddift.Volume, meddift.Volume, Bent]) -> None:
    fixed, moving, bent = scans
    start = DisplacementField(np.broadcast_to(SHIFT[:, None, None, None], (3, *SHAPE)).astype(np.float32), fixed.grid)
    found = matcher(prior=start).pair(fixed, moving).register()
    points = inner(fixed.grid)
    assert np.linalg.norm(found.transform.apply(points) - bent.apply(points), axis=1).mean() < 0.4
    assert np.allclose(found.affine.apply(points) - points, SHIFT, atol=1e-3)
