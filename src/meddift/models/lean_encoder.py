"""The encoder of a MAISI autoencoder in the memory of two activations, with exact results for every shape.

MONAI's residual block holds four activations of the whole scan at a time. Here each stage is computed slab by slab
along the first axis. The convolution of a slab reads one plane of its neighbours on either side, so no voxel is
computed twice and there are no artificial borders. Group norms are those of the whole scan: their statistics are
computed over all slabs before the first slab is normalised. (MONAI's own `num_splits` and sliding windows do neither,
and change shapes or values silently.)

Of a residual block `x + conv2(silu(norm2(conv1(silu(norm1(x))))))` only x and the output of conv1 are kept, and the
result overwrites one of them. The output of the encoder's first convolution is not kept but computed again when it is
needed, which is cheap because the image has one channel. If the output of conv1 would take more than `hidden_bytes`,
only that much of it is kept and the rest is computed a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn import functional

from meddift.models.encoder_sizes import HIDDEN_BYTES, SLAB_NUMBERS

#: Floats in a slab of the encoding that is running; None = `SLAB_NUMBERS`.
_numbers: ContextVar[int | None] = ContextVar("_numbers", default=None)
#: Largest number of floats in a slab on a graphics card, and how many for each byte of its memory: several copies of a
#: slab, with four bytes for each float, exist at a time.
CARD_NUMBERS, CARD_SHARE = 2**30, 1 / 40


def slab_numbers(device: torch.device, *, spare: bool = False) -> int:
    """How many floats a slab has: few on a CPU, as many as fit on a graphics card, which computes large pieces faster.

    Args:
        device: Where the encoder runs.
        spare: Whether to take the least memory, as on a CPU.
    """
    if device.type != "cuda" or spare:
        return SLAB_NUMBERS
    total = torch.cuda.get_device_properties(device).total_memory
    return max(SLAB_NUMBERS, min(CARD_NUMBERS, int(total * CARD_SHARE)))


def encode_lean(
    encoder: torch.nn.Module, image: torch.Tensor, *, hidden_bytes: int = HIDDEN_BYTES, numbers: int | None = None
) -> torch.Tensor:
    """Compute `encoder(image)` in less memory; results are equal to rounding.

    Args:
        encoder: MONAI's MaisiEncoder, in evaluation mode, without attention at its finer stages.
        image: (1, 1, X, Y, Z) float32.
        hidden_bytes: How much is kept of the output of a block's first convolution, bytes; the rest is computed twice.
        numbers: Number of floats in a slab, from `slab_numbers`; None = `SLAB_NUMBERS`.

    Returns:
        (1, C, x, y, z) float32.
    """
    before = _numbers.set(numbers)
    try:
        return _encoded(encoder, image, hidden_bytes)
    finally:
        _numbers.reset(before)


def _encoded(encoder: torch.nn.Module, image: torch.Tensor, hidden_bytes: int) -> torch.Tensor:
    """The stages of the encoder, one after the other; arguments as for `encode_lean`."""
    blocks: Any = encoder.blocks
    planes: _Planes = _Stored(_slabbed(image))
    del image
    for number, block in enumerate(blocks):
        kind = type(block).__name__
        if kind == "MaisiConvolution":
            convolved = _Convolved(planes, block.conv.conv)
            # Only the first convolution reads so few channels that computing it again is cheap.
            planes = convolved if number == 0 else _Stored(_whole(convolved))
        elif kind == "MaisiResBlock":
            planes = _Stored(_residual(planes, block, hidden_bytes))
        elif kind == "MaisiDownsample":
            planes = _Stored(_downsampled(planes, block.conv.conv.conv))
        elif kind == "MaisiGroupNorm3D":
            scale, shift = _norm(planes, block)
            planes = _Stored(_whole(_Activated(planes, scale, shift, silu=False)))
        else:  # attention, at stages so coarse that nothing has to be saved
            planes = _Stored(_slabbed(block(_whole(planes).contiguous())))
    return _whole(planes).contiguous()


def understands(encoder: torch.nn.Module) -> bool:
    """Whether this is an encoder that `encode_lean` knows how to run."""
    blocks: Any = getattr(encoder, "blocks", None)
    if type(encoder).__name__ != "MaisiEncoder" or blocks is None or len(blocks) == 0:
        return False
    return type(blocks[0]).__name__ == "MaisiConvolution"


# ---------------------------------------------------------------------- where planes come from


class _Planes:
    """An activation of which a range of planes along the first axis can be computed or read."""

    shape: tuple[int, ...]
    device: torch.device

    def planes(self, start: int, stop: int) -> torch.Tensor:
        """(1, C, stop - start, Y, Z); must not be written to."""
        raise NotImplementedError


class _Stored(_Planes):
    """An activation that is completely in memory."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.shape, self.device = values, tuple(values.shape), values.device

    def planes(self, start: int, stop: int) -> torch.Tensor:
        return self.values[:, :, start:stop]


class _Activated(_Planes):
    """An activation after normalisation and SiLU, computed for the planes that are read."""

    def __init__(self, source: _Planes, scale: torch.Tensor, shift: torch.Tensor, *, silu: bool = True) -> None:
        self.source, self.shape, self.device = source, source.shape, source.device
        self._scale, self._shift, self._silu = scale, shift, silu

    def planes(self, start: int, stop: int) -> torch.Tensor:
        values = torch.addcmul(self._shift, self.source.planes(start, stop), self._scale)
        return functional.silu(values, inplace=True) if self._silu else values


class _Restored(_Planes):
    """An activation before its first planes were overwritten; copies of the last few overwritten ones are given."""

    def __init__(self, source: _Planes, aside: torch.Tensor, stop: int) -> None:
        self.source, self.shape, self.device = source, source.shape, source.device
        self._aside, self._stop = aside, stop

    def planes(self, start: int, stop: int) -> torch.Tensor:
        if start >= self._stop:
            return self.source.planes(start, stop)
        aside = self._aside[:, :, self._aside.shape[2] - (self._stop - start) :]
        return torch.cat([aside, self.source.planes(self._stop, stop)], dim=2)


class _Kept(_Planes):
    """Planes up to a limit are kept when they are first read, in order; those beyond are computed at each reading."""

    def __init__(self, source: _Planes, limit: int, values: torch.Tensor | None = None) -> None:
        self.source, self.shape, self.device, self._limit = source, source.shape, source.device, limit
        self._filled = 0 if values is None else limit
        self.values = _empty((*self.shape[:2], limit, *self.shape[3:]), source) if values is None else values

    def planes(self, start: int, stop: int) -> torch.Tensor:
        stored = min(stop, self._limit)
        if stored > self._filled:
            made = self.source.planes(start, stop)
            self.values[:, :, start:stored] = made[:, :, : stored - start]
            self._filled = stored
            return made
        if stop <= self._limit:
            return self.values[:, :, start:stop]
        if start >= self._limit:
            return self.source.planes(start, stop)
        return torch.cat([self.values[:, :, start:], self.source.planes(self._limit, stop)], dim=2)


class _Convolved(_Planes):
    """Output of a convolution (kernel 3 or 1, stride 1, zero padding), computed for the planes that are read."""

    def __init__(self, source: _Planes, convolution: torch.nn.Module) -> None:
        self.source, self.device = source, source.device
        weights: Any = convolution
        self._weight: torch.Tensor = weights.weight
        self._bias: torch.Tensor | None = weights.bias
        self._reach = int(self._weight.shape[2]) // 2
        self.shape = (1, int(self._weight.shape[0]), *source.shape[2:])

    def planes(self, start: int, stop: int) -> torch.Tensor:
        reach, length = self._reach, self.shape[2]
        first, last = max(0, start - reach), min(length, stop + reach)
        slab = self.source.planes(first, last)
        missing = (first - (start - reach), stop + reach - last)
        if any(missing):
            slab = functional.pad(slab, (0, 0, 0, 0, *missing))
        return functional.conv3d(slab, self._weight, self._bias, padding=(0, reach, reach))


# ---------------------------------------------------------------------- the stages


def _residual(planes: _Planes, block: Any, hidden_bytes: int) -> torch.Tensor:
    """A residual block; the result overwrites the output of its first convolution or, if that is not kept, x."""
    activation = _norm(planes, block.norm1)
    first, second, shortcut = block.conv1.conv.conv, block.conv2.conv.conv, block.nin_shortcut
    hidden: _Planes = _Convolved(_Activated(planes, *activation), first)
    limit = hidden.shape[2]
    over_input = isinstance(planes, _Stored) and planes.shape == hidden.shape
    if over_input:
        limit = min(limit, hidden_bytes // (4 * hidden.shape[1] * hidden.shape[3] * hidden.shape[4]))
        over_input = limit < hidden.shape[2]
    kept = _Kept(hidden, limit)
    again = _norm(kept, block.norm2)  # which also computes what is kept
    overwritten: _Planes = planes if over_input else _Stored(kept.values)
    result = planes.values if over_input and isinstance(planes, _Stored) else kept.values
    beside = planes if isinstance(shortcut, torch.nn.Identity) else _Convolved(planes, shortcut.conv.conv)
    aside = result[:, :, :0]
    for start, stop in _slabs(result.shape):
        before = _Restored(overwritten, aside, start)
        if over_input:
            source: _Planes = _Kept(_Convolved(_Activated(before, *activation), first), limit, kept.values)
        else:
            source = before
        # Two convolutions reach two planes back.
        aside = before.planes(max(0, stop - 2), stop).clone()
        made = _Convolved(_Activated(source, *again), second).planes(start, stop)
        torch.add(made, beside.planes(start, stop), out=result[:, :, start:stop])
    return result


def _downsampled(planes: _Planes, convolution: Any) -> torch.Tensor:
    """A convolution of stride 2, with one plane of zeros after the end of each axis."""
    shape = [(n + 1 - 3) // 2 + 1 for n in planes.shape[2:]]
    result = _empty((1, convolution.weight.shape[0], *shape), planes)
    for start, stop in _slabs((1, planes.shape[1], shape[0], *(2 * n for n in shape[1:]))):
        slab = planes.planes(2 * start, min(2 * stop + 1, planes.shape[2]))
        slab = functional.pad(slab, (0, 1, 0, 1, 0, 2 * stop + 1 - min(2 * stop + 1, planes.shape[2])))
        result[:, :, start:stop] = functional.conv3d(slab, convolution.weight, convolution.bias, stride=2)
    return result


def _norm(planes: _Planes, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A group norm as scale and shift, (1, C, 1, 1, 1) each, from statistics of the whole activation.

    Mean and variance are gathered plane by plane and joined in float64 (Chan, Golub, LeVeque: Updating formulae and a
    pairwise algorithm for computing sample variances, 1979), which avoids cancellation.
    """
    groups, channels = norm.num_groups, planes.shape[1]
    count = 0
    mean = torch.zeros(groups, dtype=torch.float64, device=planes.device)
    spread = torch.zeros_like(mean)
    for start, stop in _slabs(planes.shape):
        slab = planes.planes(start, stop)
        # A single plane fits into the cache of a CPU; a graphics card is faster on all planes at once.
        for part in torch.split(slab, 1 if slab.device.type == "cpu" else slab.shape[2], dim=2):
            # Per channel first: channels lie side by side in memory, groups of them are joined after.
            rows = part.permute(0, 2, 3, 4, 1).reshape(-1, channels).float()
            here = rows.mean(dim=0)
            away = (rows - here).square_().mean(dim=0)
            here, away = here.double().reshape(groups, -1), away.double().reshape(groups, -1)
            center = here.mean(dim=1)
            away = away.mean(dim=1) + (here - center[:, None]).square().mean(dim=1)
            number = rows.numel() // groups
            total = count + number
            shift = center - mean
            mean += shift * (number / total)
            spread += away * number + shift.square() * (count * number / total)
            count = total
    inverse = 1 / (spread / count + norm.eps).sqrt()
    per_channel = channels // groups
    scale = inverse.repeat_interleave(per_channel)
    offset = -mean.repeat_interleave(per_channel) * scale
    if norm.affine:
        weight, bias = norm.weight.double(), norm.bias.double()
        scale, offset = scale * weight, offset * weight + bias
    one, two = (part.float().reshape(1, -1, 1, 1, 1) for part in (scale, offset))
    return one, two


# ---------------------------------------------------------------------- memory


def _slabs(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of planes along the first axis of an activation."""
    numbers = _numbers.get() or SLAB_NUMBERS
    thickness = max(1, numbers // max(1, shape[1] * shape[3] * shape[4]))
    for start in range(0, shape[2], thickness):
        yield start, min(start + thickness, shape[2])


def _empty(shape: tuple[int, ...], like: _Planes) -> torch.Tensor:
    """Memory for an activation, channels last, so that a slab is contiguous."""
    plane = like.planes(0, 1)
    return torch.empty(shape, dtype=plane.dtype, device=plane.device, memory_format=torch.channels_last_3d)


def _slabbed(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous(memory_format=torch.channels_last_3d)


def _whole(planes: _Planes) -> torch.Tensor:
    """All planes."""
    if isinstance(planes, _Stored):
        return planes.values
    result = _empty(planes.shape, planes)
    for start, stop in _slabs(planes.shape):
        result[:, :, start:stop] = planes.planes(start, stop)
    return result
