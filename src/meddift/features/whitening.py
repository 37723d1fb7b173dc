"""Whitening: what all descriptors of two scans have in common is taken out, what tells them apart is kept.

Raw features share a large common part, and some directions vary a thousand times more than others, so that cosines
saturate near 1. ZCA whitening subtracts the mean and multiplies by the inverse square root of the covariance (Bell and
Sejnowski, The "independent components" of natural scenes are edge filters, Vision Research 1997). It is a linear map
of the coarse features, so interpolation and exact search hold as they stand.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ModelError, OptionsError
from meddift.features.pyramid import Level, Pyramid

if TYPE_CHECKING:
    from torch import Tensor

#: About this many numbers are mapped at a time: a block and its image stay in the cache.
_BLOCK_NUMBERS = 200_000


@dataclass(frozen=True, eq=False)
class Whitening:
    """The map that whitens the descriptors of one level: (descriptor - mean) @ matrix.

    Attributes:
        mean: (C,) float32.
        matrix: (C, C) float32, symmetric.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def apply(self, rows: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Map (N, C) float32 descriptors."""
        mapped: NDArray[np.float32] = np.matmul(rows, self.matrix, out=out)
        mapped -= self.mean @ self.matrix
        return mapped

    def whiten(self, descriptors: Tensor) -> Tensor:
        """Map (..., C) float32 descriptors on any device; linear, so interpolation may come before or after."""
        shift, matrix = self.tensors(descriptors.device)
        return shift.addmm(descriptors.reshape(-1, len(matrix)), matrix).reshape(descriptors.shape)

    def tensors(self, device: Any) -> tuple[Tensor, Tensor]:
        """Minus the mapped mean, and the matrix, on a device; kept there."""
        import torch

        kept = self.__dict__.setdefault("_on_devices", {})
        if str(device) not in kept:
            made = -(self.mean @ self.matrix), self.matrix
            kept[str(device)] = tuple(torch.from_numpy(each).to(device) for each in made)
        found: tuple[Tensor, Tensor] = kept[str(device)]
        return found


def whitening_maps(
    fixed: Pyramid, moving: Pyramid, *, floor: float = 1e-4, levels: Iterable[str] | None = None
) -> dict[str, Whitening]:
    """The maps by which `whiten_pair` whitens levels, without applying them.

    Takes and raises what `whiten_pair` does.
    """
    if not (math.isfinite(floor) and 0 < floor <= 1):
        raise OptionsError(f"the floor of whitening must be more than 0 and at most 1, got {floor}")
    if fixed.names != moving.names:
        raise ModelError(
            f"the two scans have different levels ({', '.join(fixed.names)}; {', '.join(moving.names)}); "
            "extract both with the same options"
        )
    wanted = {fixed.level(name).name for name in (fixed.names if levels is None else levels)}
    return {name: _whitening((fixed, moving), name, floor) for name in fixed.names if name in wanted}


def whiten_pair(
    fixed: Pyramid, moving: Pyramid, *, floor: float = 1e-4, levels: Iterable[str] | None = None
) -> tuple[Pyramid, Pyramid]:
    """Whiten levels of two scans by the statistics of both together.

    For each level: subtract the mean, multiply by the symmetric inverse square root of the covariance, both taken over
    (every n-th of) the voxels of both scans whose centre lies in the field of view of its scan (padding does not
    count; where a grid is so coarse that no centre does, all of its voxels count). Both scans are mapped in the
    same way.

    Args:
        fixed: Pyramid of the scan in which points are given.
        moving: Pyramid of the scan in which they are looked for; the same levels with as many channels.
        floor: Eigenvalues of the covariance below this share of the largest are raised to it, so that
            directions that hold only noise are not blown up.
        levels: Names of the levels to whiten; the others are handed on as they are. None whitens all.

    Returns:
        The two pyramids, in the order of the arguments. Arrays are new where a level was whitened, shared otherwise.

    Raises:
        OptionsError: if `floor` is not within (0, 1], or a level is not there.
        ModelError: if the levels of the two scans do not fit together, or hold NaN or infinity.
    """
    maps = whitening_maps(fixed, moving, floor=floor, levels=levels)
    settings = {"floor": floor, "levels": sorted(maps)}
    return _whitened(fixed, maps, moving.digest, settings), _whitened(moving, maps, fixed.digest, settings)


def _whitened(pyramid: Pyramid, maps: dict[str, Whitening], partner: str, settings: dict[str, object]) -> Pyramid:
    """The pyramid with its new levels, a digest of its own, and a note of what was done."""
    note = {**settings, "with": partner}
    digest = hashlib.sha256(json.dumps([pyramid.digest, note], sort_keys=True).encode()).hexdigest()
    levels = tuple(_mapped(level, maps[level.name]) if level.name in maps else level for level in pyramid.levels)
    moments = {name: known for name, known in pyramid.moments.items() if name not in maps}
    provenance = {**pyramid.provenance, "whitening": note}
    return replace(pyramid, levels=levels, digest=digest, provenance=provenance, moments=moments)


def _whitening(pyramids: tuple[Pyramid, Pyramid], name: str, floor: float) -> Whitening:
    """Mean and symmetric inverse square root of the covariance of one level of two scans."""
    channels = [pyramid.level(name).channels for pyramid in pyramids]
    if channels[0] != channels[1]:
        raise ModelError(f"level {name!r} has {channels[0]} channels in one scan and {channels[1]} in the other")
    fixed, moving = (pyramid.moments_of(name) for pyramid in pyramids)
    both = fixed.joined(moving)
    if not np.isfinite(both.covariance).all():
        raise ModelError(f"level {name!r} holds NaN or infinity and cannot be whitened")
    values, vectors = np.linalg.eigh(both.covariance)
    mean = both.mean.astype(np.float32)
    if values[-1] <= 0:  # a constant level tells nothing apart: it becomes zero
        return Whitening(mean, np.eye(channels[0], dtype=np.float32))
    scale = 1 / np.sqrt(np.maximum(values, floor * values[-1]))
    return Whitening(mean, ((vectors * scale) @ vectors.T).astype(np.float32))


def _mapped(level: Level, whitening: Whitening) -> Level:
    """The level after whitening."""
    features = np.empty_like(level.features)
    rows, result = level.matrix, features.reshape(-1, level.channels)
    length = max(1, _BLOCK_NUMBERS // level.channels)
    for start in range(0, len(rows), length):
        whitening.apply(rows[start : start + length], out=result[start : start + length])
    return replace(level, values=features)
