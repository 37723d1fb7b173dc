"""For all tests: this folder is on the import path (shared helpers), and nobody's own data folder is touched."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh MEDDIFT_HOME and MEDDIFT_CACHE for every test."""
    monkeypatch.setenv("MEDDIFT_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("MEDDIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
