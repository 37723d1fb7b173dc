"""The loop: steps are taken, a run that was interrupted goes on as if it had not been, and its weights load."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

import train
from contestants import spec_of
from export import export_run
from kept_scans import Gathering, gather_or_take
from meddift.models import load_model
from rendering import Batch


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One small CT and one small MR patient with two contrasts."""
    base = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.arange(40) - 20,) * 3, indexing="ij")
    body = (x**2 + y**2 + z**2) < 17**2
    texture = rng.normal(size=(40, 40, 40))
    (base / "ct").mkdir()
    (base / "mr").mkdir()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    hu = np.where(body, 40 + 120 * texture, -1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, affine), base / "ct" / "someone.nii.gz")
    for name, sign in (("T1", 1), ("T2", -1)):
        signal = np.where(body, 500 + sign * 100 * texture, 0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(signal, affine), base / "mr" / f"patient_{name}.nii.gz")
    return base


def run(folders, name: str, steps: int, monkeypatch, *, stop_after: int | None = None, more: tuple = ()) -> dict:
    """Train a tiny network in place of the real one; the checkpoint."""
    command = [
        "train.py", "--scans", folders / "ct", "--mr", folders / "mr", "--run", folders / name, "--steps", steps,
        "--voxels", 32**3, "--points", 80, "--channels", 16, 16, "--normalisation", "voxel", "--prediction", "v",
        "--spacing-mm", 4, "--device", "cpu", "--learning-rate", 0.06,  # of which the warm-up leaves a little
        *more,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    # Heads of 48 channels do not divide 16.
    monkeypatch.setattr(
        train, "with_channels", lambda c: {"channels": c, "attention": [False] * 2, "head_channels": [0, 16]}
    )
    if stop_after is not None:
        sys.argv += ["--save-every", "0"]
        real, taken = train.train_on, []

        def interrupted(*args, **kwargs):
            if len(taken) == stop_after:
                raise KeyboardInterrupt
            taken.append(1)
            return real(*args, **kwargs)

        monkeypatch.setattr(train, "train_on", interrupted)
    train.main()
    return torch.load(folders / name / "checkpoint.pt", weights_only=True)


def test_a_run_that_was_interrupted_ends_where_one_that_was_not_ends(folders, monkeypatch):
    with monkeypatch.context() as patched:
        straight = run(folders, "straight", 4, patched)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        run(folders, "resumed", 4, patched, stop_after=2)
    kept = torch.load(folders / "resumed" / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 2
    with monkeypatch.context() as patched:
        resumed = run(folders, "resumed", 4, patched)
    assert straight["step"] == resumed["step"] == 4
    for part in ("network", "average"):
        changes = [float((straight[part][k] - resumed[part][k]).abs().max()) for k in straight[part]]
        assert max(changes) < 1e-6
    moved = [float((kept["network"][k] - resumed["network"][k]).abs().max()) for k in kept["network"]]
    assert max(moved) > 1e-3


def test_exported_weights_load_into_the_network_that_they_were_trained_for(folders, monkeypatch):
    with monkeypatch.context() as patched:
        trained = run(folders, "exported", 1, patched)
    assert "after 1 steps" in export_run(folders / "exported", folders / "weights")
    spec = spec_of(folders / "weights")
    assert (spec.normalisation, spec.schedule.prediction, spec.grid.spacing_mm) == ("voxel", "v", 4.0)
    loaded = load_model(spec, weights=folders / "weights")._unet.state_dict()
    assert loaded.keys() == trained["average"].keys()
    assert all(torch.allclose(loaded[k], v, atol=1e-3) for k, v in trained["average"].items())


def test_a_run_that_is_told_to_end_saves_and_ends(folders, monkeypatch):
    real, taken = train.train_on, []

    def told(*args, **kwargs):
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(train, "train_on", told)
    before = signal.getsignal(signal.SIGTERM)
    assert run(folders, "told", 50, monkeypatch, more=("--noise-share", 0.75))["step"] == 2
    assert signal.getsignal(signal.SIGTERM) == before
    config = json.loads((folders / "told" / "config.json").read_text())
    assert config["noise_share"] == 0.75


def test_a_step_whose_gradient_is_not_finite_changes_nothing(folders, monkeypatch):
    real, taken = train.train_on, []

    def broken(*args, **kwargs):
        loss, figures = real(*args, **kwargs)
        taken.append(1)
        return loss * (float("nan") if len(taken) > 1 else 1), figures

    with monkeypatch.context() as patched:
        once = run(folders, "finite", 1, patched)
    monkeypatch.setattr(train, "train_on", broken)
    twice = run(folders, "broken", 2, monkeypatch)
    # The first step of either run has its own learning rate; it is the direction that a second one would change.
    assert twice["step"] == 2
    moved = {k: twice["network"][k] - once["network"][k] for k in once["network"]}
    assert all(bool(torch.isfinite(value).all()) for value in moved.values())
    assert max(float(value.abs().max()) for value in moved.values()) < 1e-6
    assert all(float(state["step"]) == 1 for state in twice["optimizer"]["state"].values())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_pairs_with_noise_is_what_was_asked_for(share):
    """The network is shown the latent as it is, but for its scale, or with noise on top."""
    images = torch.rand(2, 6, 16, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    batch = Batch(images, torch.zeros(2, 6, 4, 3), torch.zeros(6, 4, 3), torch.full((3,), 16.0), ("CT",) * 6)
    kept = torch.linspace(1.0, 0.01, 1000)
    given = []

    def network(latent, timesteps):
        given.append(latent.float())
        return latent

    network.up_blocks = []
    settings = {"correspondence": False, "noise_share": share, "prediction": "sample"}
    train.train_on(network, batch, settings, kept, generator=torch.Generator().manual_seed(1), encode=train.haar)
    clean = train.haar(images.flatten(0, 1)).flatten(1)
    likeness = torch.nn.functional.cosine_similarity(given[0].flatten(1), clean, dim=1)
    assert len(likeness) == 12
    assert bool((likeness > 0.9999).all()) == (share == 0)
    assert bool((likeness < 0.9999).all()) == (share == 1)


def test_kept_scans_are_those_that_were_asked_for(folders, tmp_path, monkeypatch):
    wanted = Gathering(str(folders / "ct"), "", 4.0, 0, 0.3, 0, 0.3)
    monkeypatch.setattr(Gathering, "gather", lambda self: [self.spacing_mm])
    file = tmp_path / "scans.pt"
    assert gather_or_take(wanted, file) == [4.0]
    monkeypatch.setattr(Gathering, "gather", None)  # not read again
    assert gather_or_take(wanted, file) == [4.0]
    for change in ({"spacing_mm": 2.0}, {"scans": "elsewhere"}, {"mr": "there"}, {"phantoms": 3}, {"shapes": 1}):
        name, value = next(iter(change.items()))
        with pytest.raises(SystemExit, match=f"{name} .*asks for {value!r}"):
            gather_or_take(replace(wanted, **change), file)
    torch.save([4.0], file)  # as earlier versions wrote it
    with pytest.raises(SystemExit, match="keeps scans with scans None"):
        gather_or_take(wanted, file)
