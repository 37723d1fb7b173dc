"""What descriptors ask of a shift, against differentiating the sum of squares itself."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.features.whitening import Whitening
from meddift.geometry import sample
from meddift.matching.descriptors import normal_products, unit


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.booleans())
def test_products_are_those_of_the_derivative(seed, channels, whitened):
    generator = np.random.default_rng(seed)
    values = torch.from_numpy(generator.normal(size=(5, 4, 6, channels)))
    index = torch.from_numpy(generator.integers(0, 3, (12, 3)) + generator.uniform(0.1, 0.9, (12, 3)))
    wanted = unit(torch.from_numpy(generator.normal(size=(12, channels))))
    mean, matrix = generator.normal(size=channels), generator.normal(size=(channels, channels))
    whitening = Whitening(mean, matrix) if whitened else None
    square, pull, squared = normal_products(values, index, wanted, whitening)

    def described(place):
        read = sample(values, place[None])
        if whitened:
            read = (read - torch.from_numpy(mean)) @ torch.from_numpy(matrix)
        return torch.nn.functional.normalize(read, dim=1)[0]

    for row in range(12):
        jacobian = torch.autograd.functional.jacobian(described, index[row])
        difference = wanted[row] - described(index[row])
        torch.testing.assert_close(square[row], jacobian.T @ jacobian)
        torch.testing.assert_close(pull[row], jacobian.T @ difference)
        torch.testing.assert_close(squared[row], difference @ difference)
