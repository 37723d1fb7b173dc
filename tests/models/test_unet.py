"""The U-Net is MONAI's `DiffusionModelUNetMaisi`: the same names of weights, and the same maps from them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import monai_unet
from meddift.models import catalogue
from meddift.models.loader import build_unet, load_role
from meddift.models.unet import UNet
from meddift.models.weights import locate_weights


@st.composite
def options(draw) -> dict:
    """Options of a small network, of any kind that a specification may ask for."""
    count = draw(st.integers(1, 3))

    def each(values):
        return draw(st.lists(values, min_size=count, max_size=count))

    return {
        "in_channels": draw(st.integers(1, 4)),
        "out_channels": draw(st.integers(1, 4)),
        "num_channels": each(st.sampled_from([8, 16, 24])),
        "num_res_blocks": draw(st.integers(1, 2)) if draw(st.booleans()) else each(st.integers(1, 3)),
        "attention_levels": each(st.booleans()),
        "num_head_channels": draw(st.sampled_from([4, 8])) if draw(st.booleans()) else each(st.sampled_from([2, 8])),
        "norm_num_groups": draw(st.sampled_from([1, 4, 8])),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-2])),
        "num_class_embeds": draw(st.sampled_from([None, 5])),
        **{
            name: draw(st.booleans())
            for name in (
                "resblock_updown", "include_fc", "use_combined_linear", "upcast_attention",
                "include_top_region_index_input", "include_bottom_region_index_input", "include_spacing_input",
            )
        },
    }  # fmt: skip


def by_hooks(network: torch.nn.Module, inputs: dict) -> dict[str, torch.Tensor]:
    """What the middle and the decoder blocks of MONAI's network return in a whole pass."""
    found = {}
    blocks = {"middle": network.middle_block, **{f"up{n}": block for n, block in enumerate(network.up_blocks)}}
    handles = [
        block.register_forward_hook(lambda module, given, result, name=name: found.update({name: result.clone()}))
        for name, block in blocks.items()
    ]
    network(**inputs)
    for handle in handles:
        handle.remove()
    return found


@settings(max_examples=40, deadline=None)
@given(options=options(), seed=st.integers(0, 99), batch=st.integers(1, 2))
def test_any_network_of_a_specification_computes_what_monais_does(options, seed, batch) -> None:
    torch.manual_seed(seed)
    theirs = monai_unet()(spatial_dims=3, **options).eval()
    for parameter in theirs.parameters():  # zeros at the beginning would hide what follows from them
        parameter.data.normal_(std=0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    ours = UNet(**options).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    edge = 2 ** (len(options["num_channels"]) - 1)
    inputs = {
        "x": torch.randn(batch, options["in_channels"], 2 * edge, edge, 3 * edge),
        "timesteps": torch.randint(0, 1000, (batch,)),
    }
    if options["num_class_embeds"]:
        inputs["class_labels"] = torch.randint(0, options["num_class_embeds"], (batch,))
    for name, width in (("top_region_index", 4), ("bottom_region_index", 4), ("spacing", 3)):
        if options[f"include_{name}_input"]:
            inputs[f"{name}_tensor"] = torch.rand(batch, width)
    given_x = inputs["x"].clone()
    with torch.no_grad():
        expected, found = by_hooks(theirs, inputs), ours(["middle", *_ups(ours)], **inputs)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        scale = float(expected[name].abs().max())
        np.testing.assert_allclose(value.numpy(), expected[name].numpy(), atol=2e-5 * scale, rtol=0)
    assert torch.equal(inputs["x"], given_x)


@pytest.mark.parametrize("name", ["builtin-2", "maisi-ct-ddpm", "maisi-ct-rflow"])
def test_weights_have_the_names_and_shapes_of_monais(name) -> None:
    spec = catalogue()[name]
    with torch.device("meta"):
        theirs, ours = monai_unet()(spatial_dims=3, **spec.unet), UNet(**spec.unet)
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (theirs, ours)]
    assert shapes[0] == shapes[1]


def test_the_network_that_comes_with_the_package_is_monais_with_its_weights() -> None:
    spec = catalogue()["builtin-2"]
    weights = load_role(spec, "unet", locate_weights(spec, None).files["unet"]).tensors
    theirs = monai_unet()(spatial_dims=3, **spec.unet).eval()
    theirs.load_state_dict({name: value.float() for name, value in weights.items()})
    inputs = {"x": torch.randn(1, 8, 16, 8, 24), "timesteps": torch.tensor([20])}
    with torch.no_grad():
        expected, found = by_hooks(theirs, inputs), build_unet(spec, weights)(spec.levels, **inputs)
    for name in spec.levels:
        scale = float(expected[name].abs().max())
        np.testing.assert_allclose(found[name].numpy(), expected[name].numpy(), atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_levels": [True]}, "attention_levels has 1 values for 2"),
        ({"num_res_blocks": [1, 1, 1]}, "num_res_blocks has 3 values for 2"),
        ({"norm_num_groups": 5}, "multiples of norm_num_groups 5"),
        ({"num_head_channels": [8, 0]}, "heads of num_head_channels 0"),
        ({"num_head_channels": 7, "attention_levels": [False, True]}, "heads of num_head_channels 7"),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes, said) -> None:
    fitting = {
        "num_channels": [8, 16],
        "attention_levels": [False, False],
        "num_head_channels": 8,
        "norm_num_groups": 4,
    }
    with pytest.raises(ValueError, match=said):
        UNet(in_channels=2, out_channels=2, **{**fitting, **changes})


def _ups(network: UNet) -> list[str]:
    return [f"up{number}" for number in range(len(network.up_blocks))]


def test_the_model_of_the_package_is_used_without_monai() -> None:
    code = (
        "import sys, numpy as np; from meddift.pipeline import Matcher; from meddift.volume import Volume; "
        "from meddift.geometry import Grid; grid = Grid((32, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0])); "
        "Matcher(store=False).encode(Volume(np.zeros(grid.shape, np.int16) - 500, grid)).pyramid; "
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
