"""Velocity fields against closed forms."""

from __future__ import annotations

import numpy as np
import torch

from meddift.geometry import CompositeTransform, Grid
from meddift.registration import jacobian_determinant
from meddift.registration.diffeomorphic import VelocityField

GRID = Grid((24, 22, 20), np.array([[-3.0, 0, 0, 40], [0, 0, 3.0, -20], [0, 3.0, 0, 7], [0, 0, 0, 1]]))


def inner_points() -> np.ndarray:
    return GRID.index_to_world(np.random.default_rng(0).uniform(6, 14, (100, 3)))


class Swirl:
    """A rotation about a point that fades out: a bijection far from a shift."""

    def apply(self, positions: np.ndarray) -> np.ndarray:
        away = positions - GRID.center
        angle = 0.5 * np.exp(-(away**2).sum(axis=1) / (2 * 15.0**2))
        c, s = np.cos(angle), np.sin(angle)
        x, y = c * away[:, 0] - s * away[:, 1], s * away[:, 0] + c * away[:, 1]
        return np.stack([x, y, away[:, 2]], axis=1) + GRID.center


def test_a_constant_velocity_is_a_shift() -> None:
    velocity = torch.zeros(*GRID.shape, 3)
    velocity[..., 0] = 2.0  # voxels along the first axis, which runs to the left by 3 mm
    moved = VelocityField(velocity, GRID).flow().as_field().apply(inner_points())
    assert np.allclose(moved - inner_points(), [-6, 0, 0], atol=1e-3)


def test_the_logarithm_leads_back_to_the_transform() -> None:
    field = VelocityField.of([Swirl()], GRID)
    away = np.linalg.norm(field.flow().as_field().apply(inner_points()) - Swirl().apply(inner_points()), axis=1)
    assert away.max() < 0.3  # a tenth of a voxel, where the slope is 0.5


def test_the_flow_backwards_is_the_inverse() -> None:
    field = VelocityField.of([Swirl()], GRID)
    there_and_back = CompositeTransform((field.flow().as_field(), field.flow(-1.0).as_field())).apply(inner_points())
    assert np.abs(there_and_back - inner_points()).max() < 0.3


def test_a_flow_does_not_fold_where_the_displacement_would() -> None:
    """The same numbers taken as a displacement fold; taken as a velocity they cannot."""
    generator = torch.Generator().manual_seed(0)
    rough = torch.nn.functional.interpolate(
        torch.randn(1, 3, 6, 6, 6, generator=generator) * 3, size=GRID.shape, mode="trilinear"
    )
    velocity = rough[0].movedim(0, -1).contiguous()
    inside = (slice(3, -3),) * 3
    flow = VelocityField(velocity, GRID).flow().as_field()
    assert jacobian_determinant(flow).data[inside].min() > 0
    world = GRID.index_to_world(velocity.numpy()) - GRID.index_to_world(np.zeros(3))
    from meddift.geometry import DisplacementField

    folded = DisplacementField(np.moveaxis(world, -1, 0), GRID)
    assert jacobian_determinant(folded).data[inside].min() < 0


def test_the_mean_of_a_field_and_its_opposite_is_the_identity() -> None:
    field = VelocityField.of([Swirl()], GRID)
    opposite = VelocityField(-field.velocity, GRID)
    assert np.allclose(field.averaged(opposite).flow().as_field().apply(inner_points()), inner_points())
