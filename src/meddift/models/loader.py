"""Loading: from a specification and weights files to a `DiffusionModel`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from meddift.errors import ModelError, WeightsCorruptError
from meddift.models import lean_encoder
from meddift.models.catalogue import find_spec
from meddift.models.checkpoint import Checkpoint, read_checkpoint
from meddift.models.encoder_sizes import HIDDEN_BYTES
from meddift.models.fingerprint import check_fingerprint
from meddift.models.monai_import import monai_autoencoder
from meddift.models.network import DiffusionModel
from meddift.models.spec import ModelSpec
from meddift.models.unet import UNet
from meddift.models.voxel_norm import normalise_by_voxel
from meddift.models.weights import locate_weights
from meddift.system.device import Precision, choose_device, choose_precision

#: Tensors that the DDPM model's file holds although its network never used them (MONAI issue 7991).
_DEAD = re.compile(r"\.attn\.out_proj\.(weight|bias)$")

#: No limit, bytes.
_EVERYTHING = 2**62
#: The halves of an autoencoder: what is needed to encode, and what only decoding needs.
_ENCODER = ("encoder.", "quant_conv_mu.", "quant_conv_log_sigma.")


def load_model(
    spec: ModelSpec | str,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
) -> DiffusionModel:
    """Build a model and load its weights. Never downloads anything.

    Args:
        spec: A specification, a name of the catalogue, or the path of a specification file.
        weights: Folder with the published files; None = those that come with the package, or were
            put into meddift's store by `pull` or `import_weights`.
        device: "cpu", "cuda", "cuda:N" or "mps".
        precision: "float32", "bfloat16", or "auto" (bfloat16 on devices that compute in it).

    Returns:
        The model, ready to use.

    Raises:
        ModelError: if the model is unknown.
        WeightsMissingError: if weights are not on this machine.
        WeightsCorruptError: if they are damaged, unsafe, or of another model.
        OptionsError: if the device or the precision does not exist.
    """
    found = spec if isinstance(spec, ModelSpec) else find_spec(spec)
    # Check what is cheap before hundreds of megabytes are read.
    choose_precision(precision, choose_device(device))
    located = locate_weights(found, weights)
    loaded = {role: load_role(found, role, paths) for role, paths in located.files.items()}
    encoder = build_encoder(found, loaded["autoencoder"].tensors) if "autoencoder" in loaded else None
    return DiffusionModel(
        found,
        unet=build_unet(found, loaded["unet"].tensors),
        encoder=encoder,
        scale_factor=scale_factor_of(found, loaded["unet"], located.files["unet"]),
        weights_hash=located.digest(),
        device=device,
        precision=precision,
    )


def load_role(spec: ModelSpec, role: str, paths: Sequence[Path]) -> Checkpoint:
    """Read the file of one role, check it against the specification and keep only what is used.

    Args:
        spec: The model.
        role: "unet" or "autoencoder".
        paths: The file, or its parts.

    Returns:
        Tensors under exactly the names that the network has (of an autoencoder: its encoder), in the
        precision in which they are stored.

    Raises:
        WeightsCorruptError: if anything is missing, foreign, of another shape or not finite.
    """
    checkpoint = read_checkpoint(paths)
    tensors = dict(checkpoint.tensors)
    file = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and its other parts"
    if checkpoint.nested_in == "controlnet_state_dict":
        raise WeightsCorruptError(f"{file} is a ControlNet, but {spec.name} wants its {role} here")
    check_fingerprint(tensors, spec, role=role, file=file)
    wanted = {name: tuple(tensor.shape) for name, tensor in _empty_network(spec, role).state_dict().items()}
    if role == "autoencoder" and not any(name.startswith(("decoder.", "post_quant")) for name in tensors):
        wanted = {name: shape for name, shape in wanted.items() if name.startswith(_ENCODER)}
    _check_tensors(tensors, wanted, spec, file, dead_allowed=role == "unet" and not spec.unet.get("include_fc"))
    kept = [name for name in wanted if role == "unet" or name.startswith(_ENCODER)]
    return Checkpoint({name: tensors[name] for name in kept}, checkpoint.scale_factor)


def build_unet(spec: ModelSpec, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The U-Net with its weights in float32, in evaluation mode."""
    return _with_weights(_empty_network(spec, "unet"), tensors)


def _attending(network: torch.nn.Module) -> torch.nn.Module:
    """A network of MONAI whose attention is PyTorch's own.

    That gives the same numbers as MONAI's einsum to rounding, without its quadratic memory. MONAI offers it only where
    CUDA is present, but it is the constructor that refuses; the attribute may be set afterwards.
    """
    for module in network.modules():
        if hasattr(module, "use_flash_attention"):
            setattr(module, "use_flash_attention", True)  # noqa: B010 - plain assignment would be typed as a tensor
    return network


def build_encoder(spec: ModelSpec, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The encoding half of the autoencoder with its weights in float32, in evaluation mode."""
    return _attending(_with_weights(PosteriorEncoder(_empty_network(spec, "autoencoder")), tensors))


def scale_factor_of(spec: ModelSpec, checkpoint: Checkpoint, paths: Sequence[Path]) -> float:
    """The latent scale: the specification's where it has one, otherwise the file's.

    Raises:
        WeightsCorruptError: if neither knows it.
    """
    if spec.latent.scale_factor > 0:
        return spec.latent.scale_factor
    if checkpoint.scale_factor is None:
        raise WeightsCorruptError(
            f"{paths[0]} holds no scale_factor; if you know it, write a specification with latent.scale_factor"
        )
    return checkpoint.scale_factor


class PosteriorEncoder(torch.nn.Module):
    """Image -> mean and standard deviation of the latent (the first half of AutoencoderKL).

    Args:
        autoencoder: A MONAI AutoencoderKlMaisi; its decoder is not kept.
    """

    def __init__(self, autoencoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = autoencoder.encoder
        self.quant_conv_mu = autoencoder.quant_conv_mu
        self.quant_conv_log_sigma = autoencoder.quant_conv_log_sigma

    def forward(self, image: torch.Tensor, *, spare: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, both (N, C, x, y, z), for an image (N, 1, X, Y, Z).

        `spare` takes the least memory and more time.
        """
        encoder: Any = self.encoder
        lean = len(image) == 1 and lean_encoder.understands(encoder)
        kept = 0 if spare else HIDDEN_BYTES if image.device.type == "cpu" else _EVERYTHING
        numbers = lean_encoder.slab_numbers(image.device, spare=spare)
        hidden = (
            lean_encoder.encode_lean(encoder, image, hidden_bytes=kept, numbers=numbers) if lean else encoder(image)
        )
        mean: torch.Tensor = self.quant_conv_mu(hidden)  # type: ignore[operator]
        log_variance: torch.Tensor = self.quant_conv_log_sigma(hidden)  # type: ignore[operator]
        # The bounds of MONAI's AutoencoderKL.encode.
        return mean, torch.exp(torch.clamp(log_variance, -30.0, 20.0) / 2)


def _empty_network(spec: ModelSpec, role: str) -> torch.nn.Module:
    """The network of a role without memory for its weights.

    Options that concern only how and not what is computed are set so that every device can run it: no
    half-precision norms, no splitting of convolutions (which corrupts shapes it does not divide).
    """
    # Imported here, since what the import makes needs memory of its own.
    autoencoder_class: Any = monai_autoencoder() if role == "autoencoder" else None
    try:
        with torch.device("meta"):
            if role == "unet":
                network: torch.nn.Module = UNet(**spec.unet)
                if spec.normalisation == "voxel":
                    normalise_by_voxel(network)
            else:
                network = autoencoder_class(
                    spatial_dims=3,
                    **spec.latent.network,
                    use_flash_attention=False,
                    norm_float16=False,
                    num_splits=1,
                    save_mem=False,
                )
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"the {role} of {spec.name} cannot be built as specified: {error}") from error
    return network


def _with_weights(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Put weights into a network that has no memory of its own yet."""
    # A copy: the file may be mapped into memory, and must be free to be replaced while the model is in use.
    own = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    network.load_state_dict(own, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _check_tensors(
    tensors: Mapping[str, torch.Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    spec: ModelSpec,
    file: str,
    *,
    dead_allowed: bool,
) -> None:
    """Raise unless names and shapes are those wanted and all values are finite numbers."""
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise WeightsCorruptError(
            f"{file} is not complete: {len(missing)} of the {len(wanted)} tensors of {spec.name} are missing, "
            f"such as {missing[0]!r}"
        )
    foreign = sorted(name for name in tensors.keys() - wanted.keys() if not (dead_allowed and _DEAD.search(name)))
    if foreign:
        raise WeightsCorruptError(
            f"{file} is of another model: {spec.name} has no place for {len(foreign)} of its tensors, "
            f"such as {foreign[0]!r}"
        )
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise WeightsCorruptError(
                f"{file} is of another model: {name!r} has shape {tuple(tensor.shape)}, {spec.name} wants {shape}"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise WeightsCorruptError(f"{file} is damaged: {name!r} holds values that are not finite numbers")
