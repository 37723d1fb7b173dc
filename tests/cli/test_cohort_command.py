"""`meddift cohort` from files to files, on the hand-made level alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_scans import textured, write_nifti

STEP = np.array([1, -1, 2])
ENGINE = ["--levels", "mind", "--prior", "identity", "--search-radius", "15", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    scan = textured((28, 28, 28))
    for k in range(3):
        write_nifti(tmp_path / f"s{k}.nii.gz", np.roll(scan, k * STEP, (0, 1, 2)))
    rows = ["a,s0.nii.gz,s1.nii.gz", "b,s1.nii.gz,s2.nii.gz", "c,s0.nii.gz,gone.nii.gz"]
    (tmp_path / "pairs.csv").write_text("\n".join(["case,fixed,moving", *rows]) + "\n")
    return tmp_path


@pytest.fixture
def meddift(pairs, run, monkeypatch):
    """The command in the folder of the table, in this process."""
    monkeypatch.chdir(pairs)

    def call(*words: str, code: int):
        found = run(["cohort", *words])
        assert found.code == code, found.stderr
        return found

    return call


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(pairs, meddift):
    found = meddift("pairs.csv", "--out", "out", "--dry-run", *ENGINE, code=0)
    assert "2 cases to do with 3 scans" in found.stdout
    assert "GB of memory" in found.stdout
    assert "gone.nii.gz" in found.stdout
    assert not (pairs / "out").exists()
    told = json.loads(meddift("pairs.csv", "--out", "out", "--dry-run", "--json", *ENGINE, code=0).stdout)
    assert (told["cases"], told["scans"], [row["case"] for row in told["refused"]]) == (2, 3, ["c"])


def test_a_prior_that_is_no_transform_is_said_before_any_case(pairs, run):
    (pairs / "prior.tfm").write_text("no transform")
    words = ["cohort", pairs / "pairs.csv", "--out", pairs / "out", "--levels", "mind", "--prior", pairs / "prior.tfm"]
    outcome = run(words)
    assert outcome.code == 1
    assert "prior.tfm" in outcome.stderr
    assert not (pairs / "out").exists()


def test_what_is_done_in_part_ends_with_code_3_and_goes_on(pairs, meddift):
    words = ["pairs.csv", "--out", "out", "--workers", "1", "--no-pictures", *ENGINE]
    found = meddift(*words, "--json", code=3)
    assert json.loads(found.stdout)["done"] == 2
    assert "cases" in found.stderr  # a line for each step, as stderr is no terminal
    write_nifti(pairs / "gone.nii.gz", textured((28, 28, 28)))
    found = meddift(*words, code=0)
    assert "3 cases: 3 done" in found.stdout
    assert "2 cases are over already" in found.stderr
    with (pairs / "out" / "cohort.tsv").open(newline="") as stream:
        assert [row["state"] for row in csv.DictReader(stream, delimiter="\t")] == ["done"] * 3
    before = (pairs / "out" / "cohort.tsv").read_bytes()
    (pairs / "out" / "cohort.tsv").unlink()
    meddift("report", "out", code=0)
    assert (pairs / "out" / "cohort.tsv").read_bytes() == before


def test_ctrl_c_keeps_what_was_finished_and_ends_with_code_3(pairs):
    words = ["pairs.csv", "--out", "out", "--workers", "1", "--no-pictures", *ENGINE]
    run = subprocess.Popen([sys.executable, "-m", "meddift", "cohort", *words], cwd=pairs, stderr=subprocess.PIPE)
    manifest = pairs / "out" / "manifest.jsonl"
    while not manifest.exists() or b'"scan"' not in manifest.read_bytes():
        time.sleep(0.01)
        assert run.poll() is None, run.stderr.read()
    os.kill(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 3, told
    assert b"goes on from there" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pairs.csv", "--out", "out", "--shard", "4/3"], "shard"),
        (["pairs.csv", "--out", "out", "--shard", "half"], "--shard"),
        (["pairs.csv", "--out", "out", "--do", "warp"], "match, register, track"),
        (["pairs.csv", "--out", "out", "--do", "track"], "table of patients"),
        (["pairs.csv", "--out", "out", "--no-store"], "--no-store"),
        (["pairs.csv", "--out", "."], "output folder"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(pairs, meddift, words, told):
    found = meddift(*words, code=2)
    assert told in found.stderr
    assert not (pairs / "out").exists()
