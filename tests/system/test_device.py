"""Which device computes what; machines with other devices are stood in for."""

from __future__ import annotations

import pytest
import torch

import meddift
from meddift.errors import OptionsError
from meddift.pipeline.runtime import Runtime
from meddift.system.device import choose_device


@pytest.fixture
def apple(monkeypatch):
    """A machine with a GPU of Apple's and none with CUDA."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("meddift.system.device._works", lambda device: device == "mps")


def test_on_mps_the_network_runs_there_and_all_else_on_the_processor(apple, monkeypatch):
    asked = []
    monkeypatch.setattr("meddift.models.load_model", lambda spec, **how: asked.append(how["device"]))
    settings = meddift.Matcher(device="mps", store=False).settings
    _ = settings.model
    assert asked == ["mps"]
    assert settings.runtime.device == "cpu"  # tensors of double precision, which mps does not know
    assert settings.provenance()["device"] == "mps"
    # Features that another device made are not taken for these.
    assert settings.key("scan") != meddift.Matcher(device="cpu", store=False).settings.key("scan")


def test_mps_is_never_chosen_without_being_asked_for(apple):
    assert choose_device("auto") == "cpu"


@pytest.mark.parametrize("there", [False, True])
def test_a_machine_without_mps_says_so(there, monkeypatch):
    """Not there, or there and not working: a macOS that is too old."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    monkeypatch.setattr("meddift.system.device._works", lambda device: False)
    with pytest.raises(OptionsError, match="no GPU of Apple's"):
        _ = Runtime(device="mps").device


@pytest.mark.parametrize("name", ["mps:1", "gpu", "cuda:x", ""])
def test_other_names_are_refused_before_any_work(name):
    with pytest.raises(OptionsError, match="a device is auto, cpu, cuda, cuda:N or mps"):
        meddift.Matcher(device=name)


def test_a_card_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(OptionsError, match=r"there are cuda:0 to cuda:1"):
        choose_device("cuda:2")
