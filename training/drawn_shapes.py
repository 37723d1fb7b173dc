"""Drawn anatomy that is nobody's: a body of random tissues whose brightness differs from contrast to contrast.

Training on shapes without any particular anatomy is what makes networks indifferent to contrast (Hoffmann et al.,
SynthMorph, IEEE TMI 2022). Tissues are drawn as labels, so that, other than with a map of intensities, no third
shade appears where two of them meet.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from training_scans import AIR_HU, TOP_HU, Each, Scan

#: Voxels of a drawn body along each axis, and how many contrasts each is drawn in.
EDGE, CONTRASTS = 112, 4
#: Sizes of tissues, mm: distance of control values of the noise whose maxima they are.
COARSE_MM, FINE_MM = 45.0, 16.0
#: Tissues: large ones, small ones inside some of these, and tubes through all of them.
LARGE, SMALL, TUBES = 8, 5, 2


def draw_shapes(
    count: int, *, spacing_mm: float, weight: float = 1.0, first_seed: int = 0, each: Each = map
) -> list[Scan]:
    """Draw bodies, each from a seed of its own, as "MR" of `CONTRASTS` contrasts on one grid.

    Args:
        count: How many.
        spacing_mm: Voxel size.
        weight: How often one is drawn, relative to a scan of its size.
        first_seed: Of the first one.
        each: `map`, or one that works on several at once.
    """
    return list(each(partial(draw_body, spacing_mm=spacing_mm, weight=weight), range(first_seed, first_seed + count)))


def draw_body(seed: int, *, spacing_mm: float, weight: float) -> Scan:
    """A drawn body in all of its contrasts."""
    generator = torch.Generator().manual_seed(7_000_000 + seed)
    labels = draw_labels(generator, spacing_mm=spacing_mm)
    versions = [_in_contrast(labels, generator) for _ in range(CONTRASTS)]
    return Scan(f"shapes-{seed}", versions[0], spacing_mm, weight, tuple(versions[1:]), "MR")


def draw_labels(generator: torch.Generator, *, spacing_mm: float) -> torch.Tensor:
    """(EDGE, EDGE, EDGE) int64: 0 outside of the body, then its shell, large tissues, small ones, tubes."""
    axis = torch.linspace(-1, 1, EDGE)
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    radii = 0.65 + 0.3 * torch.rand(3, generator=generator)
    # An uneven ellipsoid that may be cut by the field of view along the third axis, as a trunk is.
    radii[2] = radii[2] * (1.0 if float(torch.rand((), generator=generator)) < 0.5 else 4.0)
    depth = 1 - (place / radii).norm(dim=-1) + 0.08 * _noise(generator, 1, 2 * COARSE_MM, spacing_mm)[0]
    large = 2 + _noise(generator, LARGE, COARSE_MM, spacing_mm).argmax(0)
    small = 2 + LARGE + _noise(generator, SMALL, FINE_MM, spacing_mm).argmax(0)
    # Half of the large tissues consist of small ones, as an organ of its parts.
    parted = torch.rand(2 + LARGE, generator=generator) < 0.5
    labels = torch.where(parted[large], small, large)
    for tube in range(TUBES):
        # Where two smooth fields are both close to zero lie curves: vessels.
        first, second = _noise(generator, 2, COARSE_MM, spacing_mm)
        labels[first.square() + second.square() < 0.02 + 0.03 * tube] = 2 + LARGE + SMALL + tube
    labels[depth < 0.08] = 1
    labels[depth < 0] = 0
    return labels


def _noise(generator: torch.Generator, count: int, size_mm: float, spacing_mm: float) -> torch.Tensor:
    """(count, EDGE, EDGE, EDGE) smooth noise of unit variance at its control values."""
    control = max(3, math.ceil(EDGE * spacing_mm / size_mm) + 1)
    values = torch.randn(1, count, control, control, control, generator=generator)
    return F.interpolate(values, size=(EDGE,) * 3, mode="trilinear", align_corners=True)[0]


def _in_contrast(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each tissue a brightness and a texture of its own, in the range of the window; partial volumes at its border."""
    tissues = int(labels.max()) + 1
    brightness = 0.05 + 0.95 * torch.rand(tissues, generator=generator)
    brightness[0] = 0
    brightness = brightness / brightness.max()
    image = brightness[labels]
    image = F.avg_pool3d(image[None, None], 3, 1, 1, count_include_pad=False)[0, 0] * 0.5 + image * 0.5
    return AIR_HU + (TOP_HU - AIR_HU) * image.clamp(0, 1)
