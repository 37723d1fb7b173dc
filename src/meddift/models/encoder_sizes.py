"""Sizes that determine the memory of `lean_encoder`, in a module that does not load torch, for estimates."""

from __future__ import annotations

from meddift.models.spec import ModelSpec

#: Floats in a slab: enough work for all threads, but small compared with a whole activation.
SLAB_NUMBERS = 16_000_000
#: How much of the output of a block's first convolution is kept unless memory is short, bytes.
HIDDEN_BYTES = 2_500_000_000
#: Slabs in memory at a time: read, activated, padded, convolved, and one of the shortcut that is added.
_SLABS = 5


def encoder_bytes(spec: ModelSpec, voxels: int, *, spare: bool = False) -> int:
    """The most memory that the encoder of a model takes for activations, bytes; 0 if it has none.

    Args:
        spec: The model.
        voxels: Number of voxels of the prepared scan.
        spare: Whether the encoder runs with the least memory, as in `DiffusionModel.encode`.
    """
    if spec.latent.kind != "autoencoder":
        return 0
    activation = 4 * int(spec.latent.network["num_channels"][0]) * voxels
    return activation + (0 if spare else min(activation, HIDDEN_BYTES)) + 4 * _SLABS * SLAB_NUMBERS
