"""The loop: steps are taken, a run that was interrupted goes on as if it had not been, and its weights load."""

from __future__ import annotations

import sys

import nibabel
import numpy as np
import pytest
import torch

import train
from contestants import spec_of
from export import export_run
from meddift.models import load_model


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


def run(folders, name: str, steps: int, monkeypatch, *, stop_after: int | None = None) -> dict:
    """Train a tiny network in place of the real one; the checkpoint."""
    command = [
        "train.py", "--scans", folders / "ct", "--mr", folders / "mr", "--run", folders / name, "--steps", steps,
        "--voxels", 32**3, "--points", 80, "--channels", 16, 16, "--normalisation", "voxel", "--prediction", "v",
        "--spacing-mm", 4, "--device", "cpu", "--learning-rate", 0.06,  # of which the warm-up leaves a little
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
