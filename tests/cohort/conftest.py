from __future__ import annotations

import os
from pathlib import Path

import pytest

import meddift
from cohort.fake_cohort import FakeCohort


@pytest.fixture(autouse=True)
def _same_code_in_children(monkeypatch):
    """Whatever these tests start finds the same meddift and the fake engine."""
    folders = [Path(meddift.__file__).parent.parent, Path(__file__).parent.parent]
    given = filter(None, [os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), *given]))


@pytest.fixture
def fake(tmp_path):
    return FakeCohort(tmp_path / "data")
