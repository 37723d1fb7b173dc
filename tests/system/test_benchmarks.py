"""Rows of the benchmarks that are meant for a graphics card do the same work on the processor, smaller."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from checkpoints import write_spec
from meddift.geometry import Grid
from meddift.volume import Volume

FOLDER = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks, which import each other by name."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_networks_of_maisi_are_timed_stage_by_stage_and_shown(benchmark, monkeypatch, tmp_path):
    write_spec(tmp_path, "ddpm")
    values = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 32)).astype(np.int16)
    scan = Volume(values, Grid((32, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0])), modality="CT")
    device, rows, page = benchmark("device"), benchmark("rows"), benchmark("page")
    monkeypatch.setattr(device, "_chest", lambda shape: [scan, scan])
    monkeypatch.setattr(device, "_rate", lambda where: 1e9)
    pairs = []
    make = device.Matcher.pair

    def pair(self, *scans):
        pairs.append(make(self, *scans))
        return pairs[-1]

    monkeypatch.setattr(device.Matcher, "pair", pair)
    told = {**rows.MAISI.told, "shape": [32, 32, 32], "points": 5, "model": str(tmp_path / "tiny-ddpm.toml")}
    row = device.maisi({**told, "device": "cpu"})

    assert list(row["seconds_of"]) == ["encode", "index", "search", "back"]
    assert row["points"] == 5
    assert row["flops_of"]["encode"] > 1e8  # two scans through both networks
    assert row["match_seconds"] == sum(row["seconds_of"].values())
    assert row["busy"] == dict.fromkeys(row["seconds_of"])  # nothing beside the processor
    # A round that was not counted, one timed and two profiled, each with a pair of its own, searched everywhere.
    assert len(pairs) == 4
    assert all(one.prior is None and one.settings.options.preset == "paper" for one in pairs)

    written = json.loads(json.dumps({**row, "told": told, "load_before": 0.0, "code": "abc"}))
    text = "\n".join(page._maisi({rows.MAISI.key: written}))
    assert "32 x 32 x 32 voxels, 5 points" in text
    assert "- search: " in text
    assert "Code of commit abc" in text


def test_a_pair_of_another_shape_is_encoded_twice_and_shown_where_it_was_measured(benchmark):
    values = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 60)).astype(np.int16)
    scan = Volume(values, Grid((32, 32, 60), np.diag([2.0, 2.0, 2.0, 1.0])), modality="CT")
    device, lines = benchmark("device"), benchmark("lines")
    encoded = []
    matcher = device.Matcher("builtin-2", store=False, device="cpu", on_progress=lambda text, _: encoded.append(text))
    found = device._new_shape(matcher, [scan, scan])
    assert found["network_shapes"] == [[32, 32, 48]] * 2  # 45 slices are left, where 60 were padded to 64
    assert encoded.count("encoding the scan (fixed)") == 2
    assert min(found["seconds"], found["again_seconds"]) > 0

    row = {"device": "", "match_seconds": 1.0, "seconds_of": {}}
    before = lines.device_lines(row)
    new = {**found, "seconds": 0.5, "again_seconds": 0.25}
    assert lines.device_lines({**row, "new_shape": new}) == [
        *before,
        "encode for a pair of another shape (32 x 32 x 48 and 32 x 32 x 48 in the network): 0.50 s the first time, "
        "0.25 s the second time",
    ]
