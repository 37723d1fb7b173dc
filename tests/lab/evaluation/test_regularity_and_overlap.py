"""Jacobians against closed forms and finite differences in mm, the challenge's arithmetic, Dice and HD95 by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from meddift.errors import GeometryError
from meddift.geometry import DisplacementField, Grid
from meddift.registration.jacobian import jacobian_determinant
from meddift.volume import Volume
from meddift_lab.metrics.overlap import measure_overlap
from meddift_lab.metrics.regularity import measure_regularity


def oblique_grid(shape: tuple[int, int, int] = (14, 12, 11)) -> Grid:
    """A left-handed, rotated grid of unequal voxels."""
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0, 1.5, 3.0])
    affine[:3, 3] = [30.0, -50.0, 12.0]
    return Grid(shape, affine)


def field_on(grid: Grid, displacement: np.ndarray) -> DisplacementField:
    return DisplacementField(np.moveaxis(displacement, -1, 0), grid)


def test_the_determinant_of_an_affine_is_its_determinant() -> None:
    grid = oblique_grid()
    linear = np.array([[1.2, 0.1, 0.0], [-0.05, 0.9, 0.2], [0.1, 0.0, 1.1]])
    centers = grid.voxel_centers()
    determinants = jacobian_determinant(field_on(grid, centers @ (linear - np.eye(3)).T + [5.0, -3.0, 40.0])).data
    assert determinants.shape == grid.shape
    np.testing.assert_allclose(determinants, np.linalg.det(linear), rtol=1e-9)


def test_smooth_fields_have_the_determinant_of_their_formula() -> None:
    # d_x = a sin(x / s), d_z = b z^2: det = (1 + a / s cos(x / s)) (1 + 2 b z), on a grid fine enough for both.
    grid = Grid((60, 8, 40), np.diag([0.5, 0.5, 0.5, 1.0]))
    x, _, z = np.moveaxis(grid.voxel_centers(), -1, 0)
    displacement = np.stack([3.0 * np.sin(x / 9), 0 * x, 0.01 * z**2], axis=-1)
    exact = (1 + 3 / 9 * np.cos(x / 9)) * (1 + 0.02 * z)
    found = jacobian_determinant(field_on(grid, displacement)).data[1:-1, :, 1:-1]
    np.testing.assert_allclose(found, exact[1:-1, :, 1:-1], atol=1e-3)


def test_the_lattice_of_unequal_voxels_does_not_matter() -> None:
    # The same field in mm has the same determinants on grids of other spacing: a mistake of units would show.
    linear = np.diag([1.0, 1.0, 1.5])
    for spacing in ([1.0, 1.0, 1.0], [1.0, 1.0, 4.0], [3.0, 1.0, 0.5]):
        grid = Grid((8, 8, 8), np.diag([*spacing, 1.0]))
        found = jacobian_determinant(field_on(grid, grid.voxel_centers() @ (linear - np.eye(3)).T))
        np.testing.assert_allclose(found.data, 1.5)


def challenge_sdlogj(displacement: np.ndarray, mask: np.ndarray | None) -> float:
    """Learn2Reg's arithmetic, written down from its description: voxels, kernel (-0.5, 0, 0.5), det + 3, crop 2."""
    jacobian = np.empty((3, 3, *displacement.shape[1:]))
    for component in range(3):
        for axis in range(3):
            kernel = np.array([-0.5, 0, 0.5])
            jacobian[component, axis] = ndimage.correlate1d(
                displacement[component], kernel, axis=axis, mode="constant"
            )
    jacobian += np.eye(3)[..., None, None, None]
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))[2:-2, 2:-2, 2:-2]
    logarithm = np.log((determinant + 3).clip(1e-9, 1e9))
    return float(logarithm.std() if mask is None else logarithm[mask[2:-2, 2:-2, 2:-2]].std())


@pytest.mark.parametrize("masked", [False, True])
def test_the_challenge_gets_the_same_number(masked: bool) -> None:
    grid = oblique_grid((16, 15, 14))
    generator = np.random.default_rng(1)
    voxels = np.stack([ndimage.gaussian_filter(generator.normal(size=grid.shape), 2) * 12 for _ in range(3)])
    world = grid.index_to_world(np.moveaxis(voxels, 0, -1)) - grid.index_to_world(np.zeros(3))
    mask = generator.random(grid.shape) < 0.5 if masked else None
    found = measure_regularity(field_on(grid, world), mask=None if mask is None else Volume(mask, grid))
    assert found.sdlogj_plus3 == pytest.approx(challenge_sdlogj(voxels, mask), rel=1e-6)
    # Leaving out the + 3 gives another, much larger number: the two must never stand in one column.
    assert found.sdlogj > 2 * found.sdlogj_plus3


def test_folding_is_counted() -> None:
    # Half of the grid is turned inside out along z.
    grid = Grid((8, 8, 40), np.eye(4))
    z = grid.voxel_centers()[..., 2]
    displacement = np.zeros((*grid.shape, 3))
    displacement[..., 2] = np.where(z < 20, 0.0, -2.0 * (z - 20))
    found = measure_regularity(field_on(grid, displacement))
    # Voxels 2 to 37 count; from 20 on the central difference is 1 - 1 or 1 - 2, at most zero: 18 of 36.
    assert found.folding == pytest.approx(18 / 36)
    assert found.mask == "the whole scan"
    identity = measure_regularity(field_on(grid, np.zeros((*grid.shape, 3))))
    assert (identity.sdlogj, identity.sdlogj_plus3, identity.folding) == (0, 0, 0)


def test_masks_that_do_not_fit_are_refused() -> None:
    grid = oblique_grid()
    field = field_on(grid, np.zeros((*grid.shape, 3)))
    with pytest.raises(GeometryError, match="mask lies on"):
        measure_regularity(field, mask=Volume(np.ones((3, 3, 3), bool), Grid((3, 3, 3), np.eye(4))))
    with pytest.raises(GeometryError, match="leaves no voxel"):
        measure_regularity(field, mask=Volume(np.zeros(grid.shape, bool), grid))
    tiny = Grid((4, 8, 8), np.eye(4))
    with pytest.raises(GeometryError, match="more than 4 voxels"):
        measure_regularity(field_on(tiny, np.zeros((*tiny.shape, 3))))


def test_overlap_of_two_boxes_worked_by_hand() -> None:
    grid = Grid((12, 12, 12), np.diag([1.0, 1.0, 2.5, 1.0]))
    fixed, moving = np.zeros(grid.shape, np.int16), np.zeros(grid.shape, np.int16)
    fixed[2:6, 2:10, 2:10] = 1
    moving[4:8, 2:10, 2:10] = 1
    fixed[9:11, 9:11, 11] = 7
    rows = measure_overlap(Volume(fixed, grid), Volume(moving, grid))
    assert [row.label for row in rows] == [1, 7]
    # Each box has 4 planes, 2 are shared: 2 * 2 / (4 + 4).
    assert rows[0].dice == pytest.approx(0.5)
    # Surfaces are shifted by two voxels of 1 mm.
    assert rows[0].hd95_mm == pytest.approx(2.0)
    assert (rows[1].dice, rows[1].hd95_mm) == (0.0, None)


def test_the_surface_distance_is_in_mm() -> None:
    grid = Grid((10, 10, 16), np.diag([1.0, 1.0, 2.5, 1.0]))
    fixed, moving = np.zeros(grid.shape, np.int16), np.zeros(grid.shape, np.int16)
    fixed[2:8, 2:8, 2:6] = 1
    moving[2:8, 2:8, 5:9] = 1
    (row,) = measure_overlap(Volume(fixed, grid), Volume(moving, grid))
    assert row.hd95_mm == pytest.approx(3 * 2.5)


def test_maps_on_different_lattices_are_refused() -> None:
    data = np.ones((6, 6, 6), np.int16)
    other = Grid(data.shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(GeometryError, match="different grids"):
        measure_overlap(Volume(data, Grid(data.shape, np.eye(4))), Volume(data, other))
