"""Runs: resumable after a kill at any moment, failures are rows, settings decide about reuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_pairs import write_pairs

from meddift.errors import MissingFileError, OptionsError
from meddift.io import read_volume, write_volume
from meddift.volume import Volume
from meddift_lab.methods import Method, find_methods
from meddift_lab.methods import registry as registry_module
from meddift_lab.running.case import store_case
from meddift_lab.running.runner import RunSettings, read_result, result_key, run_methods, run_one
from meddift_lab.running.table_files import FILES, write_tables
from meddift_lab.running.tables import collect
from meddift_lab.sets import find_cases

CHEAP = ["identity", "translation"]


#: What `meddift evaluate run` does, without drawing the report.
PROGRAM = """
import sys
from pathlib import Path
from meddift_lab.methods import find_methods
from meddift_lab.running.runner import run_methods
from meddift_lab.sets import find_cases
from meddift_lab.running.table_files import write_tables
from meddift_lab.running.tables import collect
from meddift.io import read_volume, write_volume
from meddift.volume import Volume
data, out, *names = sys.argv[1:]
run_methods(find_cases(data), find_methods(names), Path(out))
write_tables(collect(Path(out)), Path(out))
"""


def command(pairs: Path, out: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(pairs), str(out), *CHEAP]


#: All but what tells times, and ablations, which are not tried here.
SAME = ("methods.csv", "cases.csv", "comparisons.csv")


def tables_of(folder: Path) -> dict[str, bytes]:
    """The tables that must not depend on how often a run was interrupted."""
    return {name: (folder / name).read_bytes() for name in FILES if name in SAME}


def test_a_run_killed_again_and_again_ends_with_the_same_tables(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    started = time.monotonic()
    subprocess.run(command(pairs, whole), check=True, capture_output=True)
    took = time.monotonic() - started
    for share in np.random.default_rng(7).uniform(0.2, 0.85, 3):
        process = subprocess.Popen(command(pairs, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(pairs, broken), check=True, capture_output=True)
    assert tables_of(broken) == tables_of(whole)
    assert not list(broken.rglob(".tmp-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_worker_does_not_outlive_its_runner(tmp_path: Path) -> None:
    # A parent that is already gone: the worker must not start to work for nobody.
    (tmp_path / "job.json").write_text(json.dumps({"parent": 1, "method": "identity"}))
    done = subprocess.run(
        [sys.executable, "-m", "meddift_lab.running.worker", tmp_path / "job.json", tmp_path / "answer.json"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert not (tmp_path / "answer.json").exists()


def test_errors_are_those_of_the_shift(tmp_path: Path) -> None:
    cases = find_cases(str(write_pairs(tmp_path, 2)))
    run_methods(cases, find_methods(CHEAP), tmp_path / "run")
    tables = collect(tmp_path / "run")
    means = {(row.method, row.case): row.errors.mean for row in tables.case_rows}
    # Points lie 1 mm beside the image of a shift by (4, -2, 6) and by twice as much; the grid moves with the scan.
    assert means["identity", "case-0"] == pytest.approx(np.linalg.norm([5, -2, 6]), abs=1e-6)
    assert means["identity", "case-1"] == pytest.approx(np.linalg.norm([9, -4, 12]), abs=1e-6)
    assert means["translation", "case-0"] == pytest.approx(1.0, abs=1e-6)
    (row,) = [row for row in tables.method_rows if row.method == "translation"]
    assert row.mean_mm is not None
    assert row.mean_mm.mean == pytest.approx(1.0, abs=1e-6)
    assert row.regularity == pytest.approx({"sdlogj": 0, "sdlogj_plus3": 0, "folding": 0}, abs=1e-6)


def a_method(home: str, **settings: object) -> Method:
    return Method("test", "a method of the tests", home, settings)


@pytest.fixture
def stored(tmp_path: Path) -> object:
    (case,) = find_cases(str(write_pairs(tmp_path, 1)))
    return store_case(case, tmp_path / "run" / "cases" / case.name)


def run_in(folder: Path, stored: object, method: Method, **settings: object) -> dict[str, object]:
    (folder / "run" / "results").mkdir(exist_ok=True)
    how = RunSettings(**{"timeout_s": 60.0, **settings})  # type: ignore[arg-type]
    return run_one(stored, method, folder / "run", settings=how)  # type: ignore[arg-type]


def test_a_method_that_fails_is_a_row(tmp_path: Path, stored: object) -> None:
    # The worker looks methods up by name, so one that it does not know fails there, not here.
    result = run_in(tmp_path, stored, a_method("nowhere:nothing"))
    assert result["status"] == "failed"
    assert "there is no method test" in str(result["reason"])
    # A failure is kept, and tried again only if asked.
    kept = read_result(tmp_path / "run/results/test/case-0.json")
    assert kept is not None
    before = (tmp_path / "run/results/test/case-0.json").stat().st_mtime_ns
    run_in(tmp_path, stored, a_method("nowhere:nothing"))
    assert (tmp_path / "run/results/test/case-0.json").stat().st_mtime_ns == before
    run_in(tmp_path, stored, a_method("nowhere:nothing"), retry_failed=True)
    assert (tmp_path / "run/results/test/case-0.json").stat().st_mtime_ns > before
    tables = collect(tmp_path / "run")
    (row,) = tables.method_rows
    assert (row.cases, len(row.failed), row.mean_mm) == (0, 1, None)
    write_tables(tables, tmp_path / "run")


def test_a_method_that_takes_too_long_is_stopped(tmp_path: Path, stored: object) -> None:
    started = time.monotonic()
    result = run_in(tmp_path, stored, find_methods(["meddift"])[0], timeout_s=0.2)
    assert time.monotonic() - started < 10
    assert result["reason"] == "stopped after 0.2 s"


def test_what_is_not_installed_is_skipped_and_tried_again(tmp_path: Path, stored: object) -> None:
    method = replace(find_methods(["identity"])[0], packages=("a-package-that-nobody-has",))
    result = run_in(tmp_path, stored, method)
    assert result["status"] == "skipped"
    assert "pip install a-package-that-nobody-has" in str(result["reason"])
    assert run_in(tmp_path, stored, find_methods(["identity"])[0])["status"] == "ok"


def test_settings_versions_and_scans_decide_about_reuse(tmp_path: Path, stored: object) -> None:
    method, settings = find_methods(["translation"])[0], RunSettings()
    key = result_key(stored, method, settings)  # type: ignore[arg-type]
    others = [
        (replace(stored, digest="another"), method, settings),  # type: ignore[type-var]
        (stored, replace(method, settings={"middle": "mass"}), settings),
        (stored, replace(method, packages=("numpy",)), settings),
        (stored, method, RunSettings(threads=2)),
        (stored, replace(method, own=True), settings),
    ]
    keys = {result_key(*other) for other in others}  # type: ignore[arg-type]
    assert len(keys) == len(others)
    assert key not in keys
    assert result_key(stored, method, RunSettings(timeout_s=5.0)) == key  # type: ignore[arg-type]


def test_a_damaged_result_counts_as_missing(tmp_path: Path, stored: object) -> None:
    run_in(tmp_path, stored, find_methods(["identity"])[0])
    path = tmp_path / "run/results/identity/case-0.json"
    path.write_text(path.read_text(encoding="utf-8")[:200])
    assert read_result(path) is None
    assert run_in(tmp_path, stored, find_methods(["identity"])[0])["status"] == "ok"
    assert read_result(path) is not None


def test_a_case_is_made_again_when_its_files_change(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 1)
    first = store_case(find_cases(str(pairs))[0], tmp_path / "case")
    (tmp_path / "fixed-0.mrk.json").write_text((tmp_path / "moving-0.mrk.json").read_text(encoding="utf-8") + " ")
    second = store_case(find_cases(str(pairs))[0], tmp_path / "case")
    assert second.digest != first.digest


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="there is no method magic"):
        find_methods(["magic"])
    with pytest.raises(OptionsError, match="at least one case"):
        run_methods([], find_methods(None), tmp_path)
    with pytest.raises(OptionsError, match="thread"):
        RunSettings(threads=0)
    with pytest.raises(OptionsError, match="timeout"):
        RunSettings(timeout_s=0)
    with pytest.raises(MissingFileError, match="no results"):
        collect(tmp_path)


def test_every_method_is_described_and_named_once() -> None:
    names = [method.name for method in registry_module.METHODS]
    assert len(set(names)) == len(names)
    for method in registry_module.METHODS:
        json.dumps(dict(method.settings))
        assert method.title
        module, _, function = method.home.partition(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_masks_and_label_maps_reach_the_table(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, 1)
    for side in ("fixed", "moving"):
        scan = read_volume(tmp_path / f"{side}-0.nii.gz")
        write_volume(Volume((scan.data > -500).astype(np.uint8), scan.grid), tmp_path / f"{side}-labels.nii.gz")
    header, line = path.read_text(encoding="utf-8").splitlines()
    columns = "fixed_mask,fixed_labels,moving_labels"
    path.write_text(f"{header},{columns}\n{line},fixed-labels.nii.gz,fixed-labels.nii.gz,moving-labels.nii.gz\n")
    run_methods(find_cases(str(path)), find_methods(["translation"]), tmp_path / "run")
    (row,) = collect(tmp_path / "run").method_rows
    # The moving scan is the fixed one on a shifted grid: shifted back, its labels are the same.
    assert row.dice == pytest.approx(1.0)
    assert row.hd95_mm == pytest.approx(0.0)
    (case,) = collect(tmp_path / "run").case_rows
    assert case.result["regularity"]["mask"] == "the mask of the data set"
    inner = read_volume(tmp_path / "fixed-labels.nii.gz").data[2:-2, 2:-2, 2:-2]
    assert case.result["regularity"]["voxels"] == inner.sum()
    assert case.result["field_off_points_mm"] == pytest.approx(0.0, abs=1e-5)
