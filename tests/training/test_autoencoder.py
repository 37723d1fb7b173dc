"""The learned latent stage: what the trainer sees is what the package's loader serves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autoencoder import NETWORK, build_autoencoder, encode_mean, load_autoencoder
from contestants import UP, encoder_levels, spec_of
from export import write_parts
from meddift.features import ExtractionOptions, extract_pyramid
from meddift.geometry import Grid
from meddift.models import load_model, prepare_volume
from meddift.volume import Volume
from train import DEFAULTS, ON_AUTOENCODER, build_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained autoencoder and U-Net, as the trainer and the export write them."""
    path = tmp_path_factory.mktemp("latent")
    torch.manual_seed(0)
    tensors = {name: value.half().contiguous() for name, value in build_autoencoder(NETWORK).state_dict().items()}
    save_file(tensors, path / "autoencoder.safetensors")
    (path / "autoencoder.json").write_text(json.dumps({"network": NETWORK, "scale_factor": 1.7}))
    network = build_network({**DEFAULTS, **ON_AUTOENCODER})
    write_parts(network.state_dict(), path, metadata={"steps": "0"})
    return path


@pytest.fixture(scope="module")
def scan() -> Volume:
    data = np.random.default_rng(0).normal(-300, 300, (40, 36, 44)).astype(np.float32)
    return Volume(data, Grid(data.shape, np.diag([2.0, 2.0, 2.0, 1.0])))


def test_the_loader_of_the_package_gives_the_latent_of_the_trainer(folder, scan):
    model = load_model(spec_of(folder), weights=folder)
    prepared = model.prepare(scan)
    network, factor = load_autoencoder(folder)
    with torch.no_grad():
        expected = encode_mean(network, torch.from_numpy(prepared.data)) * factor
    latent = model.encode(prepared)
    np.testing.assert_allclose(latent.data, expected.numpy(), atol=1e-4)
    assert latent.grid.same_as(prepared.grid.downsampled(4))


def test_levels_of_the_network_and_of_the_encoder_cover_the_same_scan(folder, scan):
    model = load_model(spec_of(folder), weights=folder)
    pyramid = extract_pyramid(scan, model, ExtractionOptions(timestep=20, levels=UP[:3], noise_samples=0))
    assert [round(float(level.grid.spacing[0])) for level in pyramid.levels] == [16, 8, 8]
    prepared = prepare_volume(scan, model.spec)
    coarse, fine = encoder_levels(folder, prepared)
    assert (coarse.name, fine.name) == ("enc1", "enc0")
    assert fine.grid.same_as(prepared.grid)
    assert coarse.features.shape[:3] == tuple(n // 2 for n in prepared.data.shape)
    assert np.isfinite(coarse.features).all()
