from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from checkpoints import monai_unet, tensors, write_spec, write_weights
from meddift.errors import GeometryError, OptionsError
from meddift.geometry import Grid
from meddift.models import haar_forward, load_model
from meddift.volume import Volume

LEVELS = ["middle", "up0", "up1", "up2", "up3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(folder):
    """One tiny model of each kind, loaded from files."""
    specs = {kind: write_spec(folder, kind, scale_factor=0.5) for kind in ("ddpm", "rflow", "haar")}
    return {kind: load_model(spec, weights=write_weights(folder / kind, spec)) for kind, spec in specs.items()}


@pytest.fixture(scope="module")
def latents(models):
    """A latent of each model with axes of unequal length."""
    found = {}
    for kind, model in models.items():
        shape = tuple(n * model.spec.multiple for n in (1, 2, 1))
        data = np.random.default_rng(3).random(shape, dtype=np.float32)
        found[kind] = model.encode(Volume(data, Grid(shape, np.diag([2.0, 1.5, 3.0, 1.0]))))
    return found


def plain_network(spec):
    """The same network built anew: MONAI's own constructor and attention, weights copied in strictly."""
    network = monai_unet()(spatial_dims=3, **spec.unet).eval()
    wanted = network.state_dict().keys()
    network.load_state_dict({name: value for name, value in tensors(spec, "unet").items() if name in wanted})
    return network


def by_hand(network, x, timestep, **told):
    """The forward pass written out block by block, without hooks; every block's output, and the network's."""
    import torch

    found = {}
    with torch.no_grad():
        time = torch.tensor([timestep])
        emb = network._get_time_and_class_embedding(x, time, told.get("class_labels"))
        inputs = (told.get(f"{name}_tensor") for name in ("top_region_index", "bottom_region_index", "spacing"))
        emb = network._get_input_embeddings(emb, *inputs)
        h, skips = network._apply_down_blocks(network.conv_in(x), emb, None, None)
        h = found["middle"] = network.middle_block(h, emb, None)
        for number, block in enumerate(network.up_blocks):
            count = len(block.resnets)
            h = block(hidden_states=h, res_hidden_states_list=skips[-count:], temb=emb, context=None)
            skips = skips[:-count]
            found[f"up{number}"] = h
        output = network.out(h)
        assert torch.equal(output, network(x, time, **told))
        assert output.abs().max() > 0
    return {name: value[0].numpy() for name, value in found.items()}


CONDITIONS = {
    "ddpm": {
        "top_region_index_tensor": [[0.0, 100.0, 0.0, 0.0]],
        "bottom_region_index_tensor": [[0.0, 100.0, 0.0, 0.0]],
        "spacing_tensor": [[200.0, 150.0, 300.0]],
    },
    "rflow": {"class_labels": [1], "spacing_tensor": [[200.0, 150.0, 300.0]]},
    "haar": {},
}


@pytest.mark.parametrize("kind", ["ddpm", "rflow", "haar"])
def test_levels_are_those_of_a_full_pass_of_the_same_network_written_out(kind, models, latents) -> None:
    import torch

    model, latent = models[kind], latents[kind]
    # abar of step 20: the product of 1 - beta over 21 steps, betas linear in their roots.
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000)[:21] ** 2
    kept = float(np.prod(1 - betas))
    signal, noise = (1 - 0.02, 0.02) if kind == "rflow" else (kept**0.5, (1 - kept) ** 0.5)
    eps = torch.randn((1, *latent.data.shape), generator=torch.Generator().manual_seed(11)).numpy()
    x = torch.from_numpy((signal * latent.data[None] + noise * eps).astype(np.float32))
    told = {name: torch.tensor(value) for name, value in CONDITIONS[kind].items()}
    expected = by_hand(plain_network(model.spec), x, 20, **told)
    found = model.levels(latent, timestep=20, levels=LEVELS, noise_seed=11)
    assert list(found) == LEVELS
    for name in LEVELS:
        assert found[name].data.dtype == np.float32
        assert found[name].data.shape == expected[name].shape
        scale = np.abs(expected[name]).max()
        assert scale > 0.1
        np.testing.assert_allclose(found[name].data, expected[name], atol=2e-5 * scale)
        # Every level covers the field of view of the latent.
        np.testing.assert_allclose(found[name].grid.extent, latent.grid.extent)
        np.testing.assert_allclose(found[name].grid.center, latent.grid.center)


@pytest.mark.parametrize("wanted", [["up0"], ["middle"], ["up2", "up0"], ["up3", "middle"]])
def test_stopping_early_changes_nothing(wanted, models, latents) -> None:
    model = models["ddpm"]
    everything = model.levels(latents["ddpm"], timestep=20, levels=LEVELS, noise_seed=None)
    some = model.levels(latents["ddpm"], timestep=20, levels=wanted, noise_seed=None)
    assert list(some) == wanted
    for name in wanted:
        np.testing.assert_array_equal(some[name].data, everything[name].data)


def test_the_pass_ends_with_the_last_wanted_block(models, latents) -> None:
    model = models["haar"]
    ran = []
    blocks = [*model._unet.up_blocks, model._unet.out]
    handles = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(blocks)]
    model.levels(latents["haar"], timestep=20, levels=["up1", "up0"], noise_seed=None)
    for handle in handles:
        handle.remove()
    # Block 1 was left through the exception of a hook registered after this one, or before it.
    assert ran in ([0], [0, 1])


def hook_count(model) -> int:
    return sum(len(module._forward_hooks) for module in model._unet.modules())


def test_no_hook_is_left_after_success_or_failure(models, latents, monkeypatch) -> None:
    model, latent = models["ddpm"], latents["ddpm"]
    model.levels(latent, timestep=20, levels=["up1"], noise_seed=None)
    assert hook_count(model) == 0

    def broken(*_args, **_kwargs):
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(model._unet.up_blocks[1], "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory, say"):
        model.levels(latent, timestep=20, levels=["up0", "up3"], noise_seed=None)
    assert hook_count(model) == 0
    monkeypatch.undo()
    assert list(model.levels(latent, timestep=20, levels=["up3"], noise_seed=None)) == ["up3"]


def test_noise_depends_on_the_seed_only_and_none_adds_none(models, latents) -> None:
    model, latent = models["haar"], latents["haar"]

    def read(seed, timestep=100):
        return model.levels(latent, timestep=timestep, levels=["up3"], noise_seed=seed)["up3"].data

    np.testing.assert_array_equal(read(5), read(5))
    assert np.abs(read(5) - read(6)).max() > 1e-3
    assert np.abs(read(5) - read(None)).max() > 1e-3


def test_noiseless_latents_are_still_scaled_as_at_the_timestep(models, latents, monkeypatch) -> None:
    model, latent = models["rflow"], latents["rflow"]
    given = {}
    monkeypatch.setattr(
        model._unet.conv_in, "forward", lambda x, old=model._unet.conv_in.forward: given.update(x=x) or old(x)
    )
    model.levels(latent, timestep=250, levels=["middle"], noise_seed=None)
    np.testing.assert_allclose(given["x"][0].numpy(), 0.75 * latent.data, rtol=1e-6)


def test_spacing_told_is_the_networks_unless_another_is_given(models, latents) -> None:
    model, latent = models["ddpm"], latents["ddpm"]

    def read(spacing):
        return model.levels(latent, timestep=20, levels=["up3"], noise_seed=None, spacing=spacing)["up3"].data

    np.testing.assert_array_equal(read(None), read([2.0, 1.5, 3.0]))
    assert np.abs(read(None) - read([1.0, 1.0, 1.0])).max() > 1e-4
    for wrong in ([1.0, 1.0], [1.0, 0.0, 1.0], [1.0, np.nan, 1.0]):
        with pytest.raises(GeometryError, match="three positive numbers"):
            read(wrong)


def test_encode_is_monais_posterior_times_the_scale_factor(models) -> None:
    import torch

    from meddift.models.monai_import import monai_autoencoder

    model = models["ddpm"]
    autoencoder = monai_autoencoder()(spatial_dims=3, num_splits=1, save_mem=False, **model.spec.latent.network).eval()
    autoencoder.load_state_dict(tensors(model.spec, "autoencoder"))
    image = np.random.default_rng(0).random((32, 64, 32), dtype=np.float32)
    with torch.no_grad():
        mean, deviation = (part[0].numpy() for part in autoencoder.encode(torch.from_numpy(image)[None, None]))
    prepared = Volume(image, Grid(image.shape, np.diag([2.0, 2.0, 2.0, 1.0])))
    code = model.encode(prepared)
    np.testing.assert_allclose(code.data, mean * model.scale_factor, atol=1e-5)
    np.testing.assert_allclose(code.grid.spacing, 8.0)
    np.testing.assert_allclose(code.grid.origin, 3.0)
    one, same, other = (model.encode(prepared, latent="sample", seed=seed).data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    eps = torch.randn((1, *mean.shape), generator=torch.Generator().manual_seed(1))[0].numpy()
    np.testing.assert_allclose(one, (mean + deviation * eps) * model.scale_factor, atol=1e-5)


def test_haar_latents_are_scaled_by_the_spec(models) -> None:
    image = np.random.default_rng(0).random((16, 32, 16), dtype=np.float32)
    code = models["haar"].encode(Volume(image, Grid(image.shape, np.eye(4))))
    np.testing.assert_allclose(code.data, 0.5 * haar_forward(image), atol=1e-6)


def test_a_whole_scan_goes_through(models) -> None:
    model = models["haar"]
    data = np.random.default_rng(0).integers(-1000, 500, (30, 25, 11)).astype(np.int16)
    scan = Volume(data, Grid(data.shape, np.diag([-1.1, -1.4, 3.0, 1.0])))
    prepared = model.prepare(scan)
    maps = model.levels(model.encode(prepared), timestep=20, levels=["up0", "up3"], noise_seed=None)
    for level in maps.values():
        np.testing.assert_allclose(level.grid.center, scan.grid.center, atol=2.0)
        assert level.grid.contains(scan.grid.corners).all()


def test_wrong_shapes_and_names_are_refused(models, latents) -> None:
    model, latent = models["haar"], latents["haar"]
    with pytest.raises(GeometryError, match=r"multiples of 16, got shape \(8, 16, 16\)"):
        model.encode(Volume(np.zeros((8, 16, 16), np.float32), Grid((8, 16, 16), np.eye(4))))
    with pytest.raises(OptionsError, match="latent must be"):
        model.encode(Volume(np.zeros((16, 16, 16), np.float32), Grid((16, 16, 16), np.eye(4))), latent="mode")
    with pytest.raises(GeometryError, match="8 channels"):
        model.levels(latents["ddpm"], timestep=20, levels=["up0"], noise_seed=None)
    for levels in (["up4"], ["enc0", "up0"], []):
        with pytest.raises(OptionsError, match="it has middle, up0"):
            model.levels(latent, timestep=20, levels=levels, noise_seed=None)
    with pytest.raises(OptionsError, match="from 0 to 999"):
        model.levels(latent, timestep=1000, levels=["up0"], noise_seed=None)


def test_ratios_of_noise_carry_over_between_models(models) -> None:
    ratio = models["ddpm"].noise_to_signal(20)
    assert ratio == pytest.approx(0.1837, abs=1e-4)
    assert models["rflow"].timestep_for(ratio) == 155


@pytest.mark.parametrize("kind", ["ddpm", "rflow", "haar"])
def test_bfloat16_is_close_to_float32(kind, models, folder) -> None:
    exact = models[kind]
    assert exact.precision == "float32"
    fast = load_model(exact.spec, weights=folder / kind, precision="bfloat16")
    shape = tuple(n * exact.spec.multiple for n in (1, 2, 1))
    data = np.random.default_rng(3).random(shape, dtype=np.float32)
    prepared = Volume(data, Grid(shape, np.diag([2.0, 1.5, 3.0, 1.0])))
    codes = [model.encode(prepared) for model in (exact, fast)]
    maps = [model.levels(codes[0], timestep=20, levels=LEVELS, noise_seed=None) for model in (exact, fast)]
    compared = [(codes[0].data, codes[1].data), *((maps[0][name].data, maps[1][name].data) for name in LEVELS)]
    for place, (one, two) in enumerate(compared):
        assert two.dtype == np.float32
        difference = np.linalg.norm(one - two) / np.linalg.norm(one)
        # Random weights carry rounding on farther than trained ones; the wavelet transform is no network.
        assert difference < 0.1
        assert difference > 0 or (kind == "haar" and place == 0)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu:x"])
def test_devices_that_are_not_there_are_said(device, folder, models) -> None:
    with pytest.raises(OptionsError, match="device"):
        load_model(models["haar"].spec, weights=folder / "haar", device=device)


def test_unknown_precision_is_refused(folder, models) -> None:
    with pytest.raises(OptionsError, match="auto, float32 or bfloat16"):
        load_model(models["haar"].spec, weights=folder / "haar", precision="float16")


def test_no_gradient_is_kept_and_torch_flags_are_as_before(models, latents) -> None:
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    models["haar"].levels(latents["haar"], timestep=20, levels=["up0"], noise_seed=None)
    assert before == (torch.backends.cudnn.allow_tf32, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert not any(parameter.requires_grad for parameter in models["haar"]._unet.parameters())


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(models, latents, folder) -> None:
    for kind, model in models.items():
        other = load_model(model.spec, weights=folder / kind, device="cuda")
        one = model.levels(latents[kind], timestep=20, levels=LEVELS, noise_seed=4)
        two = other.levels(latents[kind], timestep=20, levels=LEVELS, noise_seed=4)
        for name in LEVELS:
            scale = np.abs(one[name].data).max()
            np.testing.assert_allclose(two[name].data, one[name].data, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", ["ddpm", "rflow", "haar", "voxel"])
def test_latents_of_one_batch_get_what_each_gets_alone(kind, models, latents, folder) -> None:
    """Each with its own noise and its own spacing; group norms take no statistics from the other scan."""
    if kind == "voxel":
        spec = dataclasses.replace(models["haar"].spec, normalisation="voxel")
        model, first = load_model(spec, weights=folder / "haar"), latents["haar"]
    else:
        model, first = models[kind], latents[kind]
    other = np.random.default_rng(8).normal(2.0, 3.0, first.data.shape).astype(np.float32)
    pair = [first, Volume(other, first.grid)]
    seeds, spacings = [7, None], [[1.0, 1.0, 4.0], None]
    together = model.levels_of(pair, timestep=100, levels=LEVELS, noise_seeds=seeds, spacings=spacings)
    assert len(together) == 2
    for latent, seed, spacing, found in zip(pair, seeds, spacings, together, strict=True):
        alone = model.levels(latent, timestep=100, levels=LEVELS, noise_seed=seed, spacing=spacing)
        assert list(found) == LEVELS
        for name in LEVELS:
            assert found[name].grid == alone[name].grid
            scale = np.abs(alone[name].data).max()
            np.testing.assert_allclose(found[name].data, alone[name].data, atol=2e-5 * scale)
    assert np.abs(together[0]["up3"].data - together[1]["up3"].data).max() > 0.1


def test_latents_of_different_shapes_make_no_batch(models) -> None:
    model = models["haar"]
    latents = [Volume(np.zeros((8, n, 8, 8), np.float32), Grid((n, 8, 8), np.eye(4))) for n in (8, 16)]
    with pytest.raises(GeometryError, match="one shape"):
        model.levels_of(latents, timestep=20, levels=["up0"], noise_seeds=[None] * 2, spacings=[None] * 2)
