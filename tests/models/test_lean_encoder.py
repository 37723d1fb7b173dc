"""The encoder in slabs gives what MONAI's own encoder gives for the whole, whatever the shape."""

from __future__ import annotations

import pytest
import torch

from meddift.models import find_spec, lean_encoder
from meddift.models.loader import PosteriorEncoder
from meddift.models.monai_import import monai_autoencoder


def autoencoder(**changes):
    options = dict(find_spec("maisi-ct-ddpm").latent.network)
    options |= {"num_channels": [16, 32, 32], "norm_num_groups": 8, "latent_channels": 3} | changes
    torch.manual_seed(1)
    plain = {"use_flash_attention": False, "norm_float16": False, "num_splits": 1, "save_mem": False}
    network = monai_autoencoder()(spatial_dims=3, **options, **plain).eval().requires_grad_(False)
    for parameter in network.parameters():  # norms start as ones and zeros, which would hide a wrong use of them
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("kept", [0, 300_000, 10**9])
@pytest.mark.parametrize("numbers", [1, 30_000, 10**9])
@pytest.mark.parametrize("shape", [(32, 32, 32), (23, 17, 30), (8, 8, 64)])
def test_slabs_of_any_thickness_are_the_whole(monkeypatch, numbers, kept, shape):
    monkeypatch.setattr(lean_encoder, "SLAB_NUMBERS", numbers)
    network = autoencoder()
    # Far from zero mean: statistics that cancel would show.
    image = 5 + torch.rand(1, 1, *shape)
    before = image.clone()
    expected = network.encoder(image)
    found = lean_encoder.encode_lean(network.encoder, image, hidden_bytes=kept)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
    torch.testing.assert_close(image, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_res_blocks": [1, 3, 1]},
        {"num_channels": [16, 16, 32]},
        {"num_channels": [16, 32], "num_res_blocks": [2, 2], "attention_levels": [False, True]},
        {"with_encoder_nonlocal_attn": True},
    ],
)
def test_other_encoders_of_the_same_kind(monkeypatch, changes):
    monkeypatch.setattr(lean_encoder, "SLAB_NUMBERS", 20_000)
    network = autoencoder(**changes)
    image = torch.rand(1, 1, 24, 16, 20)
    expected = network.encoder(image)
    torch.testing.assert_close(lean_encoder.encode_lean(network.encoder, image), expected, rtol=2e-5, atol=2e-5)


def test_the_posterior_is_that_of_the_autoencoder():
    network = autoencoder()
    image = torch.rand(1, 1, 16, 24, 20)
    assert lean_encoder.understands(network.encoder)
    for found, expected in zip(PosteriorEncoder(network)(image), network.encode(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_what_is_no_such_encoder_is_left_alone():
    assert not lean_encoder.understands(torch.nn.Conv3d(1, 1, 3))
