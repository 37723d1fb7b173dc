"""Norms over the channels of a voxel: their formula, that crops do not change them, and how a model gets them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from checkpoints import write_spec, write_weights
from meddift.models import load_model


def test_each_voxel_is_normalised_over_its_channels_as_the_formula_says():
    import torch

    from meddift.models.voxel_norm import VoxelNorm

    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 6, 3, 4, 5)).astype(np.float32)
    weight, bias = rng.normal(size=(2, 6)).astype(np.float32)
    norm = VoxelNorm(6, 1e-3)
    norm.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    with torch.no_grad():
        found = norm(torch.from_numpy(x)).numpy()
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    shape = (1, 6, 1, 1, 1)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * weight.reshape(shape) + bias.reshape(shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_crop_is_described_as_the_whole_with_norms_by_voxel_and_otherwise_by_scan():
    import torch

    from meddift.models.voxel_norm import normalise_by_voxel

    torch.manual_seed(0)
    changes = {}
    whole = torch.randn(1, 4, 16, 16, 16)
    whole[..., 8:] += 5  # the crop does not show this
    for kind in ("scan", "voxel"):
        network = torch.nn.Sequential(
            torch.nn.Conv3d(4, 8, 3, padding=1), torch.nn.GroupNorm(4, 8), torch.nn.SiLU(),
            torch.nn.Conv3d(8, 8, 3, padding=1), torch.nn.GroupNorm(4, 8),
        )  # fmt: skip
        if kind == "voxel":
            normalise_by_voxel(network)
        with torch.no_grad():
            inside = (..., slice(2, 6))
            crop, same = network(whole[..., :8])[inside], network(whole)[inside]
        changes[kind] = float((crop - same).norm() / same.norm())
    assert changes["voxel"] < 1e-5
    assert changes["scan"] > 0.1


def test_a_specification_asks_for_norms_by_voxel_and_the_same_weights_files_serve(tmp_path):
    import torch

    from meddift.models.voxel_norm import VoxelNorm

    spec = write_spec(tmp_path, "haar")
    folder = write_weights(tmp_path / "weights", spec)
    asking = dataclasses.replace(spec, normalisation="voxel")
    models = [load_model(s, weights=folder) for s in (spec, asking)]
    plain, by_voxel = (model._unet for model in models)
    assert any(isinstance(module, torch.nn.GroupNorm) for module in plain.modules())
    assert not any(isinstance(module, torch.nn.GroupNorm) for module in by_voxel.modules())
    assert any(isinstance(module, VoxelNorm) for module in by_voxel.modules())
    theirs, ours = plain.state_dict(), by_voxel.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    x = torch.randn(1, 8, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (network(["up3"], x=x, timesteps=torch.tensor([20]))["up3"] for network in (plain, by_voxel))
    assert float((a - b).norm() / a.norm()) > 1e-3
    assert b.isfinite().all()


def test_an_unknown_normalisation_is_refused(tmp_path):
    from meddift.errors import ModelError
    from meddift.models.spec_reader import parse_spec

    write_spec(tmp_path, "haar")
    (file,) = tmp_path.glob("*.toml")
    text = 'normalisation = "batch"\n' + file.read_text()
    with pytest.raises(ModelError, match="normalisation must be one of scan, voxel"):
        parse_spec(text, source="a file")
