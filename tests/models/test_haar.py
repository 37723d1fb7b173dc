from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from meddift.errors import GeometryError
from meddift.models import haar_forward, haar_inverse, haar_matrix

volumes = st.tuples(*[st.integers(1, 4).map(lambda n: 2 * n)] * 3).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-1000, 1000, width=32))
)


def test_matrix_is_orthogonal() -> None:
    matrix = haar_matrix()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-15)


@given(volumes)
def test_inverse_gives_back_the_volume_and_energy_is_kept(data: np.ndarray) -> None:
    channels = haar_forward(data)
    scale = max(1.0, float(np.abs(data).max()))
    np.testing.assert_allclose(haar_inverse(channels), data, atol=2e-6 * scale)
    np.testing.assert_allclose(
        (channels.astype(float) ** 2).sum(), (data.astype(float) ** 2).sum(), rtol=1e-5, atol=1e-6
    )


@given(volumes)
def test_forward_is_the_closed_form_for_every_block_and_channel(data: np.ndarray) -> None:
    channels = haar_forward(data)
    assert channels.shape == (8, *(n // 2 for n in data.shape))
    scale = max(1.0, float(np.abs(data).max()))
    for x, y, z in itertools.product((0, 1), repeat=3):
        expected = np.zeros(channels.shape[1:])
        for i, j, k in itertools.product((0, 1), repeat=3):
            expected += (-1) ** (x * i + y * j + z * k) * data[i::2, j::2, k::2].astype(float) / np.sqrt(8)
        np.testing.assert_allclose(channels[4 * x + 2 * y + z], expected, atol=2e-6 * scale)


def test_matrix_and_transform_agree() -> None:
    block = np.random.default_rng(0).normal(size=(2, 2, 2))
    np.testing.assert_allclose(haar_forward(block)[:, 0, 0, 0], haar_matrix() @ block.ravel(), atol=1e-6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(3, 2, 2\)"):
        haar_forward(np.zeros((3, 2, 2)))
    with pytest.raises(GeometryError):
        haar_inverse(np.zeros((4, 2, 2, 2)))
