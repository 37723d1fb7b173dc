"""Looking near an expected place: what a processor and what a graphics card do are the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meddift.matching.locate import _average_gathered, _average_shifted


@pytest.mark.parametrize("average", [_average_shifted, _average_gathered])
def test_neighbours_are_averaged_where_they_lie_in_the_window(average) -> None:
    generator = np.random.default_rng(0)
    core, window = (3, 4, 2), (7, 6, 5)
    offsets = np.array([[0, 0, 0], [2, 0, -1], [-2, 1, 1], [0, -2, 0]])
    # Cores in the middle of their windows, and pushed against a border.
    first = np.array([[2, 1, 1], [0, 0, 0], [4, 2, 3], [2, 1, 1], [0, 2, 1]])
    values = generator.normal(size=(len(first), len(offsets), *window)).astype(np.float32)
    found = average(torch.from_numpy(values), offsets, first, core).numpy()
    for row in range(len(first)):
        for voxel in np.ndindex(core):
            places = first[row] + voxel + offsets
            inside = [(k, tuple(p)) for k, p in enumerate(places) if (p >= 0).all() and (p < window).all()]
            expected = np.mean([values[(row, k, *place)] for k, place in inside])
            assert found[(row, *voxel)] == pytest.approx(expected, abs=1e-6)
