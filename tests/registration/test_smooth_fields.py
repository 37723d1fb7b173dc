"""Splines, smoothness, Jacobian and inverse against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meddift.geometry import AffineTransform, DisplacementField, Grid
from meddift.geometry.inverse import invert_points
from meddift.matching.cost_volume import CostVolume, window_offsets
from meddift.registration import jacobian_determinant, sampled
from meddift.registration.dense import _best_displacements
from meddift.registration.field import TensorField
from meddift.registration.inverse import InverseResidual, invert
from meddift.registration.jacobian import folding, sd_log_jacobian
from meddift.registration.smoothness import Buffers, Smoother, Smoothness
from meddift.registration.spline import ControlGrid


def oblique(shape: tuple[int, int, int] = (14, 12, 10), spacing: float = 4.0) -> Grid:
    turn, _ = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.2], [0.1, -0.1, 1.0]]))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.linalg.det(turn)) * spacing
    affine[:3, 3] = [-30.0, 12.0, 100.0]
    return Grid(shape, affine)


class Wave:
    """A smooth bijection with a known determinant: each coordinate moves by a sine of another."""

    def apply(self, positions: np.ndarray) -> np.ndarray:
        world = np.asarray(positions, dtype=float)
        return world + np.stack([4 * np.sin(world[:, 0] / 20), 3 * np.sin(world[:, 0] / 15), 0 * world[:, 0] + 7], 1)

    def determinant(self, positions: np.ndarray) -> np.ndarray:
        return 1 + 4 / 20 * np.cos(positions[:, 0] / 20)


def test_a_spline_takes_on_the_values_it_was_fitted_to() -> None:
    dense = oblique()
    lattice = ControlGrid.over(dense, 8.0)
    nodes = lattice.grid.voxel_centers().reshape(-1, 3)
    wanted = (Wave().apply(nodes) - nodes).reshape(*lattice.grid.shape, 3)
    found = lattice.on(dense).expand(lattice.fit(torch.from_numpy(wanted))).numpy().reshape(-1, 3)
    world = dense.voxel_centers().reshape(-1, 3)
    assert np.abs(found - (Wave().apply(world) - world)).max() < 0.15


def test_collect_is_the_transpose_of_expand() -> None:
    lattice = ControlGrid.over(oblique(), 9.0)
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(*lattice.grid.shape, 2, generator=generator)
    b = torch.randn(*lattice.dense.shape, 2, generator=generator)
    assert float((lattice.expand(a) * b).sum()) == pytest.approx(float((a * lattice.collect(b)).sum()), rel=1e-4)


def test_control_points_weigh_one_at_every_voxel() -> None:
    lattice = ControlGrid.over(oblique(), 9.0)
    assert torch.allclose(lattice.expand(torch.ones(*lattice.grid.shape, 1)), torch.ones(1), atol=1e-5)


def test_the_operator_is_the_gradient_of_squared_differences() -> None:
    values = torch.randn(2, 5, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values.requires_grad_()
    second = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3)]
    energy = sum(values.diff(dim=a).diff(dim=b).square().sum() for a, b in second) * 0.7
    energy = energy + 0.3 * sum(values.diff(dim=a).square().sum() for a in (1, 2, 3))
    energy.backward()  # type: ignore[union-attr]
    assert values.grad is not None
    # As a processor does it, and as a graphics card; of several fields as of one.
    for way in (Smoothness.gradient, Smoothness._by_products):
        assert torch.allclose(way(Smoothness(0.7, 0.3), values.detach()), values.grad / 2)
        several = torch.stack([torch.zeros_like(values), values.detach()])
        assert torch.allclose(way(Smoothness(0.7, 0.3), several)[1], values.grad / 2)


def test_memory_that_is_used_again_changes_no_result() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(2, 1, 5, 6, 4, generator=generator)
    first, second = (torch.randn(2, 3, 5, 6, 4, generator=generator) for _ in range(2))
    smoothness, buffers = Smoothness(0.7, 0.3), Buffers()
    for values in (first, second, first):
        assert torch.equal(smoothness.gradient(values, buffers), smoothness.gradient(values))
    again = smoothness.preconditioner(weight)
    for values in (first, second, first):
        assert torch.equal(again(values), smoothness.preconditioner(weight)(values))
    # Fields of another size get memory of their own.
    assert smoothness.gradient(first[..., :3].contiguous(), buffers).shape == (2, 3, 5, 6, 3)


def test_affine_measurements_stay_as_they_are_however_smooth() -> None:
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (6, 7, 5)), indexing="ij"), -1)
    measured = index @ torch.tensor([[0.1, 0.2, 0.0], [0.0, -0.1, 0.3], [0.2, 0.0, 0.1]]) + 1
    measured = measured.movedim(-1, 0).contiguous()
    found = Smoother(torch.ones(6, 7, 5), Smoothness(10.0)).to(measured, iterations=50)
    assert torch.allclose(found, measured, atol=0.02)


def test_gaps_are_filled_from_around() -> None:
    measured = torch.full((3, 8, 8, 8), 2.0)
    weight = torch.ones(8, 8, 8)
    weight[3:6, 3:6, 3:6] = 0
    measured[:, 3:6, 3:6, 3:6] = 50.0
    found = Smoother(weight, Smoothness(0.3)).to(measured, iterations=100)
    assert torch.allclose(found, torch.tensor(2.0), atol=0.02)


def test_fields_smoothed_together_are_those_smoothed_one_by_one() -> None:
    generator = torch.Generator().manual_seed(3)
    measured = torch.randn(3, 7, 6, 5, generator=generator)
    weight = torch.rand(2, 1, 7, 6, 5, generator=generator)
    weight[1] *= 40
    both = Smoother(weight, Smoothness(0.3)).to(measured, iterations=30)
    for one, found in zip(weight, both, strict=True):
        assert torch.allclose(Smoother(one[0], Smoothness(0.3)).to(measured, iterations=30), found, atol=1e-4)


def test_the_determinant_is_the_closed_form_on_oblique_lattices() -> None:
    grid = oblique((20, 18, 16), 2.0)
    found = jacobian_determinant(sampled(Wave(), grid)).data[1:-1, 1:-1, 1:-1]
    expected = Wave().determinant(grid.voxel_centers().reshape(-1, 3)).reshape(grid.shape)[1:-1, 1:-1, 1:-1]
    assert np.abs(found - expected).max() < 0.01


def test_an_affine_has_its_own_determinant_everywhere() -> None:
    grid = oblique()
    matrix = np.diag([1.2, 0.9, 1.1, 1.0])
    matrix[0, 1] = 0.2
    found = jacobian_determinant(sampled(AffineTransform(matrix), grid)).data
    assert np.allclose(found, np.linalg.det(matrix), atol=1e-4)
    assert folding(found) == 0
    assert sd_log_jacobian(found) == pytest.approx(0, abs=1e-4)


def test_a_fold_is_counted() -> None:
    grid = Grid((10, 3, 3), np.diag([1.0, 1.0, 1.0, 1.0]))
    displacement = np.zeros((3, 10, 3, 3))
    displacement[0, 5:] = -8.0  # what lies right jumps left of what lies left
    share = folding(jacobian_determinant(DisplacementField(displacement, grid)).data)
    assert share == pytest.approx(0.2)


def test_points_are_inverted_to_a_micrometre() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    back = invert_points(Wave(), AffineTransform.identity(), Wave().apply(points), tolerance_mm=1e-5)
    assert np.abs(back - points).max() < 1e-3


def test_the_inverse_of_a_field_is_a_field_with_a_small_residual() -> None:
    grid = oblique((24, 22, 20), 4.0)
    field = sampled(Wave(), grid)
    shift = np.eye(4)
    shift[2, 3] = 7.0
    straight = AffineTransform(shift)
    moving = Grid(grid.shape, straight.matrix @ grid.affine)
    inverse = invert(TensorField.sampled(field, grid, "cpu"), straight, moving, "cpu").as_field()
    inner = grid.index_to_world(np.random.default_rng(1).uniform(4, 15, (300, 3)))
    residual = InverseResidual.of(field, inverse, inner)
    assert residual.max < 0.1
    nothing = InverseResidual.of(field, inverse, np.zeros((0, 3)))
    assert set(nothing.as_dict().values()) == {None}
    assert "not checked" in str(nothing)


@pytest.mark.parametrize("pull", [0.0, 0.3, 2.0])
def test_a_displacement_lies_between_its_best_place_and_the_smooth_field(pull):
    """Of quadratic costs the minimum of `|o - c|^2 + pull |o - own|^2` is at `(c + pull own) / (1 + pull)`."""
    generator = torch.Generator().manual_seed(3)
    centre, own = (torch.rand((200, 3), generator=generator) * 4 - 2 for _ in range(2))
    offsets = window_offsets(3)
    cost = (offsets[None] - centre[:, None]).square().sum(dim=2)
    nodes = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (10, 5, 4)), indexing="ij"), dim=-1).reshape(-1, 3)
    volume = CostVolume(cost, nodes, (10, 5, 4), 2, 3)
    found = _best_displacements(volume, own, pull, [slice(0, 70), slice(70, 200)])
    torch.testing.assert_close(found, (centre + pull * own) / (1 + pull), atol=1e-4, rtol=0)
