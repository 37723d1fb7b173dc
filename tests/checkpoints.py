"""Makes weights files with random numbers in the exact layout of the published ones, and specifications to match.

    spec = write_spec(folder, "ddpm")                 # tiny channels, otherwise as maisi-ct-ddpm
    write_weights(folder, spec)                       # models/unet.pt and models/autoencoder.pt
    model = load_model(spec, weights=folder)

Kinds: "ddpm" and "rflow" have a learned autoencoder, "haar" has none.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("ddpm", "rflow", "haar")

_HEAD = """name = "{name}"
title = "Random weights for tests ({kind})"
modality = "CT"
levels = ["middle", "up0", "up1", "up2", "up3"]

[licence]
name = "None: random numbers"
accept_required = {accept}

[weights]
repository = "tests/tiny"
[[weights.files]]
role = "unet"
name = "models/{unet_name}"
older_names = ["old_unet.pt"]
"""

_AUTOENCODER_FILE = """[[weights.files]]
role = "autoencoder"
name = "models/autoencoder.pt"
"""

_HAAR = """
[latent]
kind = "haar"
stride = 2
channels = 8
scale_factor = {scale}
"""

_AUTOENCODER = """
[latent]
kind = "autoencoder"
stride = 4
channels = 4
[latent.network]
in_channels = 1
out_channels = 1
latent_channels = 4
num_channels = [32, 32, 64]
num_res_blocks = [1, 1, 1]
attention_levels = [false, false, false]
norm_num_groups = 16
norm_eps = 1e-6
with_encoder_nonlocal_attn = false
with_decoder_nonlocal_attn = false
"""

_UNET = """
[unet]
in_channels = {channels}
out_channels = {channels}
num_channels = [32, 32, 64, 64]
num_res_blocks = 1
attention_levels = [false, false, true, true]
num_head_channels = [0, 0, 32, 32]
norm_num_groups = 16
"""

_UNET_EXTRA = {
    "ddpm": """include_top_region_index_input = true
include_bottom_region_index_input = true
include_spacing_input = true
resblock_updown = false
include_fc = false
""",
    "rflow": """include_spacing_input = true
num_class_embeds = 128
resblock_updown = true
include_fc = true
""",
    "haar": """resblock_updown = false
include_fc = true
""",
}

_TAIL = """
[schedule]
kind = "{schedule}"
prediction = "{prediction}"

[intensity]
kind = "window"
knots = [[-1000, 0.0], [1000, 1.0]]

[grid]
kind = "respace"
spacing_mm = 2.0
multiple = {multiple}

[conditioning]
class_label = 1

[defaults]
timestep = {timestep}
levels = ["up0", "up1", "up2", "up3"]
"""


def write_spec(folder: Path, kind: str, *, name: str = "", scale_factor: float = 1.0, accept_required: bool = False):
    """Write `NAME.toml` into a folder and return it as a ModelSpec; `name` is "tiny-KIND" unless given."""
    from meddift.models import find_spec

    name = name or f"tiny-{kind}"
    learned = kind != "haar"
    text = _HEAD.format(name=name, kind=kind, accept=str(accept_required).lower(), unet_name=unet_name(kind))
    text += _AUTOENCODER_FILE + _AUTOENCODER if learned else _HAAR.format(scale=scale_factor)
    text += _UNET.format(channels=4 if learned else 8) + _UNET_EXTRA[kind]
    text += _TAIL.format(
        schedule="rflow" if kind == "rflow" else "ddpm",
        prediction={"ddpm": "epsilon", "rflow": "v", "haar": "sample"}[kind],
        multiple=32 if learned else 16,
        timestep=155 if kind == "rflow" else 20,
    )
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return find_spec(str(path))


def unet_name(kind: str) -> str:
    """Name of the U-Net's file."""
    return "unet.safetensors" if kind == "haar" else "unet.pt"


@cache
def meta_scale_factor(value: float = 0.97) -> Any:
    """A 0-d MetaTensor with the header of an image file, as MAISI's training leaves it in its checkpoints."""
    import warnings

    import nibabel
    import torch

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        from monai.data import DataLoader, Dataset
        from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd

        path = Path(folder) / "latent.nii.gz"
        image = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([-2.0, -2.0, 3.0, 1.0])), path)
        steps = [LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="RAS")]
        batch = next(iter(DataLoader(Dataset([{"image": str(path)}], Compose(steps)), batch_size=1)))["image"]
        scale = 1 / torch.std(batch)
        return scale / float(scale) * value


def monai_unet() -> Any:
    """MONAI's class of U-Nets, of which the product has its own version."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
    return DiffusionModelUNetMaisi


@cache
def tensors(spec: Any, role: str, seed: int = 0) -> dict[str, Any]:
    """Random weights under the names of the published files; the ddpm U-Net's with its dead `out_proj`."""
    import torch

    from meddift.models.monai_import import monai_autoencoder

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if role == "autoencoder":
            network = monai_autoencoder()(spatial_dims=3, num_splits=1, save_mem=False, **spec.latent.network)
        else:
            network = monai_unet()(spatial_dims=3, **{**spec.unet, "include_fc": True})
            # The last convolution of each residual block and of the network begins as zeros: untouched, neither
            # the timestep nor any condition would change a feature, and tests of them would be empty.
            for parameter in network.parameters():
                if parameter.ndim > 1 and not parameter.any():
                    torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return dict(network.state_dict())


def unet_content(spec: Any, *, seed: int = 0, scale_factor: Any = None) -> dict[str, Any]:
    """What torch.save is given for a published U-Net."""
    return {
        "epoch": 3,
        "loss": 0.1,
        "num_train_timesteps": 1000,
        "scale_factor": meta_scale_factor() if scale_factor is None else scale_factor,
        "unet_state_dict": dict(tensors(spec, "unet", seed)),
    }


def write_weights(folder: Path, spec: Any, *, seed: int = 0, scale_factor: Any = None) -> Path:
    """Write the published files of a tiny model into `folder/models`; returns `folder`."""
    import torch
    from safetensors.torch import save_file

    (folder / "models").mkdir(parents=True, exist_ok=True)
    if spec.latent.kind == "haar":
        save_file(dict(tensors(spec, "unet", seed)), folder / "models" / "unet.safetensors")
        return folder
    torch.save(unet_content(spec, seed=seed, scale_factor=scale_factor), folder / "models" / "unet.pt")
    torch.save(dict(tensors(spec, "autoencoder", seed)), folder / "models" / "autoencoder.pt")
    return folder
