"""Between features and answer nothing leaves the device: what a graphics card would do, counted on the processor."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from meddift.features.extraction import MIND
from meddift.features.mind import mind_level
from meddift.geometry import AffineTransform, Grid
from meddift.matching import cost_volume as costs
from meddift.registration import candidates, register, register_scans
from meddift.registration.engine import FieldWork
from meddift.registration.feature_map import DescribedScan, FeatureMap
from meddift.registration.start import Start
from meddift.volume import Volume

GRID = Grid((44, 40, 36), np.diag([2.0, 2.0, 2.0, 1.0]))
SHIFT = np.array([3.0, -2.0, 1.0])


def scan(shift: np.ndarray) -> DescribedScan:
    """Soft blobs, moved."""
    generator = np.random.default_rng(0)
    world = GRID.voxel_centers() - shift
    data = np.zeros(GRID.shape, dtype=np.float32)
    for center in generator.uniform(0, 85, (60, 3)):
        data += np.exp(-((world - center) ** 2).sum(axis=-1) / 60).astype(np.float32)
    level = mind_level(Volume(data, GRID))
    return DescribedScan({MIND: FeatureMap(torch.from_numpy(level.features), GRID)}, GRID)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of what brings tensors into main memory, a name a call, while dense matching and refinement run."""
    seen: list[str] = []
    inside = [0]

    def watched(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def call(*given, **told):  # type: ignore[no-untyped-def]
            if inside[0]:
                seen.append(name)
            return plain(*given, **told)

        monkeypatch.setattr(owner, name, call)

    def within(owner: object, name: str) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def call(*given, **told):  # type: ignore[no-untyped-def]
            inside[0] += 1
            try:
                return plain(*given, **told)
            finally:
                inside[0] -= 1

        monkeypatch.setattr(owner, name, call)

    for name in ("cpu", "numpy", "tolist", "__array__"):
        watched(torch.Tensor, name)
    for name in ("_pass", "_apart", "_agreement"):
        within(candidates, name)
    within(FieldWork, "_refined")
    within(register, "invert")
    return seen


def test_no_stage_brings_anything_into_main_memory(copies: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiles are for processors, which may look at their own memory; a card compares shifted maps.
    monkeypatch.setattr(costs, "_by_tiles", costs._by_shifts)
    everywhere = Volume(np.ones(GRID.shape, dtype=bool), GRID)
    found = register_scans(
        scan(np.zeros(3)),
        scan(SHIFT),
        [Start("given", AffineTransform.identity(), AffineTransform.identity())],
        fixed_mask=everywhere,
        moving_mask=everywhere,
    )
    assert copies == []
    middle = GRID.index_to_world(np.random.default_rng(1).uniform(12, 24, (50, 3)))
    assert np.linalg.norm(found.transform.apply(middle) - middle - SHIFT, axis=1).mean() < 0.3
