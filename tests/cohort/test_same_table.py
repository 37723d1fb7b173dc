"""Whoever does the cases, and however often it is killed: the same table, nothing half-written, little done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.fake_cohort import FakeCohort
from cohort.fake_engine import DIES_ALWAYS, DIES_ONCE, FAILS, number_of
from meddift import cohort
from meddift.cohort.manifest import latest_results

_DRIVER = """
import sys
from pathlib import Path
from cohort.fake_cohort import FakeCohort
from meddift import cohort
fake = FakeCohort(Path(sys.argv[1]), cases=int(sys.argv[2]), scans=int(sys.argv[3]))
outcome = cohort.run(fake.plan("killed", workers=int(sys.argv[4])))
sys.exit(3 if outcome.stopped else 0)
"""

_RUN = "from meddift import cohort; from meddift.cohort.plan import *; from pathlib import *; cohort.run({plan!r})"


def table(fake: FakeCohort, out: str) -> bytes:
    return (fake.folder / out / "cohort.tsv").read_bytes()


def start(fake: FakeCohort, workers: int) -> subprocess.Popen:
    words = [fake.folder, fake.cases, fake.scans, workers]
    return subprocess.Popen([sys.executable, "-c", _DRIVER, *map(str, words)], stderr=subprocess.PIPE)


def nothing_is_half_written(folder: Path) -> None:
    assert not list(folder.rglob(".tmp-*"))
    for result in folder.glob("cases/*/result.json"):
        assert json.loads(result.read_text())["state"] in ("done", "failed", "refused")
    for file in folder.glob("sub-*/**/*_result.txt"):
        assert file.read_text() == f"{file.name.split('_')[0].removeprefix('sub-')}\n" * 50


def test_one_worker_four_workers_and_shards_make_the_same_table(fake):
    one = cohort.run(fake.plan("one", workers=1))
    four = cohort.run(fake.plan("four", workers=4))
    for number in (2, 3, 1):
        shard = cohort.run(fake.plan("shards", shard=(number, 3)))
        assert shard.table is None
    merged = cohort.report(fake.folder / "shards")
    assert table(fake, "one") == table(fake, "four") == table(fake, "shards")
    assert one.counts == four.counts == merged.counts
    assert one.total == 40
    assert sum(one.counts.values()) == 40
    nothing_is_half_written(fake.folder / "four")


def test_every_scan_is_encoded_once_and_every_case_is_run_once(fake):
    cohort.run(fake.plan("out", workers=4))
    asked = fake.asked("out")
    encoded = {what: count for what, count in asked.items() if what.startswith("encode")}
    assert set(encoded.values()) == {1}
    assert len(encoded) == 12
    for what, count in asked.items():
        if what.startswith("run") and not FAILS <= number_of(what.split()[1]) < DIES_ONCE:
            assert count == 1
    before = sum(asked.values())
    cohort.run(fake.plan("out", workers=4))
    assert sum(fake.asked("out").values()) == before


def test_what_goes_wrong_is_a_row_with_its_reason(fake):
    cohort.run(fake.plan("out", workers=3))
    rows = [line.split("\t") for line in table(fake, "out").decode().splitlines()]
    head = {name: i for i, name in enumerate(rows[0])}
    assert len(rows) == 41
    for row in rows[1:]:
        name, state, reason = (row[head[column]] for column in ("case", "state", "reason"))
        number = number_of(name)
        if "scan3.nii" in (row[head["fixed"]], row[head["moving"]]):
            assert (state, reason) == ("failed", "scan3.nii is no image")
        elif number < FAILS:
            assert (state, reason) == ("failed", f"ValueError: number {number} always fails")
        elif number < DIES_ALWAYS:
            assert state == "failed"
            assert "died 2 times" in reason
            result = json.loads((fake.folder / "out" / "cases" / name / "result.json").read_text())
            assert "SIGKILL" in result["death"]
            assert f"working on {name}" in (fake.folder / "out" / "cases" / name / "log.txt").read_text()
        else:
            assert (state, row[head["points"]]) == ("done", str(number))
            assert float(row[head["folding"]]) == pytest.approx(number / 7, abs=1e-4)


def kill_and_go_on(fake: FakeCohort, kills: int, workers: int, longest_s: float, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(kills):
        driver = start(fake, workers)
        time.sleep(draw.uniform(0.05, longest_s))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        driver.stderr.close()
    driver = start(fake, workers)
    assert driver.wait() == 0, driver.stderr.read()
    driver.stderr.close()
    cohort.run(fake.plan("whole", workers=2))
    assert table(fake, "killed") == table(fake, "whole")
    nothing_is_half_written(fake.folder / "killed")
    often = fake.asked("killed")
    anew = sum(
        often[what] - 1
        for what in often
        if what.startswith("run") and not FAILS <= number_of(what.split()[1]) < DIES_ONCE
    )
    assert anew <= kills * workers


def test_a_run_that_is_killed_goes_on_to_the_same_table(fake):
    kill_and_go_on(fake, kills=5, workers=3, longest_s=0.9, seed=1)


@pytest.mark.slow
def test_two_thousand_cases_killed_fifty_times(tmp_path):
    kill_and_go_on(FakeCohort(tmp_path / "many", cases=2000, scans=500), kills=50, workers=4, longest_s=2.0, seed=2)


def test_the_first_signal_lets_what_has_begun_finish_and_the_second_leaves_at_once(tmp_path):
    fake = FakeCohort(tmp_path / "data", cases=60, scans=20)
    driver = start(fake, 2)
    while len(latest_results(fake.folder / "killed")) < 3:
        time.sleep(0.01)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=20) == 3
    driver.stderr.close()
    over = latest_results(fake.folder / "killed")
    assert 3 <= len(over) < 60
    begun = {what.split()[1] for what in fake.asked("killed") if what.startswith("run")}
    assert {name for name in begun if not FAILS <= number_of(name) < DIES_ONCE} <= over.keys()

    slow = fake.plan("slow", told={"seconds": 30.0, "trouble": False})
    code = (
        f"from meddift import cohort; from meddift.cohort.plan import *; from pathlib import *; cohort.run({slow!r})"
    )
    began = time.monotonic()
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not fake.asked("slow"):
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert driver.poll() is None  # it waits for what has begun
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=20) != 0
    assert time.monotonic() - began < 20


def test_the_workers_of_a_killed_run_end_with_it(fake):
    plan = replace(fake.plan("slow", told={"seconds": 60.0}), workers=2)
    code = (
        f"from meddift import cohort; from meddift.cohort.plan import *; from pathlib import *; cohort.run({plan!r})"
    )
    driver = subprocess.Popen([sys.executable, "-c", code])
    while not fake.asked("slow"):
        time.sleep(0.02)
    import psutil

    workers = psutil.Process(driver.pid).children()
    assert len(workers) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert len(gone) == 2
