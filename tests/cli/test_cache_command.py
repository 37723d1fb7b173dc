"""`meddift cache` shows what a match has kept, and removes it and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from command_scans import Case

Run = Any


@pytest.fixture
def kept(case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of features after one match of two scans."""
    monkeypatch.setenv("MEDDIFT_CACHE", str(case.folder / "cache"))
    monkeypatch.setenv("MEDDIFT_HOME", str(case.folder / "home"))
    arguments = [word for word in case.arguments() if word != "--no-store"]
    assert run(arguments).code == 0
    return case.folder / "cache" / "pyramids"


def test_what_is_kept_is_shown(kept: Path, run: Run) -> None:
    content = run(["cache", "show", "--json"]).json
    files = list(kept.glob("*/pyramid.safetensors"))
    assert content["features"]["folder"] == str(kept)
    assert content["features"]["scans"] == len(files) == 2
    assert content["features"]["bytes"] == sum(path.stat().st_size for path in files)
    assert content["weights"]["bytes"] == 0
    words = run(["cache", "show"]).stdout
    assert "2 scans" in words
    assert str(kept) in words


def test_only_features_are_removed(kept: Path, run: Run) -> None:
    (kept / "notes.txt").write_text("mine")
    outcome = run(["cache", "clear"])
    assert outcome.code == 0
    assert "2 scans" in outcome.stderr
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]


def test_features_in_use_stay(kept: Path, run: Run) -> None:
    first, second = sorted(kept.glob("*/pyramid.safetensors"))
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(first, (month_ago, month_ago))
    assert "of 1 scan " in run(["cache", "clear", "--unused-days", "30"]).stderr
    assert not first.exists()
    assert second.exists()
