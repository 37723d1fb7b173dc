"""Very many points: aligned at nodes and read in between, they lie where points that are aligned singly lie."""

from __future__ import annotations

import numpy as np
import pytest

from meddift import Matcher
from meddift.geometry import AffineTransform
from meddift.pipeline import pair as pairs
from meddift.pipeline.many_points import SPACINGS_MM, Nodes
from texture import lattice, scan


@pytest.mark.parametrize("most", [1, 300, 5_000])
def test_points_lie_in_the_middle_of_their_nodes(most: int) -> None:
    generator = np.random.default_rng(0)
    positions = generator.uniform(-50, 30, (400, 3))
    group = generator.integers(0, 2, 400)
    nodes = Nodes.around(positions, group, most=most)
    assert len(nodes.positions) <= most or most == 1
    np.testing.assert_allclose(nodes.weights.sum(axis=0), 1.0)
    # What is linear in space is read exactly, so the positions of the nodes give those of the points.
    np.testing.assert_allclose(nodes.read(nodes.positions, nodes.weights), positions, atol=1e-9)
    np.testing.assert_array_equal(nodes.group[nodes.corners], np.broadcast_to(group, (8, 400)))
    assert len(np.unique(np.column_stack([nodes.positions, nodes.group]), axis=0)) == len(nodes.positions)
    spacing = np.diff(np.unique(nodes.positions[:, 0])).min()
    assert spacing in SPACINGS_MM
    if most > 1 and spacing > SPACINGS_MM[0]:  # the next closer ones would be too many
        closer = SPACINGS_MM[SPACINGS_MM.index(spacing) - 1]
        cells = np.floor(positions / closer)[:, None] + np.array(list(np.ndindex(2, 2, 2)))
        keyed = np.concatenate([cells, np.broadcast_to(group[:, None, None], (400, 8, 1))], axis=2).reshape(-1, 4)
        assert len(np.unique(keyed, axis=0)) > most


def test_what_speaks_against_a_match_is_never_less_than_the_mean_of_its_nodes() -> None:
    generator = np.random.default_rng(1)
    nodes = Nodes.around(generator.uniform(0, 40, (50, 3)), np.zeros(50, dtype=np.int64))
    values = generator.uniform(0, 3, len(nodes.positions))
    for point in range(50):
        weight, around = nodes.weights[:, point], values[nodes.corners[:, point]]
        mean = float(weight @ around)
        deviation = float(np.sqrt(weight @ (around - mean) ** 2))
        assert nodes.against(values)[point] == pytest.approx(mean + deviation / 2)


def test_many_points_lie_where_single_ones_do_and_are_no_surer(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = lattice((48, 48, 48))
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.02, 0.03, 0.0], [-0.02, 0.98, 0.01], [0.0, 0.02, 1.01]]
    matrix[:3, 3] = [2.7, -1.3, 3.9]
    fixed, moving = scan(grid), scan(grid, AffineTransform(matrix))
    places = np.random.default_rng(0).uniform(-25, 25, (250, 3))
    truth = AffineTransform(matrix).apply(places)
    with Matcher(store=False, modality="ct", levels=["mind"], prior=AffineTransform(matrix)) as matcher:
        pair = matcher.pair(fixed, moving)
        single = pair.match(places)
        monkeypatch.setattr(pairs, "MANY", 200)
        many = pair.match(places)
    assert (many.moving.positions != single.moving.positions).any()
    one, other = (np.linalg.norm(found.moving.positions - truth, axis=1) for found in (single, many))
    assert np.nanmean(other) < np.nanmean(one) + 0.05
    assert many.ok.mean() <= single.ok.mean()
    assert many.ok.mean() > 0.3
