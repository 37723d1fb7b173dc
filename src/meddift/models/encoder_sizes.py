"""How much of a scan `lean_encoder` keeps at a time; here, so that memory can be estimated without loading torch."""

from __future__ import annotations

from meddift.models.spec import ModelSpec

#: Numbers of a slab: enough for the threads, little beside an activation.
SLAB_NUMBERS = 16_000_000
#: What is kept of the output of a block's first convolution unless memory is short, bytes.
HIDDEN_BYTES = 2_500_000_000
#: Slabs that are there at a time: read, activated, padded, convolved, and one of what it is added to.
_SLABS = 5


def encoder_bytes(spec: ModelSpec, voxels: int, *, spare: bool = False) -> int:
    """The most memory that the encoder of a model takes for activations, bytes; 0 if it has none.

    Args:
        spec: The model.
        voxels: Of the grid that the network sees.
        spare: Whether as little as possible is kept.
    """
    if spec.latent.kind != "autoencoder":
        return 0
    activation = 4 * int(spec.latent.network["num_channels"][0]) * voxels
    return activation + (0 if spare else min(activation, HIDDEN_BYTES)) + 4 * _SLABS * SLAB_NUMBERS
