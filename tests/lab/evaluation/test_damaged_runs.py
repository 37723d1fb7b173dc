"""A run that was cut off anywhere is taken up again; workers know whether their runner is still there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meddift.errors import MissingFileError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.system.children import still_there
from meddift.volume import Volume
from meddift_lab.running.case import Case, CaseData, PointSet, restore_case, store_case
from meddift_lab.running.runner import read_result


def a_case() -> Case:
    data = np.random.default_rng(0).integers(-900, 400, (12, 12, 12)).astype(np.int16)
    scan, points = Volume(data, Grid((12, 12, 12), np.eye(4))), Points([[1, 2, 3], [4, 5, 6]])
    kinds = (PointSet("exact", points, points),)
    return Case("one", "test", lambda: CaseData(scan, scan, kinds), {"seed": 1})


@pytest.mark.parametrize("content", ["", "{", '{"layout": 2}', "[]", "null", "whole/2", "scan gone"])
def test_a_case_that_is_cut_or_empty_is_made_anew(tmp_path: Path, content: str) -> None:
    made = store_case(a_case(), tmp_path / "one")
    path = tmp_path / "one" / "case.json"
    if content == "scan gone":
        made.fixed.unlink()
    else:
        text = path.read_text()
        path.write_text(text[: len(text) // 2] if content == "whole/2" else content)
    with pytest.raises(MissingFileError, match="makes it anew"):
        restore_case(tmp_path / "one")
    again = store_case(a_case(), tmp_path / "one")
    assert again.digest == made.digest
    assert again.fixed.is_file()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"layout": 1}', '{"layout": 1, "key": 3}'])
def test_a_result_that_is_cut_or_empty_counts_as_missing(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    assert read_result(tmp_path / "result.json") is None


def test_a_runner_is_known_even_with_a_launcher_in_between() -> None:
    """As on Windows, where Python of a virtual environment starts another Python."""
    code = """
import json, sys
from meddift.system.children import still_there
print(json.dumps([still_there(int(sys.argv[1]), launched_directly=direct)() for direct in (False, True)]))
"""
    launcher = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {code!r}, *sys.argv[1:]]))"
    command = [sys.executable, "-c", launcher, str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, False]
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert not still_there(ended.pid, launched_directly=False)()
    assert still_there(os.getppid(), launched_directly=True)()
