"""Ablations: each scan is encoded once, variants answer as the matcher itself does, claims follow the numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_pairs import write_pairs

from meddift.errors import OptionsError
from meddift.io import read_volume
from meddift.models import find_spec, load_model
from meddift.pipeline import Matcher
from meddift_lab.ablation import collect_ablation, make_variants, run_ablation
from meddift_lab.ablation.encoding import AblationMatcher, Encodings, LatentKeeper
from meddift_lab.ablation.run import file_name
from meddift_lab.ablation.tables import Claim
from meddift_lab.metrics.statistics import compare_paired
from meddift_lab.report import write_report
from meddift_lab.running.case import store_case
from meddift_lab.sets import find_cases


class Counting:
    """The built-in model, counting what is asked of it."""

    def __init__(self) -> None:
        self.model = load_model(find_spec("builtin"), device="cpu")
        self.encoded = self.passes = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def encode(self, *arguments: object, **named: object) -> object:
        self.encoded += 1
        return self.model.encode(*arguments, **named)  # type: ignore[arg-type]

    def levels_of(self, *arguments: object, **named: object) -> object:
        self.passes += 1
        return self.model.levels_of(*arguments, **named)  # type: ignore[arg-type]


def test_every_choice_is_tried_once() -> None:
    spec = find_spec("builtin")
    found = make_variants("default", spec)
    names = [file_name(variant) for variant in found]
    assert len(set(names)) == len(names)
    labels = [variant.label for variant in found if variant.sweep == "levels"]
    # Four levels of the network and the hand-made one: five alone, ten pairs, the network's four, all five.
    assert len(labels) == 5 + 10 + 1 + 1
    # The built-in latent has no spread, and its network is not told any spacing: nothing to sweep.
    assert not [variant for variant in found if variant.sweep in ("latent", "spacing")]
    maisi = make_variants("search", find_spec("maisi-ct-ddpm"))
    assert {"latent", "spacing"} <= {variant.sweep for variant in maisi}
    for variant in found + maisi:
        json.dumps(dict(variant.overrides))
    with pytest.raises(OptionsError, match="there is no sweep magic"):
        make_variants("default", spec, ["magic"])
    with pytest.raises(OptionsError, match="starts from default, search"):
        make_variants("other", spec)


def test_noise_is_a_ratio_so_that_schedules_compare() -> None:
    def ratios(name: str) -> list[float]:
        found = [v for v in make_variants("default", find_spec(name), ["noise"]) if v.overrides.get("noise_samples")]
        return [float(v.label.split()[0]) for v in found]

    # ddpm and rflow take other timesteps for the same noise; up to the steps of their schedules the ratios agree.
    np.testing.assert_allclose(ratios("maisi-ct-ddpm"), ratios("maisi-ct-rflow"), rtol=0.06, atol=0.005)


def test_variants_answer_as_the_matcher_does_and_scans_are_encoded_once(tmp_path: Path) -> None:
    (case,) = find_cases(str(write_pairs(tmp_path, 1)))
    stored = store_case(case, tmp_path / "case")
    scans = read_volume(stored.fixed), read_volume(stored.moving)
    counting = Counting()
    keeper = LatentKeeper(counting, tmp_path / "latents")  # type: ignore[arg-type]
    encodings = Encodings(keeper, ("up0", "up1", "up2", "up3", "mind"))
    for options in (
        {"levels": ("up1", "up2"), "prior": "none", "refine": False},
        {"levels": ("mind",), "prior": "identity"},
        {"levels": ("up2", "mind"), "prior": "identity", "noise_samples": 1, "timestep": 40},
    ):
        ours = AblationMatcher(encodings, "builtin", **options).pair(*scans).match(stored.asked)
        theirs = Matcher("builtin", store=False, device="cpu", **options).pair(*scans).match(stored.asked)  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours.moving.positions, theirs.moving.positions)
    assert counting.encoded == 2  # two scans
    assert counting.passes == 4  # with and without noise
    # After a restart latents are there already.
    again = Encodings(LatentKeeper(counting, tmp_path / "latents"), ("up0", "mind"))  # type: ignore[arg-type]
    AblationMatcher(again, "builtin", levels=("up0",), prior="none", refine=False).pair(*scans).match(stored.asked)
    assert counting.encoded == 2


def test_an_ablation_resumes_and_becomes_a_report(tmp_path: Path) -> None:
    cases = find_cases(str(write_pairs(tmp_path, 1)))
    lines: list[str] = []
    for sweeps in (["sharing"], ["sharing", "subvoxel"]):
        run_ablation(cases, tmp_path / "run", sweeps=sweeps, points=5, on_progress=lambda text, _: lines.append(text))
    worked = [line for line in lines if "subvoxel" in line or "sharing" in line or "base" in line]
    assert len(worked) == len(set(worked)) == 1 + 2 + 3
    tables = collect_ablation(tmp_path / "run")
    assert tables is not None
    assert [row.label for row in tables.sweep("default", "sharing", "landmarks")] == [
        "independent noise",
        "shared noise",
    ]
    page = write_report(None, tmp_path / "run")
    text = page.read_text(encoding="utf-8")
    assert "Ablation at landmarks points" in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "url(http" not in text
    header, *rows = (tmp_path / "run/ablation.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("base,sweep,variant,kind,cases,mean_mm")
    assert len(rows) == 1 + 3 + 2


def test_claims_follow_the_numbers() -> None:
    def claim(first: list[float], second: list[float]) -> str:
        means = float(np.mean(first)), float(np.mean(second))
        return Claim("default", "several beat one", "a", "b", means, compare_paired(first, second)).verdict

    cases = [1.0, 2, 3, 4, 5, 6]
    more = [1.5, 2.7, 3.9, 5.1, 6.3, 7.5]
    assert claim(cases, more) == "holds"
    assert claim(more, cases) == "does not hold: the opposite is true"
    # However clear, three cases decide nothing.
    assert claim(cases[:3], more[:3]) == "not decided by 3 cases, better in the mean"
    assert claim(more[:3], cases[:3]) == "not decided by 3 cases, worse in the mean"
    assert claim([1, 2], [1, 2]) == "makes no difference"
