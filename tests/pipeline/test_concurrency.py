"""Many threads ask one Matcher, and each gets the bytes that it would get alone; many processes share a store."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from meddift.features import FeatureStore
from meddift.geometry import AffineTransform
from meddift.pipeline import Matcher
from texture import lattice, scan

SIZES = ((34, 30, 32), (32, 33, 31), (30, 34, 29), (33, 31, 34))


@pytest.fixture(scope="module")
def scans():
    made = []
    for number, size in enumerate(SIZES):
        matrix = np.eye(4)
        matrix[:3, 3] = [1.5 * number, -number, 0.7 * number]
        made.append(scan(lattice(size), AffineTransform(matrix)))
    return made


def new_matcher(model, store):
    spec, weights = model
    options = {"noise_samples": 1, "prior": "identity", "search_radius_mm": 8.0}
    return Matcher(spec, weights=weights, store=store, device="cpu", **options)


def questions(count):
    """Of all pairs of scans, some points or a map, in random order."""
    generator = np.random.default_rng(0)
    pairs = list(itertools.permutations(range(len(SIZES)), 2))
    return [(*pairs[i % len(pairs)], generator.uniform(-14, 14, (1 + i % 3, 3)), i % 7 == 0) for i in range(count)]


def answered(matcher, scans, question):
    """All bytes of an answer."""
    fixed, moving, points, wants_map = question
    pair = matcher.pair(scans[fixed], scans[moving])
    if wants_map:
        return [pair.similarity(points[0]).data.tobytes()]
    matches = pair.match(points)
    numbers = (matches.moving.positions, matches.similarity, matches.margin, matches.inverse_error_mm)
    return [array.tobytes() for array in numbers] + [repr(matches.rows()).encode()]


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kept", [False, True], ids=["no store", "store"])
def test_eight_threads_get_what_each_would_get_alone(count, kept, model, scans, tmp_path):
    asked = questions(count)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # convolutions are summed up in an order that depends on it
    try:
        alone = new_matcher(model, False)
        encoded = [alone.encode(volume) for volume in scans]
        expected = [answered(alone, encoded, question) for question in asked]
        together = new_matcher(model, tmp_path if kept else False)
        # Scans that nobody has encoded yet: the first threads to ask do it, the others wait. Some ask with arrays.
        shared = [together.pair(volume, volume).fixed for volume in scans]
        order = np.random.default_rng(1).permutation(count)
        start = threading.Barrier(8)

        def ask(number):
            if number in order[:8]:
                start.wait()
            return answered(together, scans if number % 8 == 0 else shared, asked[number])

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, order))
        assert torch.get_num_threads() == 2
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [2]
    finally:
        torch.set_num_threads(before)
    for number, answer in zip(order, found, strict=True):
        assert answer == expected[number], f"question {number}"


def test_threads_that_ask_one_pair_find_one_field_together(scans, monkeypatch):
    """Prior, field and what is usual are computed by the first of them, once; by default, without a network."""
    monkeypatch.setattr("meddift.pipeline.starts.PRIOR_POINTS", 80)
    generator = np.random.default_rng(3)
    asked = [generator.uniform(-12, 12, (1 + i % 3, 3)) for i in range(8)]

    def pair():
        return Matcher(levels=("mind",), store=False, device="cpu").pair(*scans[:2])

    def answer(pair, points):
        matches = pair.match(points)
        return [matches.moving.positions.tobytes(), repr(matches.rows())]

    alone = pair()
    expected = [answer(alone, points) for points in asked]
    together = pair()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda points: answer(together, points), asked))
    assert found == expected
    assert together.evidence == alone.evidence


PROGRAM = """
import json, sys
import numpy as np
sys.path[:0] = sys.argv[3:]
from texture import lattice, scan
from meddift.models import find_spec
from meddift.pipeline import Matcher
spec, weights, store = json.loads(sys.argv[1])
matcher = Matcher(find_spec(spec), weights=weights, store=store, device="cpu", noise_samples=1)
sys.stdin.readline()  # all begin at the same time
for turn in range(3):
    for seed in (0, 1, 2) if sys.argv[2] == "up" else (2, 1, 0):
        pyramid = matcher.encode(scan(lattice((26, 24, 28)), seed=seed)).pyramid
        print(seed, pyramid.digest, [float(level.features.sum(dtype=np.float64)) for level in pyramid.levels])
"""


def test_two_processes_filling_one_store_are_both_right_and_damage_nothing(model, tmp_path):
    weights = model[1]
    path = str(weights.parent / "tiny-haar.toml")
    assert Path(path).is_file()
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

    def begin(store, order):
        arguments = [sys.executable, "-c", PROGRAM, json.dumps([path, str(weights), store]), order, *folders]
        return subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    runs = [begin(False, "up"), begin(str(tmp_path), "up"), begin(str(tmp_path), "down")]
    told = [run.communicate("go\n", timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], told
    assert not any("WARNING" in errors or "not kept" in errors for _, errors in told), told
    lines = [set(output.splitlines()) for output, _ in told]
    assert len(lines[0]) == 3
    assert lines[1] == lines[2] == lines[0]
    store = FeatureStore(tmp_path)
    digests = {line.split()[1] for line in lines[0]}
    assert {path.name for path in tmp_path.iterdir()} == digests
    assert all(store.get(digest) is not None for digest in digests)
    assert not list(tmp_path.rglob(".tmp-*"))
