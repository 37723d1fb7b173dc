"""The dense mode of matching against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meddift.matching.cost_volume import _by_shifts, _by_tiles, cost_volume, window_offsets


def brute_force(
    fixed: np.ndarray, moving: np.ndarray, shown: np.ndarray, node: np.ndarray, offset: np.ndarray, support: int
) -> float:
    """1 minus the mean dot product over supporting voxels that the moving scan shows; 2 without a fourth of them."""
    dots, count, total = 0.0, 0.0, (2 * support + 1) ** 3
    for around in np.ndindex(*(2 * support + 1,) * 3):
        here = node + np.array(around) - support
        there = here + offset
        if not ((there >= 0).all() and (there < shown.shape).all()) or not shown[tuple(there)]:
            continue
        count += 1
        if (here >= 0).all() and (here < shown.shape).all():
            dots += float(fixed[tuple(here)] @ moving[tuple(there)])
    if count / total <= 0.25:
        return 2.0
    return 1 - dots / count


@pytest.mark.parametrize(("stride", "support", "radius"), [(2, 1, 2), (1, 0, 1), (3, 1, 1), (2, 2, 1)])
def test_costs_are_those_of_brute_force(stride: int, support: int, radius: int) -> None:
    generator = np.random.default_rng(stride)
    shape = (11, 8, 13)
    fixed = generator.normal(size=(*shape, 5)).astype(np.float32)
    fixed /= np.linalg.norm(fixed, axis=-1, keepdims=True)
    shown = generator.random(shape) > 0.2
    shown[:, :, 9:] = False
    moving = generator.normal(size=(*shape, 5)).astype(np.float32) * shown[..., None]
    wanted = generator.random(tuple(-(-n // stride) for n in shape)) > 0.4
    asked = torch.from_numpy(wanted)
    maps = torch.from_numpy(fixed), torch.from_numpy(moving), torch.from_numpy(shown.astype(np.float32))
    found = cost_volume(*maps, asked, radius=radius, stride=stride, support=support)
    # What a processor and what a graphics card does are the same numbers.
    ways = [way(*maps, asked, radius, stride, support) for way in (_by_tiles, _by_shifts)]
    torch.testing.assert_close(ways[0], ways[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.cost, ways[0])
    offsets = window_offsets(radius).numpy().astype(int)
    assert (found.nodes.numpy() == np.argwhere(wanted)).all()
    for row in generator.choice(len(found.nodes), min(12, len(found.nodes)), replace=False):
        for column in generator.choice(len(offsets), 6, replace=False):
            expected = brute_force(fixed, moving, shown, found.nodes[row].numpy() * stride, offsets[column], support)
            assert float(found.cost[row, column]) == pytest.approx(expected, abs=1e-4)


def test_a_shift_is_found_everywhere() -> None:
    generator = np.random.default_rng(0)
    fixed = torch.from_numpy(generator.normal(size=(12, 12, 12, 8)).astype(np.float32))
    fixed = fixed / fixed.norm(dim=-1, keepdim=True)
    moving = torch.roll(fixed, (1, -2, 0), dims=(0, 1, 2))
    wanted = torch.zeros((6, 6, 6), dtype=torch.bool)
    wanted[2:4, 2:4, 2:4] = True
    found = cost_volume(fixed, moving, torch.ones(12, 12, 12), wanted, radius=2, stride=2, support=1)
    best = found.offsets[found.cost.argmin(dim=1)]
    assert (best == torch.tensor([1.0, -2.0, 0.0])).all()


def test_no_node_wanted_gives_no_row() -> None:
    nothing = torch.zeros(4, 4, 4, 2)
    found = cost_volume(
        nothing, nothing, torch.ones(4, 4, 4), torch.zeros((2, 2, 2), dtype=torch.bool), radius=1, stride=2
    )
    assert found.cost.shape == (0, 27)
