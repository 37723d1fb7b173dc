from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest

from checkpoints import meta_scale_factor, tensors, unet_content, write_spec, write_weights
from meddift.errors import ModelError, WeightsCorruptError, WeightsMissingError
from meddift.models import load_model
from meddift.models.checkpoint import read_checkpoint, todays_names
from meddift.models.loader import load_role


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Specifications by kind, and a folder of good files for each."""
    folder = tmp_path_factory.mktemp("published")
    specs = {kind: write_spec(folder, kind) for kind in ("ddpm", "rflow", "haar")}
    return specs, {kind: write_weights(folder / kind, spec) for kind, spec in specs.items()}


def save(content: object, path: Path, **options: object) -> Path:
    import torch

    torch.save(content, path, **options)
    return path


def assert_holds(checkpoint, spec, role: str = "unet") -> None:
    """The checkpoint has exactly the random numbers that were written for this role."""
    import torch

    original = tensors(spec, role)
    assert all(torch.equal(value, original[name]) for name, value in checkpoint.tensors.items())
    assert all(type(value) is torch.Tensor for value in checkpoint.tensors.values())


def test_the_published_layout_loads_and_its_dead_tensors_are_left_out(published) -> None:
    specs, folders = published
    path = folders["ddpm"] / "models" / "unet.pt"
    stored = read_checkpoint([path])
    dead = [name for name in stored.tensors if ".attn.out_proj." in name]
    loaded = load_role(specs["ddpm"], "unet", [path])
    assert len(dead) > 0
    assert stored.tensors.keys() - loaded.tensors.keys() == set(dead)
    assert_holds(loaded, specs["ddpm"])
    assert loaded.scale_factor == pytest.approx(0.97)
    assert type(loaded.scale_factor) is float


def test_rflow_keeps_its_attention_output(published) -> None:
    specs, folders = published
    loaded = load_role(specs["rflow"], "unet", [folders["rflow"] / "models" / "unet.pt"])
    assert any(".attn.out_proj." in name for name in loaded.tensors)
    assert_holds(loaded, specs["rflow"])


def test_rflow_without_its_attention_output_is_refused(published, tmp_path) -> None:
    specs, _ = published
    content = unet_content(specs["rflow"])
    content["unet_state_dict"] = {
        name: value for name, value in content["unet_state_dict"].items() if "out_proj" not in name
    }
    with pytest.raises(WeightsCorruptError, match=r"not complete.*out_proj"):
        load_role(specs["rflow"], "unet", [save(content, tmp_path / "unet.pt")])


def test_only_the_encoder_half_is_kept(published) -> None:
    specs, folders = published
    loaded = load_role(specs["ddpm"], "autoencoder", [folders["ddpm"] / "models" / "autoencoder.pt"])
    assert {name.split(".")[0] for name in loaded.tensors} == {"encoder", "quant_conv_mu", "quant_conv_log_sigma"}
    assert_holds(loaded, specs["ddpm"], "autoencoder")


def test_nested_autoencoder_and_wrapper_prefixes(published, tmp_path) -> None:
    specs, _ = published
    spec = specs["ddpm"]
    nested = {"unet_state_dict": {f"module.{k}": v for k, v in tensors(spec, "autoencoder").items()}}
    assert_holds(load_role(spec, "autoencoder", [save(nested, tmp_path / "a.pt")]), spec, "autoencoder")
    content = unet_content(spec)
    content["unet_state_dict"] = {f"module._orig_mod.{k}": v for k, v in content["unet_state_dict"].items()}
    assert_holds(load_role(spec, "unet", [save(content, tmp_path / "u.pt")]), spec)


def old_unet_name(name: str) -> str:
    name = name.replace(".attn.out_proj.", ".proj_attn.").replace(".attn.to_", ".to_")
    return name.replace("upsampler.postconv.", "upsampler.conv.")


def old_autoencoder_name(name: str) -> str:
    return re.sub(r"conv\.conv\.(weight|bias)$", r"conv.\1", name) if "quant" not in name else name


def test_names_from_before_august_2024(published, tmp_path) -> None:
    specs, _ = published
    spec = specs["ddpm"]
    content = unet_content(spec)
    old = {f"module.{old_unet_name(k)}": v for k, v in content["unet_state_dict"].items()}
    assert sum(new not in content["unet_state_dict"] for new in map(old_unet_name, content["unet_state_dict"])) > 20
    content["unet_state_dict"] = old
    assert_holds(load_role(spec, "unet", [save(content, tmp_path / "u.pt")]), spec)
    encoder = {old_autoencoder_name(k): v for k, v in tensors(spec, "autoencoder").items()}
    assert "encoder.blocks.0.conv.weight" in encoder
    assert_holds(load_role(spec, "autoencoder", [save(encoder, tmp_path / "a.pt")]), spec, "autoencoder")


@pytest.mark.parametrize("kind", ["ddpm", "rflow", "haar"])
def test_todays_names_are_left_as_they_are(published, kind) -> None:
    for role in ("unet", "autoencoder") if kind != "haar" else ("unet",):
        names = tensors(published[0][kind], role)
        assert todays_names(names).keys() == names.keys()


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ("rflow", "ddpm", "is a U-Net of the rflow kind.*tiny-ddpm wants a U-Net of the ddpm kind"),
        ("ddpm", "rflow", "is a U-Net of the ddpm kind.*tiny-rflow wants a U-Net of the rflow kind"),
        ("haar", "ddpm", "8 latent channels.*tiny-ddpm wants.*4 latent channels"),
    ],
)
def test_another_variant_is_named(published, tmp_path, given, wanted, message) -> None:
    specs, _ = published
    path = save(unet_content(specs[given]), tmp_path / "unet.pt")
    with pytest.raises(WeightsCorruptError, match=message):
        load_role(specs[wanted], "unet", [path])


def test_exchanged_roles_are_named(published, tmp_path) -> None:
    specs, folders = published
    files = folders["ddpm"] / "models"
    with pytest.raises(WeightsCorruptError, match=r"is an autoencoder, but tiny-ddpm wants a U-Net"):
        load_role(specs["ddpm"], "unet", [files / "autoencoder.pt"])
    with pytest.raises(WeightsCorruptError, match=r"is a U-Net, but tiny-ddpm wants an autoencoder"):
        load_role(specs["ddpm"], "autoencoder", [files / "unet.pt"])
    controlnet = save({"controlnet_state_dict": dict(tensors(specs["ddpm"], "unet"))}, tmp_path / "c.pt")
    with pytest.raises(WeightsCorruptError, match="is a ControlNet"):
        load_role(specs["ddpm"], "unet", [controlnet])
    stranger = save({"layer.weight": meta_scale_factor().as_tensor()}, tmp_path / "s.pt")
    with pytest.raises(WeightsCorruptError, match="of no known kind"):
        load_role(specs["ddpm"], "unet", [stranger])


@pytest.mark.parametrize("drop", ["up_blocks.1.resnets.0.norm1.weight", "down_blocks.2.", "time_embed."])
def test_partial_files_are_refused(published, tmp_path, drop) -> None:
    specs, _ = published
    content = unet_content(specs["ddpm"])
    content["unet_state_dict"] = {k: v for k, v in content["unet_state_dict"].items() if not k.startswith(drop)}
    with pytest.raises(WeightsCorruptError, match=r"not complete: \d+ of the \d+ tensors of tiny-ddpm are missing"):
        load_role(specs["ddpm"], "unet", [save(content, tmp_path / "unet.pt")])


def test_partial_decoders_are_refused_although_they_are_not_used(published, tmp_path) -> None:
    spec = published[0]["ddpm"]
    cut = {k: v for k, v in tensors(spec, "autoencoder").items() if not k.startswith("decoder.blocks.2")}
    with pytest.raises(WeightsCorruptError, match="not complete"):
        load_role(spec, "autoencoder", [save(cut, tmp_path / "a.pt")])


def test_foreign_tensors_other_shapes_and_broken_numbers_are_refused(published, tmp_path) -> None:
    import torch

    spec = published[0]["haar"]
    good = dict(tensors(spec, "unet"))
    name = "up_blocks.0.resnets.0.conv1.conv.weight"
    cases = {
        "no place for 1 of its tensors, such as 'extra'": {"extra": torch.zeros(2)},
        f"'{name}' has shape": {name: good[name][:, :5]},
        "not finite": {name: torch.full_like(good[name], float("nan"))},
        r"'out\.0\.bias' holds values that are not finite": {"out.0.bias": torch.zeros(32, dtype=torch.int64)},
    }
    for message, change in cases.items():
        with pytest.raises(WeightsCorruptError, match=message):
            load_role(spec, "unet", [save({**good, **change}, tmp_path / "unet.pt")])


@pytest.mark.parametrize("scale", ["nan", "inf", "zero", "two", "text", "numpy"])
def test_scale_factors_that_are_none_are_refused(published, tmp_path, scale) -> None:
    import numpy as np
    import torch

    value = {
        "nan": torch.tensor(float("nan")),
        "inf": float("inf"),
        "zero": 0.0,
        "two": torch.tensor([1.0, 2.0]),
        "text": "large",
        "numpy": np.float64(0.97),  # NumPy objects are never built from a file
    }[scale]
    path = save(unet_content(published[0]["ddpm"], scale_factor=value), tmp_path / "unet.pt")
    with pytest.raises(WeightsCorruptError, match="scale_factor"):
        read_checkpoint([path])


def test_a_missing_scale_factor_is_said(published, tmp_path) -> None:
    specs, _ = published
    folder = write_weights(tmp_path, specs["ddpm"])
    content = unet_content(specs["ddpm"])
    del content["scale_factor"]
    save(content, folder / "models" / "unet.pt")
    with pytest.raises(WeightsCorruptError, match=r"no scale_factor.*latent\.scale_factor"):
        load_model(specs["ddpm"], weights=folder)


def test_header_with_numpy_arrays_is_read_without_numpy(published, tmp_path) -> None:
    # As a MetaTensor from a transform without a data loader has it.
    import numpy as np
    import torch
    from monai.data import MetaTensor

    scale = MetaTensor(torch.tensor(0.5), meta={"pixdim": np.ones(8), "bits": np.int16(3), "who": "x"})
    path = save(unet_content(published[0]["ddpm"], scale_factor=scale), tmp_path / "unet.pt")
    assert b"numpy" in zipfile.ZipFile(path).read("unet/data.pkl")
    assert read_checkpoint([path]).scale_factor == 0.5


# ---------------------------------------------------------------------- damage


def test_damaged_files_each_give_a_plain_sentence(published, tmp_path) -> None:
    specs, folders = published
    good = (folders["ddpm"] / "models" / "unet.pt").read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x40
    cases = {
        "half": good[: len(good) // 2],
        "almost": good[:-30],
        "flipped": bytes(flipped),
        "page": b"<!DOCTYPE html><html>Sign in</html>",
        "junk": bytes(range(256)) * 40,
        "empty": b"",
        "zeros": b"\0" * 4096,
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    }
    words = {"empty": "is empty", "pointer": "git lfs pull", "flipped": "checksum"}
    for name, content in cases.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content)
        with pytest.raises(WeightsCorruptError, match=words.get(name, "damaged")) as caught:
            load_role(specs["ddpm"], "unet", [path])
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 500


def test_damaged_safetensors_are_refused(published, tmp_path) -> None:
    specs, folders = published
    good = (folders["haar"] / "models" / "unet.safetensors").read_bytes()
    for name, content in {"half": good[: len(good) // 2], "text": b"hello", "huge": b"\xff" * 64}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(WeightsCorruptError, match="not a complete safetensors file"):
            load_role(specs["haar"], "unet", [path])


def test_other_contents_are_refused(tmp_path) -> None:
    import torch

    for content in ([torch.zeros(2)], torch.zeros(3), {}, {"epoch": 3}, {"unet_state_dict": {"a": "text"}}):
        with pytest.raises(WeightsCorruptError, match=r"holds|not a tensor"):
            read_checkpoint([save(content, tmp_path / "other.pt")])


def test_absent_and_unreadable_files(tmp_path) -> None:
    with pytest.raises(WeightsMissingError, match="cannot open"):
        read_checkpoint([tmp_path / "absent.pt"])
    with pytest.raises(WeightsMissingError, match="cannot open"):
        read_checkpoint([tmp_path])


# ---------------------------------------------------------------------- code in files


class _Runs:
    """Unpickling this with Python's own unpickler calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def malicious(mark: Path) -> dict[str, object]:
    import numpy as np
    from monai.utils.enums import SpaceKeys

    return {
        "system": _Runs(os.system, f"echo > {mark}"),
        "exec": _Runs(exec, f"open({str(mark)!r}, 'w')"),
        "open": _Runs(open, str(mark), "w"),
        "eval": _Runs(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": _Runs(getattr, Path, "touch"),
        "getattr of an enum": _Runs(getattr, SpaceKeys, "__class__"),
        "path": _Runs(Path.touch, mark),
        "array": np.array([_Runs(open, str(mark), "w")], dtype=object),
    }


@pytest.mark.parametrize("way", ["system", "exec", "open", "eval", "getattr", "getattr of an enum", "path", "array"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_no_code_in_a_file_is_run(published, tmp_path, way, zipped) -> None:
    mark = tmp_path / "was-run"
    content = unet_content(published[0]["ddpm"])
    content["loss"] = malicious(mark)[way]
    path = save(content, tmp_path / "unet.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsCorruptError, match=r"holds more than weights.*It was not loaded"):
        read_checkpoint([path])
    assert not mark.exists()
    # The file is armed: an unrestricted load does run it.
    if way == "system":
        import torch

        torch.load(path, weights_only=False)
        assert mark.exists()


def test_enums_as_the_first_python_3_11_wrote_them_are_read(published, tmp_path) -> None:
    """3.11.0 to 3.11.3 (Debian 12) pickle a member as getattr(class, name); MONAI's headers hold some."""
    import torch
    from monai.data import MetaTensor
    from monai.utils.enums import SpaceKeys

    scale = MetaTensor(torch.tensor(0.5), meta={"space": _Runs(getattr, SpaceKeys, "RAS")})
    path = save(unet_content(published[0]["ddpm"], scale_factor=scale), tmp_path / "unet.pt")
    assert read_checkpoint([path]).scale_factor == pytest.approx(0.5)


def test_code_in_the_header_of_the_scale_factor_or_in_a_bare_pickle_is_not_run(published, tmp_path) -> None:
    import torch
    from monai.data import MetaTensor

    mark = tmp_path / "was-run"
    scale = MetaTensor(torch.tensor(0.5), meta={"filename_or_obj": _Runs(open, str(mark), "w")})
    path = save(unet_content(published[0]["ddpm"], scale_factor=scale), tmp_path / "unet.pt")
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps({"unet_state_dict": _Runs(open, str(mark), "w")}, protocol=2))
    for file in (path, bare):
        with pytest.raises(WeightsCorruptError):
            read_checkpoint([file])
    assert not mark.exists()


# ---------------------------------------------------------------------- parts, precision, construction


def test_parts_and_half_precision_give_the_same_network(published, tmp_path) -> None:
    import torch
    from safetensors.torch import save_file

    spec = published[0]["haar"]
    everything = {name: value.half() for name, value in tensors(spec, "unet").items()}
    names = sorted(everything)
    (tmp_path / "parts").mkdir()
    for number in range(3):
        part = {name: everything[name] for name in names[number::3]}
        save_file(part, tmp_path / "parts" / f"unet-{number:04d}.safetensors")
    text = Path(spec.origin).read_text().replace("models/unet.safetensors", "parts/unet-*.safetensors")
    text = text.replace("tiny-haar", "tiny-parts").replace('repository = "tests/tiny"', 'folder = "."')
    (tmp_path / "parts.toml").write_text(text)
    model = load_model(str(tmp_path / "parts.toml"))
    found = model._unet.state_dict()
    assert all(torch.equal(found[name], everything[name].float()) for name in names)
    assert {value.dtype for value in found.values()} == {torch.float32}
    (tmp_path / "parts" / "unet-0001.safetensors").unlink()
    with pytest.raises(WeightsCorruptError, match="other parts is not complete"):
        load_model(str(tmp_path / "parts.toml"))
    save_file({names[0]: everything[names[0]]}, tmp_path / "parts" / "unet-0009.safetensors")
    with pytest.raises(WeightsCorruptError, match="repeats 1 tensors"):
        load_model(str(tmp_path / "parts.toml"))


def test_a_network_that_monai_refuses_is_a_model_error(published, tmp_path) -> None:
    text = Path(published[0]["haar"].origin).read_text().replace("norm_num_groups = 16", "norm_num_groups = 7")
    (tmp_path / "odd.toml").write_text(text.replace("tiny-haar", "tiny-odd"))
    with pytest.raises(ModelError, match=r"cannot be built as specified.*norm_num_groups"):
        load_model(str(tmp_path / "odd.toml"), weights=published[1]["haar"])


def test_the_file_may_be_replaced_while_the_model_is_in_use(published, tmp_path) -> None:
    spec = published[0]["ddpm"]
    folder = write_weights(tmp_path, spec)
    model = load_model(spec, weights=folder)
    for path in (folder / "models").iterdir():
        path.write_bytes(b"")
    assert float(next(iter(model._unet.parameters())).sum()) != 0
