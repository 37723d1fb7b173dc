"""On a graphics card both scans of a pair go through the network in one batch, padded to few shapes.

Here a processor is taken for a card: what is computed, kept and told does not depend on where it is computed.
"""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch

from meddift.errors import ImageError, MemoryLimitError
from meddift.features import FeatureStore
from meddift.models import find_spec
from meddift.models.unet import UNet
from meddift.pipeline import Matcher
from meddift.pipeline.memory import encoding_bytes
from meddift.pipeline.runtime import Runtime
from meddift.volume import Volume
from texture import lattice, scan

LEVELS = ("up0", "up1", "up2", "up3", "mind")


@pytest.fixture(scope="module")
def scans():
    """Two scans which are padded to one shape, and one which is not."""
    sizes = ((34, 30, 32), (45, 32, 29), (70, 30, 30))
    return [scan(lattice(size), seed=number) for number, size in enumerate(sizes)]


@pytest.fixture
def batches(monkeypatch):
    """How many latents went through the network at a time."""
    seen = []
    run = UNet.forward

    def counted(network, levels, *, x, **told):
        seen.append(len(x))
        return run(network, levels, x=x, **told)

    monkeypatch.setattr(UNet, "forward", counted)
    return seen


@pytest.fixture
def card(monkeypatch):
    """A graphics card with much memory."""
    monkeypatch.setattr(Runtime, "on_card", True)
    monkeypatch.setattr(Runtime, "card_memory_left", lambda self: 10**12)


def new_matcher(model, *, store=False, normalisation="scan", **options):
    spec, weights = model
    spec = dataclasses.replace(spec, normalisation=normalisation)
    options = {"noise_samples": 2, "levels": LEVELS, "precision": "float32", **options}
    return Matcher(spec, weights=weights, store=store, device="cpu", **options)


def assert_equal(found, expected):
    """Keys and grids are the same, features up to rounding of float16, to which they are rounded."""
    assert (found.digest, found.names, found.network_grid) == (expected.digest, expected.names, expected.network_grid)
    for one, two in zip(found.levels, expected.levels, strict=True):
        assert (one.grid, one.weight, one.values.dtype) == (two.grid, two.weight, two.values.dtype)
        np.testing.assert_allclose(one.features, two.features, rtol=2e-3, atol=2e-4 * np.abs(two.features).max())


@pytest.mark.parametrize("normalisation", ["scan", "voxel"])
def test_a_pair_in_one_batch_has_the_features_of_each_scan_alone(model, scans, card, batches, normalisation):
    alone = new_matcher(model, normalisation=normalisation)
    expected = [alone.encode(volume).pyramid for volume in scans[:2]]
    assert batches == [1] * 4
    batches.clear()
    told = []
    matcher = new_matcher(
        model, normalisation=normalisation, on_progress=lambda text, share: told.append((text, share))
    )
    pair = matcher.pair(*scans[:2])
    found = pair.encode()
    assert batches == [2, 2]  # one for each draw of noise
    for one, two in zip(found, expected, strict=True):
        assert_equal(one, two)
    assert np.abs(found[0].level("up3").features - found[1].level("up3").features).max() > 0.1
    assert pair.fixed.pyramid is found[0]
    assert pair.timing["encode"] > 0
    shares = [share for text, share in told if "(both)" in text]
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert 0.05 <= shares[0] < shares[-1] <= 0.55
    pair.encode()
    assert batches == [2, 2]


def test_on_a_processor_one_scan_follows_the_other(model, scans, batches):
    new_matcher(model).pair(*scans[:2]).encode()
    assert batches == [1] * 4


@pytest.mark.parametrize("known", [0, 1])
def test_scans_of_other_shapes_or_known_before_or_equal_are_encoded_alone(model, scans, card, batches, known):
    matcher = new_matcher(model, noise_samples=0)
    encoded = [matcher.encode(volume) for volume in scans]
    batches.clear()
    given = list(scans[:2])
    given[known] = encoded[known]
    pair = matcher.pair(*given)
    found = pair.encode()
    assert batches == [1]
    assert found[known] is encoded[known].pyramid
    batches.clear()
    found = matcher.pair(scans[2], scans[0]).encode()
    assert batches == [1, 1]
    assert_equal(found[0], encoded[2].pyramid)
    assert_equal(found[1], encoded[0].pyramid)
    batches.clear()
    same = matcher.scan(scans[0])
    assert matcher.pair(same, same).encode()[0] is same.pyramid
    assert batches == [1]


def test_each_scan_is_stored_under_its_own_key_and_read_from_there(model, scans, card, batches, tmp_path):
    store = FeatureStore(tmp_path)
    first = new_matcher(model, store=store).pair(*scans[:2])
    made = first.encode()
    assert len(store) == 2
    for volume, pyramid in zip(scans, made, strict=False):
        stored = store.get(first.settings.key(volume.digest(), modality=volume.modality))
        np.testing.assert_array_equal(stored.level("up2").features, pyramid.level("up2").features)
    batches.clear()
    new_matcher(model, store=store).pair(scans[1], scans[0]).encode()
    assert batches == []
    store.remove(made[1].digest)
    again = new_matcher(model, store=store).pair(*scans[:2]).encode()
    assert batches == [1, 1]  # two draws of noise for the one that is missing
    assert made[1].digest in store
    assert_equal(again[1], made[1])


def test_both_scans_must_fit_into_the_memory_of_the_card(model, scans, card, batches, monkeypatch):
    spec = model[0]
    padded = dataclasses.replace(spec, grid=dataclasses.replace(spec.grid, multiple=32))
    needed = sum(encoding_bytes(padded, volume.grid) for volume in scans[:2])
    for left, expected in ((needed, [2]), (needed - 1, [1, 1])):
        monkeypatch.setattr(Runtime, "card_memory_left", lambda self, left=left: left)
        batches.clear()
        new_matcher(model, noise_samples=0).pair(*scans[:2]).encode()
        assert batches == expected


def test_a_card_that_is_full_nevertheless_gets_one_scan_after_the_other(model, scans, card, batches, monkeypatch):
    run = UNet.forward

    def full(network, levels, *, x, **told):
        maps = run(network, levels, x=x, **told)
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return maps

    monkeypatch.setattr(UNet, "forward", full)
    told = []
    matcher = new_matcher(model, noise_samples=0, on_progress=lambda text, share: told.append(text))
    found = matcher.pair(*scans[:2]).encode()
    assert batches == [2, 1, 1]
    assert any("graphics card is full" in text for text in told)
    for volume, pyramid in zip(scans, found, strict=False):
        assert_equal(pyramid, new_matcher(model, noise_samples=0).encode(volume).pyramid)


def test_errors_are_those_of_the_scan_and_leave_the_other_one_usable(model, scans, card, monkeypatch):
    values = scans[1].data.copy()
    values[3, 4, 5] = np.nan
    broken = Volume(values, scans[1].grid)
    matcher = new_matcher(model, noise_samples=0)
    pair = matcher.pair(scans[0], broken)
    with pytest.raises(ImageError, match="not finite"):
        pair.encode()
    assert not pair.fixed.is_encoded
    assert pair.fixed.encode().names == pair.settings.extraction.levels
    stopped = matcher.pair(*scans[:2])

    def stop(stage, fraction):
        if "features" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.prepare(on_progress=stop)
    assert [scan.is_encoded for scan in (stopped.fixed, stopped.moving)] == [False, False]
    assert len(stopped.encode()) == 2

    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr("meddift.pipeline.encoding.extract_pyramids", exhausted)
    with pytest.raises(MemoryLimitError, match="encoding both scans with tiny-haar"):
        matcher.pair(*scans[:2]).encode()


def test_threads_that_pair_the_same_scans_in_both_directions_do_not_wait_for_each_other(model, scans, card, batches):
    expected = [new_matcher(model).encode(volume).pyramid for volume in scans]
    orders = [(0, 1), (1, 0), (1, 2), (2, 0), (2, 1), (0, 2), (0,)]
    for _ in range(3):
        batches.clear()
        matcher = new_matcher(model)
        shared = [matcher.scan(volume) for volume in scans]
        start, found = threading.Barrier(len(orders)), {}

        def encode(order, *, shared=shared, matcher=matcher, start=start, found=found):
            start.wait()
            asked = [shared[number] for number in order]
            found[order] = matcher.pair(*asked).encode() if len(asked) == 2 else (asked[0].encode(),)

        threads = [threading.Thread(target=encode, args=(order,), daemon=True) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert set(found) == set(orders)
        assert sum(batches) == 2 * len(scans)  # two draws; no scan is encoded twice
        for order, pyramids in found.items():
            for number, pyramid in zip(order, pyramids, strict=True):
                assert pyramid is shared[number].pyramid
                assert_equal(pyramid, expected[number])


# ---------------------------------------------------------------------- padding


def test_padding_is_coarser_on_a_card_and_so_is_the_plan(model, scans, monkeypatch):
    plain = new_matcher(model)
    before = plain.encode(scans[0]).pyramid
    planned = plain.plan(scans[0], scans[1], 5)
    needed = plain.settings.encoding_plan(scans[0].grid).needed_bytes
    assert before.network_grid.shape == (48, 32, 32)
    monkeypatch.setattr(Runtime, "on_card", True)
    matcher = new_matcher(model)
    # The device "auto" is determined by what loads PyTorch; until then a plan is that of a processor.
    assert matcher.plan(scans[0], scans[1], 5) == planned
    key = matcher.settings.key(scans[0].digest())
    assert key != before.digest
    padded = matcher.encode(scans[0]).pyramid
    assert padded.digest == key
    assert padded.network_grid.shape == (64, 32, 32)
    assert padded.network_grid.spacing.tolist() == before.network_grid.spacing.tolist()
    assert (padded.level("mind").grid, padded.image_grid) == (before.level("mind").grid, before.image_grid)
    np.testing.assert_array_equal(padded.level("mind").features, before.level("mind").features)
    now = matcher.plan(scans[0], scans[1], 5)
    assert "64x32x32" in now["fixed"]["network"]
    assert "48x32x32" in planned["fixed"]["network"]
    assert now["memory_bytes"] > planned["memory_bytes"]
    assert matcher.settings.encoding_plan(scans[0].grid).needed_bytes > needed


def test_what_has_few_shapes_or_no_network_and_the_preset_paper_are_padded_as_before(model, monkeypatch):
    makes = (
        lambda: new_matcher(model, preset="paper"),
        lambda: Matcher(find_spec("maisi-ct-ddpm"), levels=("mind",), device="cpu", store=False),
        lambda: new_matcher(model, levels=("mind",)),
    )
    before = [make().settings for make in makes]
    expected = [(each.network_spec, each.key("a" * 64)) for each in before]
    monkeypatch.setattr(Runtime, "on_card", True)
    after = [make().settings for make in makes]
    assert [(each.network_spec, each.key("a" * 64)) for each in after] == expected
    maisi = Matcher("maisi-ct-ddpm", device="cpu", store=False).settings
    assert maisi.network_spec is maisi.spec
    user = dataclasses.replace(model[0], grid=dataclasses.replace(model[0].grid, multiple=48))
    assert Matcher(user, device="cpu", store=False).settings.network_spec.grid.multiple == 96


@pytest.mark.gpu
@pytest.mark.parametrize("normalisation", ["scan", "voxel"])
def test_a_batch_on_cuda_gives_what_each_scan_gives_alone(model, scans, batches, normalisation):
    spec = dataclasses.replace(model[0], normalisation=normalisation)
    options = {"weights": model[1], "store": False, "device": "cuda", "precision": "float32", "levels": LEVELS}
    expected = [Matcher(spec, **options).encode(volume).pyramid for volume in scans[:2]]
    batches.clear()
    found = Matcher(spec, **options).pair(*scans[:2]).encode()
    assert batches == [2]
    for one, two in zip(found, expected, strict=True):
        assert_equal(one, two)
