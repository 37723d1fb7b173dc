"""For all tests: this folder is on the import path (shared helpers), and nobody's own data folder is touched."""

from __future__ import annotations

import signal

import pytest

# A shell lets what it starts in the background ignore Ctrl-C; tests of Ctrl-C need it, here and in what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh MEDDIFT_HOME and MEDDIFT_CACHE for every test."""
    monkeypatch.setenv("MEDDIFT_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("MEDDIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
