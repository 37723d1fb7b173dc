"""Whitening of descriptors by the joint statistics of two scans.

Features of a network share a large common component and vary far more along some directions than along others, so
that cosines saturate near 1. ZCA whitening subtracts the mean and multiplies by the inverse square root of the
covariance (Bell and Sejnowski, The "independent components" of natural scenes are edge filters, Vision Research 1997).
It is an affine map of the coarse features, which commutes with interpolation.
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

#: Size of a block, as a number of values, that stays in the cache together with its result.
_BLOCK_NUMBERS = 200_000


@dataclass(frozen=True, eq=False)
class Whitening:
    """The whitening of one level: (descriptor - mean) @ matrix.

    Attributes:
        mean: (C,) float32.
        matrix: (C, C) float32, symmetric.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def apply(self, rows: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Whiten (N, C) float32 descriptors, into `out` if it is given."""
        mapped: NDArray[np.float32] = np.matmul(rows, self.matrix, out=out)
        mapped -= self.mean @ self.matrix
        return mapped

    def whiten(self, descriptors: Tensor) -> Tensor:
        """Whiten (..., C) float16 or float32 descriptors on any device: float32; this commutes with interpolation."""
        shift, matrix = self.tensors(descriptors.device)
        return shift.addmm(descriptors.float().reshape(-1, len(matrix)), matrix).reshape(descriptors.shape)

    def tensors(self, device: Any) -> tuple[Tensor, Tensor]:
        """The whitened zero vector (C,) and the matrix (C, C) on a device, cached."""
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
    """Name of each level -> its whitening, as `whiten_pair` applies it; same arguments and errors."""
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

    Each level is whitened with the mean and covariance of the descriptors of both scans (see `Pyramid.moments_of`), in
    the same way for both.

    Args:
        fixed: Pyramid of the fixed scan.
        moving: Pyramid of the moving scan, with the same levels and numbers of channels.
        floor: Eigenvalues of the covariance below this share of the largest are raised to it, so that directions that
            contain only noise are not amplified.
        levels: Names of the levels to whiten; other levels stay unchanged. None = all.

    Returns:
        The fixed and the moving pyramid. Arrays of levels that are not whitened are shared.

    Raises:
        OptionsError: if `floor` is not within (0, 1], or a level does not exist.
        ModelError: if the levels of the two scans do not correspond, or contain NaN or infinity.
    """
    maps = whitening_maps(fixed, moving, floor=floor, levels=levels)
    settings = {"floor": floor, "levels": sorted(maps)}
    return _whitened(fixed, maps, moving.digest, settings), _whitened(moving, maps, fixed.digest, settings)


def _whitened(pyramid: Pyramid, maps: dict[str, Whitening], partner: str, settings: dict[str, object]) -> Pyramid:
    """The pyramid with whitened levels, a digest of its own, and the whitening in its provenance."""
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
    if values[-1] <= 0:  # a constant level contains no information: it becomes zero
        return Whitening(mean, np.eye(channels[0], dtype=np.float32))
    scale = 1 / np.sqrt(np.maximum(values, floor * values[-1]))
    return Whitening(mean, ((vectors * scale) @ vectors.T).astype(np.float32))


def _mapped(level: Level, whitening: Whitening) -> Level:
    """The whitened level."""
    rows = level.array.reshape(-1, level.channels)
    result = np.empty(rows.shape, dtype=np.float32)
    length = max(1, _BLOCK_NUMBERS // level.channels)
    for start in range(0, len(rows), length):
        block = rows[start : start + length].astype(np.float32, copy=False)
        whitening.apply(block, out=result[start : start + length])
    return replace(level, values=result.reshape(level.array.shape))
