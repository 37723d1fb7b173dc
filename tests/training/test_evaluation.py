"""The evaluation itself: intervals, shares with missing answers, patches, export, the place in the model card."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contestants import PATCH_ORDER, patch_level
from export import export_run, write_parts
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import SyntheticPair
from summary import (
    STATISTICS,
    as_csv,
    decisive,
    figure,
    folded,
    markdown,
    put_between_markers,
    resampled_rows,
    summarise,
)


def part(pair: str, contestant: str, errors: list[float | None], group: str = "scans") -> dict:
    return {
        "pair": pair, "group": group, "contestant": contestant, "kinds": ["vessels"] * len(errors),
        "errors_mm": {"global": errors},
    }  # fmt: skip


def test_a_point_without_an_answer_is_not_found():
    errors = np.array([1.0, 3.0, np.nan, 20.0])
    assert STATISTICS["median"](errors) == 3.0
    assert STATISTICS["within 5 mm"](errors) == 50.0
    assert STATISTICS["within 10 mm"](errors) == 50.0


def test_intervals_cover_the_truth_as_often_as_they_say():
    # Errors are exponential with a known median; one pair, so that only points are drawn anew.
    hits = 0
    for seed in range(60):
        errors = np.random.default_rng(seed).exponential(2.0, 60)
        found = figure(STATISTICS["median"], errors, resampled_rows([60], seed=seed)[:300])
        hits += found.low <= 2.0 * np.log(2) <= found.high
    assert 51 <= hits <= 60


def test_pairs_are_drawn_anew_as_wholes():
    # Two pairs without any spread inside: all that can vary is which pairs are drawn.
    errors = np.array([1.0] * 20 + [3.0] * 20)
    means = {float(errors[rows].mean()) for rows in resampled_rows([20, 20], seed=0)}
    assert means == {1.0, 2.0, 3.0}


def test_contestants_are_compared_on_the_same_points():
    noise = np.random.default_rng(0).exponential(4.0, 80)
    better = [float(e) for e in noise]
    worse = [float(e) + 1.0 for e in noise]
    rows = summarise([part("a", "one", better), part("a", "two", worse)], seed=0)
    pooled = {row["contestant"]: row for row in rows if row["pairs"] == "all scans"}
    ahead = pooled["two"]["figures"]["first is ahead"]
    expected = 100 * float(np.mean((noise <= 5) & (noise + 1 > 5)))
    assert ahead["value"] == pytest.approx(expected)
    # The unpaired interval of either share is far wider than that of their difference.
    wide = pooled["two"]["figures"]["within 5 mm"]
    assert ahead["high"] - ahead["low"] < 0.8 * (wide["high"] - wide["low"])
    assert ahead["low"] >= 0
    # Each point is a millimetre farther off, whichever points are drawn.
    behind = pooled["two"]["figures"]["median behind first"]
    assert [behind[key] for key in ("value", "low", "high")] == pytest.approx([1.0] * 3)


def test_an_unfinished_contestant_is_left_out_of_the_pool():
    rows = summarise(
        [part("a", "one", [1.0, 2.0]), part("b", "one", [1.0, 2.0]), part("a", "two", [1.0, 1.0])], seed=0
    )
    assert [r["contestant"] for r in rows if r["pairs"] == "all scans"] == ["one"]
    assert [r["contestant"] for r in rows if r["pairs"] == "a"] == ["one", "two"]
    assert "| one | 1.50 [" in markdown(rows)
    assert as_csv(rows).count("\n") == 1 + len(rows) * (len(STATISTICS) + 2)


def test_the_decisive_table_puts_search_and_preset_of_a_descriptor_on_one_line():
    near = {"global": [1.0, 2.0], "prior": [1.0, 1.5]}
    search = part("a", "MIND-SSC, whitened", [1.0, 2.0]) | {"errors_mm": near}
    preset = part("a", "MIND-SSC: default preset", []) | {
        "kinds": ["vessels"] * 2, "errors_mm": {"default": [0.25, 0.75]}, "verdicts": ["ok", "ok"],
        "absent": {"n": 0, "called_ok": 0},
    }  # fmt: skip
    rows = summarise([search, preset], seed=0)
    (line,) = [line for line in decisive(rows).splitlines() if line.startswith("| MIND")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert [cell.split(" ")[0] for cell in cells] == ["1.50", "100", "1.25", "100", "0.50", "0.50", "100"]
    assert "MIND-SSC: default preset" in folded(rows)


def test_end_to_end_says_what_its_verdicts_were_worth():
    done = part("a", "one", [1.0, 12.0, None, 2.0])
    done["errors_mm"] = {"default": done["errors_mm"]["global"]}
    done |= {"verdicts": ["ok", "ok", "outside", "uncertain"], "absent": {"n": 5, "called_ok": 1}}
    (row,) = [r for r in summarise([done], seed=0) if r["pairs"] == "a"]
    assert row["answered"] == 3
    assert row["verdicts"]["ok_percent"] == 50.0
    assert row["verdicts"]["ok_beyond_10mm"] == 1
    assert row["verdicts"]["ok_max_mm"] == 12.0
    assert "1 of 5" in markdown([row])


def test_patches_compare_like_raw_patches_without_their_mean():
    # Smooth noise: what the basis leaves out is small, and the cosine is that of whole 5 x 5 x 5 patches.
    from scipy import ndimage

    data = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(16, 15, 14)), 1.5).astype(np.float32)
    level = patch_level(Volume(data, Grid(data.shape, np.eye(4))))
    places = [(5, 6, 7), (8, 8, 8), (10, 4, 6), (3, 11, 9)]
    raw = np.stack([data[i - 2 : i + 3, j - 2 : j + 3, k - 2 : k + 3].ravel() for i, j, k in places])
    raw = raw - raw.mean(axis=1, keepdims=True)
    described = np.stack([level.features[place] for place in places])
    assert described.shape[1] == sum(
        0 < i + j + k <= PATCH_ORDER for i in range(5) for j in range(5) for k in range(5)
    )
    cosines = [(m / np.linalg.norm(m, axis=1, keepdims=True)) for m in (raw, described)]
    np.testing.assert_allclose(cosines[0] @ cosines[0].T, cosines[1] @ cosines[1].T, atol=0.02)
    # The basis is orthonormal: no descriptor is longer than its patch.
    assert (np.linalg.norm(described, axis=1) <= np.linalg.norm(raw, axis=1) * (1 + 1e-5)).all()


def test_export_splits_sorts_and_describes(tmp_path, monkeypatch):
    monkeypatch.setattr("export.PART_BYTES", 3000)
    tensors = {f"layer{i}": torch.full((20, 20), float(i)) for i in range(9)}
    (tmp_path / "run").mkdir()
    torch.save({"average": tensors, "step": 7, "seconds": 1800.0}, tmp_path / "run" / "checkpoint.pt")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"seed": 0}))
    out = tmp_path / "weights"
    write_parts({f"old{i}": torch.zeros(40, 40) for i in range(8)}, out, metadata={})
    assert "after 7 steps" in export_run(tmp_path / "run", out)
    files = sorted(out.glob("*.safetensors"))
    assert all(file.stat().st_size < 4000 for file in files)
    read = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert sorted(read) == sorted(tensors)
    assert all(torch.equal(read[name].float(), tensors[name]) for name in tensors)


def test_the_card_keeps_all_but_what_stands_between_the_markers(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("# Card\n<!-- evaluation: start -->\nold\n<!-- evaluation: end -->\nLimits\n")
    for block in ("\nnew\n", "\nnewer\n"):
        put_between_markers(card, "evaluation", block)
        expected = f"# Card\n<!-- evaluation: start -->{block}<!-- evaluation: end -->\nLimits\n"
        assert card.read_text() == expected
    with pytest.raises(SystemExit, match="compute: start"):
        put_between_markers(card, "compute", "x")


def test_points_of_a_task_have_exact_truth_and_the_same_expected_place_for_all(small_pair):
    from evaluation_pairs import PRIOR_ERROR_MM, make_task

    task, again = (make_task(small_pair, count=15, seed=3) for _ in range(2))
    assert set(task.kinds) == {"vessels", "body"}
    assert small_pair.moving.grid.contains(task.truth).all()
    np.testing.assert_array_equal(task.truth, small_pair.transform.apply(task.points.positions))
    away = np.linalg.norm(task.expected - task.truth, axis=1)
    assert away.max() <= PRIOR_ERROR_MM
    assert away.max() > 8
    np.testing.assert_array_equal(task.expected, again.expected)
    if len(task.absent):
        hidden = small_pair.transform.apply(task.absent.positions)
        assert not small_pair.moving.grid.contains(hidden).any()


@pytest.fixture(scope="module")
def small_pair() -> SyntheticPair:
    from meddift_lab.synthetic import phantom_pair

    return phantom_pair(3, spacing_mm=4.0, n_points=1)


def test_real_pairs_bring_their_own_points_and_tell_their_contrasts_by_name(tmp_path):
    import nibabel

    from evaluation_pairs import PRIOR_ERROR_MM, list_pairs, make_task

    data = np.random.default_rng(0).integers(0, 200, (8, 9, 10)).astype(np.int16)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    for name in ("study1_t1w", "study2_t1w", "study2_t2w"):
        nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
    places = np.array([[-3.0, -5.0, 6.0], [-10.0, -2.0, 20.0]])
    for name, shift in (("fixed", 0.0), ("moving", 4.0)):
        lines = [",".join(map(str, row)) for row in places + shift]
        (tmp_path / f"{name}.csv").write_text("r,a,s\n" + "\n".join(lines) + "\n")
    (tmp_path / "pairs.csv").write_text(
        "id,fixed,moving,fixed_points,moving_points,points_space\n"
        "same,study1_t1w.nii.gz,study2_t1w.nii.gz,fixed.csv,moving.csv,ras\n"
        "across,study1_t1w.nii.gz,study2_t2w.nii.gz,fixed.csv,moving.csv,ras\n"
    )
    same, across = list_pairs(None, seeds=1, phantoms=0, real=tmp_path / "pairs.csv")
    assert (same.name, same.group) == ("same", "real pairs, one contrast")
    assert (across.name, across.group) == ("across", "real pairs, two contrasts")
    task = make_task(across.make(), count=1, seed=0)
    np.testing.assert_allclose(task.points.positions, places)
    np.testing.assert_allclose(task.truth, places + 4.0)
    assert set(task.kinds) == {"landmarks"}
    assert len(task.kinds) == 2
    assert len(task.absent) == 0
    assert 0 < np.linalg.norm(task.expected - task.truth, axis=1).max() <= PRIOR_ERROR_MM
    np.testing.assert_array_equal(task.pair.fixed.data.shape, data.shape)


def test_weights_say_what_network_they_are_of(tmp_path):
    from contestants import spec_of
    from train import DEFAULTS, with_channels

    config = {**DEFAULTS, **with_channels([16, 32]), "residual_blocks": 2, "normalisation": "voxel", "prediction": "v"}
    write_parts({"a": torch.zeros(3)}, tmp_path, metadata={"steps": "1", "config": json.dumps(config)})
    spec = spec_of(tmp_path)
    assert tuple(spec.unet["num_channels"]) == (16, 32)
    assert spec.unet["num_res_blocks"] == 2
    assert (spec.normalisation, spec.schedule.prediction) == ("voxel", "v")
    assert spec.levels == spec.defaults.levels == ("up0", "up1")
