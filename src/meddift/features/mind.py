"""MIND-SSC: a local descriptor of the self-similarity of image patches around a voxel (self-similarity context).

Heinrich, Jenkinson, Papiez, Brady, Schnabel: Towards realtime multimodal fusion for image-guided interventions
using self-similarities. MICCAI 2013. The patches around the six neighbours of a voxel are compared in the twelve pairs
that are not opposite. The patch of the voxel itself is not used, so that its noise does not affect all channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from meddift.errors import ImageError, OptionsError
from meddift.features.pyramid import Level
from meddift.volume import DeviceVolume, Volume

if TYPE_CHECKING:
    from torch import Tensor

#: Offsets of the six neighbours, in units of the dilation.
_NEIGHBOURS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
#: The twelve pairs of neighbours at distance sqrt(2), one for each channel. The smaller offset comes first.
_PAIRS = tuple(
    (min(pair), max(pair))
    for pair in combinations(_NEIGHBOURS, 2)
    if sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) == 2
)
#: The local variance is clamped to within this factor of its mean over the scan, as in the authors' code.
_VARIANCE_RANGE = 1e3
#: Voxels of a slab that is processed at a time: on the CPU so few that the data fit into the cache, on a GPU enough to
#: keep it busy.
_SLAB_VOXELS = {"cpu": 400_000, "cuda": 20_000_000}
#: Planes that are smoothed across planes at a time.
_RUN = {"cpu": 1, "cuda": 1_000}


def mind_level(
    volume: Volume,
    *,
    radius: int = 1,
    dilations: Sequence[int] = (1, 2),
    smoothing: float = 0.7,
    name: str = "mind",
    weight: float = 1.0,
    numbers: Literal["float32", "float16"] = "float32",
) -> Level:
    """Compute MIND-SSC at every voxel of a scan.

    For a pair of neighbours (a, b) of voxel x, at `dilation` voxels from it, D is the mean of squared differences
    between the cubes of `2 * radius + 1` voxels around a and around b. With V the mean over the twelve pairs of
    D - min D, clamped to within a factor of 1000 of its mean over the scan, the channel is exp(-(D - min D) / V).
    Border voxels are replicated beyond the scan.

    Args:
        volume: A scan of shape (X, Y, Z), any numeric type; MIND is computed on its device. Intensities should be
            those of the network's input, clipped to a window, so that metal and air do not dominate the variance.
        radius: Half the edge of the patches, voxels; 0 compares single voxels.
        dilations: Distances of the neighbours, voxels; each gives twelve channels.
        smoothing: Standard deviation of the Gaussian with which channels are finally smoothed, voxels; 0 = none. MIND
            varies quickly between voxels, whereas descriptors are interpolated.
        name: Name of the level.
        weight: Weight of the level.
        numbers: Type of the values: computed in float32, and rounded to float16 if asked for, plane by plane.

    Returns:
        Level of 12 channels for each dilation, values in (0, 1], on the grid of `volume`.

    Raises:
        ImageError: if `volume` has channels, or holds NaN or infinity.
        OptionsError: if `radius` or `smoothing` is negative, or a dilation is smaller than 1.
    """
    import torch

    sent = DeviceVolume.sent(volume, volume.tensor.device if isinstance(volume, DeviceVolume) else "cpu").tensor
    if sent.ndim != 3:
        raise ImageError(f"MIND needs one scan of three axes, got an array of shape {tuple(sent.shape)}")
    if radius < 0 or not dilations or min(dilations) < 1:
        raise OptionsError(f"MIND needs a radius of at least 0 and dilations of at least 1, got {radius}, {dilations}")
    if not (math.isfinite(smoothing) and smoothing >= 0):
        raise OptionsError(f"MIND needs a smoothing of 0 or more voxels, got {smoothing}")
    with torch.no_grad():
        scan = sent.float().contiguous()
        if not bool(torch.isfinite(scan).all()):
            raise ImageError("MIND needs a scan without NaN and infinity")
        kind = torch.float16 if numbers == "float16" else torch.float32
        features = scan.new_empty((*scan.shape, len(_PAIRS) * len(dilations)), dtype=kind)
        for block, dilation in enumerate(dilations):
            first = block * len(_PAIRS)
            _mind_into(features[..., first : first + len(_PAIRS)], scan, radius, dilation, _gaussian(smoothing))
    return Level(name, features, volume.grid, weight)


def _mind_into(out: Tensor, image: Tensor, radius: int, dilation: int, kernel: list[float]) -> None:
    """Compute the smoothed twelve channels of one dilation into `out`, (X, Y, Z, 12), slab by slab along X."""
    import torch

    margin, reach = radius + dilation, len(kernel) - 1
    padded = torch.nn.functional.pad(image[None, None], [margin] * 6, mode="replicate")[0, 0]
    run, slab_voxels = _RUN[image.device.type], _SLAB_VOXELS[image.device.type]
    planes, length = out.shape[0], max(1, slab_voxels // max(1, padded[0].numel()))
    length = min(length, planes)
    variance = image.new_empty(image.shape)
    slabs = [slice(start, min(start + length, planes)) for start in range(0, planes, length)]

    def distances_in(slab: slice) -> tuple[list[Tensor], Tensor]:
        distances = _patch_distances(padded[slab.start : slab.stop + 2 * margin], radius, dilation)
        smallest = distances[0].clone()
        for distance in distances[1:]:
            torch.minimum(smallest, distance, out=smallest)
        return distances, smallest

    for slab in slabs:
        distances, smallest = distances_in(slab)
        total = distances[0].clone()
        for distance in distances[1:]:
            total += distance
        torch.sub(total.div_(len(_PAIRS)), smallest, out=variance[slab])
    # float64, since this is a mean of millions of values of very different size
    mean = float(variance.mean(dtype=torch.float64))
    if mean == 0.0:  # the scan is constant, and so is every patch
        out.fill_(1.0)
        return
    variance.clamp_(mean / _VARIANCE_RANGE, mean * _VARIANCE_RANGE)
    # Channels smoothed within planes: those of a slab, and `reach` more on either side for smoothing across planes.
    channels = image.new_empty((len(_PAIRS), length + 3 * reach, *image.shape[1:]))
    one, other = image.new_empty((2, length, *image.shape[1:]))
    for slab in slabs:
        # Computing the distances again takes less time than storing all of them until the variance is known.
        distances, smallest = distances_in(slab)
        count = slab.stop - slab.start
        for channel, distance in zip(channels, distances, strict=True):
            torch.sub(smallest, distance, out=one[:count])
            one[:count].div_(variance[slab]).exp_()
            _smooth_along(one[:count], 2, kernel, out=other[:count])
            _smooth_along(other[:count], 1, kernel, out=channel[2 * reach : 2 * reach + count])
        if slab.start == 0:
            channels[:, : 2 * reach] = channels[:, 2 * reach : 2 * reach + 1]
        at_end, end = slab.stop == planes, 2 * reach + count
        if at_end:
            channels[:, end : end + reach] = channels[:, end - 1 : end]
        # The planes whose neighbours on both sides have been computed.
        last = planes if at_end else slab.stop - reach
        for plane in range(max(0, slab.start - reach), last, run):
            count_now = min(run, last - plane)
            middle = plane - slab.start + 2 * reach
            smoothed = channels[:, middle : middle + count_now] * kernel[0]
            for offset, weight in enumerate(kernel[1:], start=1):
                for side in (middle - offset, middle + offset):
                    smoothed.add_(channels[:, side : side + count_now], alpha=weight)
            out[plane : plane + count_now] = smoothed.to(out.dtype).permute(1, 2, 3, 0)
        channels[:, : 2 * reach] = channels[:, count : count + 2 * reach].clone()


def _patch_distances(padded: Tensor, radius: int, dilation: int) -> list[Tensor]:
    """Mean squared differences between patches: one (x, Y, Z) map for each pair, for a slab with margins.

    The map of a pair (a, b) is that of (0, b - a) shifted by a, and so is that of its mirror image (-b, -a). Therefore
    only six maps are averaged over patches, and each is read at two shifts.
    """
    margin = radius + dilation
    shape = [n - 2 * margin for n in padded.shape]
    averaged: dict[tuple[int, ...], Tensor] = {}
    result = []
    for first, second in _PAIRS:
        step = tuple(b - a for a, b in zip(first, second, strict=True))
        if step not in averaged:
            averaged[step] = _averaged_square(padded, [dilation * s for s in step], radius)
        # Index 0 of an averaged map is the first position at which both patches lie inside the padded slab.
        start = [margin + dilation * a - radius + min(0, dilation * s) for a, s in zip(first, step, strict=True)]
        window = tuple(slice(i, i + n) for i, n in zip(start, shape, strict=True))
        result.append(averaged[step][window])
    return result


def _averaged_square(image: Tensor, shift: list[int], radius: int) -> Tensor:
    """Mean over a cube of (image(y) - image(y + shift))^2 wherever both cubes lie inside the image."""
    here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, image.shape, strict=True))
    there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, image.shape, strict=True))
    squared = image[here] - image[there]
    squared.square_()
    edge = 2 * radius + 1
    for axis in range(3):
        count = squared.shape[axis] - 2 * radius
        summed = squared.narrow(axis, 0, count).clone()
        for offset in range(1, edge):
            summed += squared.narrow(axis, offset, count)
        squared = summed
    return squared.div_(edge**3)


def _gaussian(sigma: float) -> list[float]:
    """Half of a normalised Gaussian kernel, from its centre to three sigma; [1] for a sigma of 0."""
    if sigma == 0:
        return [1.0]
    reach = max(1, int(3 * sigma + 0.5))
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(reach + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights]


def _smooth_along(values: Tensor, axis: int, kernel: list[float], out: Tensor) -> None:
    """Convolve along an axis with a symmetric kernel, given from its centre; border values are replicated."""
    import torch

    count = values.shape[axis]
    torch.mul(values, kernel[0], out=out)
    for offset, weight in enumerate(kernel[1:], start=1):
        inside = max(0, count - offset)
        beyond = count - inside
        for first, second, border, edge in ((0, offset, inside, count - 1), (offset, 0, 0, 0)):
            if inside:
                out.narrow(axis, first, inside).add_(values.narrow(axis, second, inside), alpha=weight)
            out.narrow(axis, border, beyond).add_(values.narrow(axis, edge, 1), alpha=weight)
