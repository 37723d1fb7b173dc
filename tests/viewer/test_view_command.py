"""`meddift view`: what is refused before it begins, what is remembered, and a server that ends when it is told to."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from meddift.geometry import Grid
from meddift.io import write_volume
from meddift.pipeline import Matcher
from meddift.viewer.opening import store_session
from meddift.viewer.recent import read_recent, recent_file, remember, told_apart
from meddift.volume import Volume


@pytest.fixture
def scans(tmp_path: Path) -> tuple[Path, Path]:
    """Two small scans with noise, in a folder named after a patient."""
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    grid = Grid((20, 22, 24), np.diag([4.0, 4.0, 4.0, 1.0]))
    paths = folder / "old.nii.gz", folder / "new.nii.gz"
    for seed, path in enumerate(paths):
        values = np.random.default_rng(seed).normal(0, 200, grid.shape).astype(np.int16)
        write_volume(Volume(values, grid), path)
    return paths


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDDIFT_STATE", str(tmp_path / "state"))


def run(*arguments: object) -> tuple[int, str]:
    from meddift.cli.app import app

    result = CliRunner().invoke(app, ["view", *map(str, arguments)])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give two scans"),
        (["a.nii.gz"], 2, "one scan is no pair"),
        (["a.nii.gz", "b.nii.gz", "--store"], 2, "only one of these"),
        (["--store", "--points", "p.csv"], 2, "belong to two scans"),
        (["--store"], 1, "no pair was opened lately"),
        (["--follow-up", "nowhere"], 1, "holds no result of `meddift track`"),
        (["nowhere.nii.gz", "b.nii.gz"], 1, "nowhere.nii.gz"),
    ],
)
def test_what_makes_no_sense_is_said(arguments: list[str], code: int, said: str) -> None:
    ended, told = run(*arguments)
    assert (ended, said in told) == (code, True), told


def test_without_the_extra_it_says_how_to_get_it(scans, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    code, told = run(*scans)
    assert code == 2
    assert "pip install 'meddift[viewer]'" in told


def test_points_of_other_scans_are_not_overwritten(scans, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "not made by this command" in run(*scans, "--out", out)[1]
    (out / "notes.txt").unlink()
    (out / "points.json").write_text(json.dumps({"version": 1, "scans": ["a", "b"], "points": []}))
    code, told = run(*scans, "--out", out)
    assert code == 1
    assert "holds points of two other scans" in told


def test_pairs_are_remembered_for_their_owner_alone_and_told_without_names(scans, tmp_path: Path) -> None:
    matcher = Matcher(levels=("mind",), store=False, prior="identity", search_radius_mm=9.0)
    about = [told_apart(matcher.scan(path), path) for path in scans]
    remember(*scans, tmp_path / "out", about=(about[0], about[1]))
    remember(scans[1], scans[0], tmp_path / "out", about=(about[1], about[0]))
    remember(*scans, tmp_path / "out", about=(about[0], about[1]))
    assert [Path(pair.fixed).name for pair in read_recent()] == ["old.nii.gz", "new.nii.gz"]
    assert stat.S_IMODE(recent_file().stat().st_mode) == 0o600
    session = store_session(matcher)
    told = session.recent()
    assert "20 × 22 × 24 voxels of 4 × 4 × 4 mm" in told[0]["about"][0]
    assert [pair["number"] for pair in told] == [0, 1]
    assert "DOE" not in json.dumps(told)
    session.open_recent(0)
    assert session.the_desk.folder == tmp_path / "out"
    session.close()
    scans[0].unlink()
    assert read_recent() == []
    assert run("--forget")[0] == 0
    assert not recent_file().exists()


def test_the_server_prints_its_address_answers_and_ends_with_ctrl_c(scans, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "meddift",
        "view",
        *map(str, scans),
        "--no-browser",
        "--out",
        str(tmp_path / "out"),
    ]
    command += ["--levels", "mind", "--prior", "identity", "--search-radius", "9", "--no-store"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            address, _, token = process.stdout.readline().strip().partition("?token=")
            assert address.startswith("http://127.0.0.1:")
            with httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
                assert client.get("api/v1/session").json()["mode"] == "pair"
                with client.stream("GET", "api/v1/events") as events:
                    assert next(events.iter_lines()).startswith("data:")
                    process.send_signal(signal.SIGINT)
                    assert process.wait(timeout=60) == 0
        finally:
            process.kill()  # a failure must not leave a server that the test waits for
        said = process.stderr.read() if process.stderr is not None else ""
    # Neither errors nor, in the log, the token and the names of files.
    assert said.strip() == "Ctrl-C ends it."
    assert token not in said
