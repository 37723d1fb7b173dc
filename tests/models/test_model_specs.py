from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import KINDS, monai_unet, write_spec
from meddift.errors import ModelError
from meddift.models import ModelSpec, catalogue, find_spec
from meddift.models.fingerprint import fingerprint_wanted
from meddift.models.spec import AUTOENCODER_OPTIONS, UNET_OPTIONS
from meddift.models.spec_reader import parse_spec


@pytest.fixture
def toml(tmp_path) -> str:
    write_spec(tmp_path, "ddpm")
    return (tmp_path / "tiny-ddpm.toml").read_text()


def test_catalogue_has_the_documented_models() -> None:
    known = catalogue()
    assert {
        "builtin",
        "builtin-2",
        "builtin-3",
        "maisi-ct-ddpm",
        "maisi-ct-rflow",
        "maisi-mr-rflow",
        "maisi-mr-brain",
    } <= known.keys()
    assert all(known[name].name == name for name in known)
    assert [name for name, spec in known.items() if not spec.licence.commercial] == ["maisi-mr-rflow"]
    assert [name for name, spec in known.items() if not spec.licence.accept_required] == [
        "builtin",
        "builtin-2",
        "builtin-3",
    ]


def test_a_specification_takes_from_another_what_it_does_not_say() -> None:
    base = find_spec("builtin-2")
    told = {"name": "builtin", "title": find_spec("builtin").title, "modality": "CT and MR"}
    assert find_spec("builtin") == dataclasses.replace(base, **told, other_scans="builtin-3")


def test_weights_that_were_trained_further_need_a_few_lines(tmp_path) -> None:
    documented = Path(__file__).parents[2] / "docs" / "model-files.md"
    path = tmp_path / "mine.toml"
    path.write_text(documented.read_text().split("```toml\n")[1].split("```")[0])
    spec, base = find_spec(path), find_spec("builtin-3")
    assert (spec.name, spec.weights.folder, spec.origin) == ("my-chests", "my-weights", str(path.resolve()))
    assert (dict(spec.unet), spec.grid, spec.intensity) == (dict(base.unet), base.grid, base.intensity)
    # A table is taken whole or not at all.
    path.write_text(path.read_text() + "[schedule]\nkind = 'ddpm'\n")
    with pytest.raises(ModelError, match="schedule: 'prediction' is missing"):
        find_spec(path)


@pytest.mark.parametrize("name", ["'builtin-4'", "'../specs/builtin-2'", "3", "['builtin-2']"])
def test_only_models_of_the_catalogue_can_be_extended(name: str, toml: str) -> None:
    with pytest.raises(ModelError, match=r"here: extends must name a model of the catalogue, got .*"):
        parse_spec(f"extends = {name}\n{toml}", source="here")


def test_a_changed_catalogue_dict_does_not_change_the_catalogue() -> None:
    catalogue().clear()
    assert "builtin" in catalogue()


@pytest.mark.parametrize("name", list(catalogue()))
def test_every_network_of_the_catalogue_can_be_built(name: str) -> None:
    import torch

    from meddift.models.loader import _empty_network

    spec = catalogue()[name]
    network = _empty_network(spec, "unet")
    assert isinstance(network, torch.nn.Module)
    assert len(network.up_blocks) == len([level for level in spec.levels if level.startswith("up")])
    if spec.latent.kind == "autoencoder":
        assert _empty_network(spec, "autoencoder").latent_channels == spec.latent.channels


def test_maisi_networks_have_the_published_number_of_parameters() -> None:
    # Counts of the published files: MAISI VAE 20,944,897; U-Net ddpm 169,370,884; U-Net rflow 180,500,868.
    from meddift.models.loader import _empty_network

    def count(name: str, role: str) -> int:
        return sum(parameter.numel() for parameter in _empty_network(find_spec(name), role).parameters())

    assert count("maisi-ct-ddpm", "autoencoder") == 20_944_897
    assert count("maisi-ct-ddpm", "unet") == 169_370_884
    assert count("maisi-ct-rflow", "unet") == 180_500_868


def test_allowed_options_are_arguments_of_monai() -> None:
    from meddift.models.monai_import import monai_autoencoder
    from meddift.models.unet import UNet

    assert set(inspect.signature(UNet).parameters) == UNET_OPTIONS
    assert set(inspect.signature(monai_unet()).parameters) >= UNET_OPTIONS
    assert set(inspect.signature(monai_autoencoder()).parameters) >= AUTOENCODER_OPTIONS


def test_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    with pytest.raises(ModelError, match=r"Did you mean 'maisi-ct-ddpm'.*builtin") as caught:
        find_spec("maisi-ct-dpdm")
    assert "maisi-mr-brain" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Random', 'titel = "x"\ntitle = "Random', "unknown key 'titel'.*Did you mean 'title'"),
        ("resblock_updown =", "resblock_updwn =", "unet: unknown key 'resblock_updwn'.*'resblock_updown'"),
        ("with_encoder_nonlocal_attn", "with_encoder_nonlocal", "latent.network: unknown key"),
        ("timestep = 20", 'timestep = "$@t"', "begins with '\\$'"),
        ("num_head_channels = [0, 0, 32, 32]", 'num_head_channels = ["$import os"]', "begins with '\\$'"),
        ("timestep = 20", "timestep = true", "timestep has the wrong type"),
        ("timestep = 20", "timestep = 1000", "impossible defaults"),
        ("timestep = 20", "", "'timestep' is missing"),
        ('kind = "respace"', 'kind = "respaced"', "must be one of resize_128, respace.*Did you mean 'respace'"),
        ("multiple = 32", "multiple = 16", "needs a multiple of 32"),
        ("knots = [[-1000, 0.0], [1000, 1.0]]", "knots = [[1000, 1.0], [-1000, 0.0]]", "ascending"),
        ("stride = 4", "stride = 8", "stride 4, not 8"),
        ("latent_channels = 4", "latent_channels = 8", "differ"),
        ('"up2", "up3"]\n\n[licence]', '"up2", "up7"]\n\n[licence]', "up7"),
        ('levels = ["up0", "up1", "up2", "up3"]\n', 'levels = ["up9"]\n', "not among levels"),
        ('name = "models/unet.pt"', 'name = "../../etc/passwd"', "relative name"),
        ('role = "autoencoder"', 'role = "unet"', "roles"),
        ('name = "tiny-ddpm"', 'name = "../evil"', "a model's name"),
        ('title = "Random', 'origin = "x"\ntitle = "Random', "unknown key 'origin'"),
        ("[latent]", "[latent", "not valid TOML"),
        ("[unet]", "[[unet]]", "table"),
    ],
)
def test_mistakes_in_a_spec_are_said_with_the_way_out(toml: str, old: str, new: str, message: str) -> None:
    assert old in toml
    with pytest.raises(ModelError, match=message) as caught:
        parse_spec(toml.replace(old, new, 1), source="mine.toml")
    assert str(caught.value).count("mine.toml") == 1


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, '{"a"=' * 900 + "1" + "}" * 900])
def test_a_spec_that_is_nested_without_end_is_refused(toml: str, value: str) -> None:
    with pytest.raises(ModelError, match="nested too deep"):
        parse_spec(f"deep = {value}\n{toml}", source="user.toml")


def test_a_users_spec_may_not_take_a_name_of_the_catalogue(tmp_path, toml: str) -> None:
    path = tmp_path / "copy.toml"
    path.write_text(toml.replace("tiny-ddpm", "maisi-ct-ddpm"))
    with pytest.raises(ModelError, match="give it another one"):
        find_spec(path)
    with pytest.raises(ModelError, match="cannot read"):
        find_spec(tmp_path / "absent.toml")


def test_a_users_spec_comes_back_with_all_its_values(tmp_path) -> None:
    spec = write_spec(tmp_path, "rflow")
    assert isinstance(spec, ModelSpec)
    assert spec.multiple == 32
    assert spec.intensity.knots == ((-1000.0, 0.0), (1000.0, 1.0))
    assert spec.unet["num_channels"] == (32, 32, 64, 64)
    assert spec.origin == str((tmp_path / "tiny-rflow.toml").resolve())
    assert len({hash(write_spec(tmp_path, kind)) for kind in KINDS}) == 3


def test_digest_changes_with_what_decides_the_features_and_with_nothing_else(tmp_path) -> None:
    spec = write_spec(tmp_path, "ddpm")
    assert spec.digest() == dataclasses.replace(spec, title="another").digest()
    window = dataclasses.replace(spec.intensity, knots=((-900.0, 0.0), (1000.0, 1.0)))
    told = dataclasses.replace(spec.conditioning, top_region="abdomen")
    others = [
        dataclasses.replace(spec, intensity=window),
        dataclasses.replace(spec, conditioning=told),
        dataclasses.replace(spec, schedule=dataclasses.replace(spec.schedule, beta_end=0.02)),
        dataclasses.replace(spec, normalisation="voxel"),
    ]
    assert len({spec.digest(), *(other.digest() for other in others)}) == 5


def test_unet_traits_differ_between_the_variants() -> None:
    wanted = {name: fingerprint_wanted(spec.unet) for name, spec in catalogue().items()}
    assert wanted["maisi-ct-ddpm"] != wanted["maisi-ct-rflow"] == wanted["maisi-mr-rflow"]


def test_listing_models_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys, meddift.models as m; from meddift.models import model_status\n"
        "[model_status(s) for s in m.catalogue().values()]\n"
        "heavy = {'torch', 'monai', 'huggingface_hub', 'scipy', 'nibabel'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist() -> None:
    import meddift.models as models

    assert all(getattr(models, name) is not None for name in models.__all__)
    assert sorted(models.__all__) == list(models.__all__)
    with pytest.raises(AttributeError):
        _ = models.no_such_name
