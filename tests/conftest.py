"""For all tests: this folder is on the import path (shared helpers), and nobody's own data folder is touched."""

from __future__ import annotations

import os
import signal

import pytest

# Read by PyTorch when it is loaded. Processes that share the processors must not wait for each other by spinning: it
# makes tests five times slower. One thread for each of several processes is quicker still.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell lets what it starts in the background ignore Ctrl-C; tests of Ctrl-C need it, here and in what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup leaves it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh MEDDIFT_HOME and MEDDIFT_CACHE for every test."""
    monkeypatch.setenv("MEDDIFT_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("MEDDIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
