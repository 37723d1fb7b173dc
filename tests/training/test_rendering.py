"""Batches from processes of their own: in order, the same however many there are, and faults are said."""

from __future__ import annotations

import multiprocessing

import pytest
import torch

from rendering import Recipe, rendered
from training_scans import Scan


@pytest.fixture(scope="module")
def scans():
    generator = torch.Generator().manual_seed(0)
    hu = torch.nn.functional.interpolate(
        torch.randn(1, 1, 12, 12, 12, generator=generator) * 300, size=(48, 48, 48), mode="trilinear"
    )[0, 0]
    return [Scan("ct", hu, 2.0), Scan("mr", hu - 300, 2.0, others=(hu - 200,), modality="MR")]


RECIPE = Recipe(seed=5, voxels=32**3, points=80, pairs=4, mr_share=0.5, contrast_steps=4)


def test_a_batch_depends_on_its_step_alone(scans):
    with rendered(RECIPE, scans, first=3, device=torch.device("cpu"), processes=2) as batches:
        received = [next(batches) for _ in range(3)]
    for step, batch in zip((3, 4, 5), received, strict=True):
        alone = RECIPE.batch(scans, step)
        assert torch.equal(batch.images, alone.images)
        assert torch.equal(batch.points, alone.points)
        assert torch.equal(batch.extra, alone.extra)
        assert batch.modalities == alone.modalities
        assert batch.points.shape == (2, 4, 80, 3)
        # Row i shows one place: both images are of one scan, and points lie within their views.
        assert bool((batch.points.abs() < batch.half_extent).all())


def test_a_process_that_fails_says_why(scans):
    broken = [Scan("flat", torch.zeros(4, 4), 2.0)]
    with (
        rendered(RECIPE, broken, first=0, device=torch.device("cpu"), processes=1) as batches,
        pytest.raises(RuntimeError, match="could not be rendered"),
    ):
        next(batches)


def test_a_process_that_is_gone_is_noticed(scans, monkeypatch):
    monkeypatch.setattr("rendering.LOOK_EVERY_S", 0.2)
    with rendered(RECIPE, scans, first=0, device=torch.device("cpu"), processes=1) as batches:
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(RuntimeError, match="ended with code"):
            next(batches)
