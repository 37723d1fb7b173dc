"""Folders that are kept, users without a home, and times of stages."""

from __future__ import annotations

import os
import time

import pytest

from meddift.errors import OutputError
from meddift.system.homes import cache_folder, data_folder
from meddift.system.timing import timed


@pytest.mark.parametrize(("folder", "variable"), [(data_folder, "MEDDIFT_HOME"), (cache_folder, "MEDDIFT_CACHE")])
def test_the_environment_decides(folder, variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "here"))
    assert folder() == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "here")
    assert folder() == tmp_path / "here"
    monkeypatch.delenv(variable)
    assert folder().is_absolute()
    assert "meddift" in folder().parts


@pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")
@pytest.mark.parametrize(("folder", "variable"), [(data_folder, "MEDDIFT_HOME"), (cache_folder, "MEDDIFT_CACHE")])
@pytest.mark.parametrize("named", ["", "~/kept"])
def test_a_user_without_home_directory_is_told_what_to_set(folder, variable, named, monkeypatch):
    import pwd

    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv(variable, named)
    with pytest.raises(OutputError, match=f"no home directory.*{variable}"):
        folder()


def test_times_of_stages_add_up_also_when_they_fail():
    seconds = {"encode": 1.0}
    with timed(seconds, "encode"):
        time.sleep(0.02)
    with pytest.raises(ValueError, match="no"), timed(seconds, "match"):
        raise ValueError("no")
    assert 1.02 <= seconds["encode"] < 2.0
    assert 0.0 <= seconds["match"] < 1.0
