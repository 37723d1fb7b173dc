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
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ModelError, OptionsError
from meddift.features.pyramid import Level, Pyramid

#: Statistics are taken from every n-th voxel, so that about this many of each scan count: for some tens of channels
#: the covariance is then known to a few thousandths.
_ROWS = 400_000
#: About this many numbers are turned into float64 at a time (64 MB).
_BLOCK_NUMBERS = 8_000_000


def whiten_pair(
    fixed: Pyramid, moving: Pyramid, *, floor: float = 1e-4, levels: Iterable[str] | None = None
) -> tuple[Pyramid, Pyramid]:
    """Whiten levels of two scans by the statistics of both together.

    For each level: subtract the mean, multiply by the symmetric inverse square root of the covariance, both taken over
    (every n-th of) the voxels of both scans whose centre lies in the field of view of its scan (padding does not
    count; where a lattice is so coarse that no centre does, all of its voxels count). Both scans are mapped in the
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
    if not (math.isfinite(floor) and 0 < floor <= 1):
        raise OptionsError(f"the floor of whitening must be more than 0 and at most 1, got {floor}")
    if fixed.names != moving.names:
        raise ModelError(
            f"the two scans have different levels ({', '.join(fixed.names)}; {', '.join(moving.names)}); "
            "extract both with the same options"
        )
    wanted = {fixed.level(name).name for name in (fixed.names if levels is None else levels)}
    pairs = []
    for name in fixed.names:
        pair = (fixed.level(name), moving.level(name))
        if name in wanted:
            mean, matrix = _statistics((fixed, moving), name, floor)
            pair = (_mapped(pair[0], mean, matrix), _mapped(pair[1], mean, matrix))
        pairs.append(pair)
    settings = {"floor": floor, "levels": sorted(wanted)}
    return (
        _whitened(fixed, tuple(pair[0] for pair in pairs), moving.digest, settings),
        _whitened(moving, tuple(pair[1] for pair in pairs), fixed.digest, settings),
    )


def _whitened(pyramid: Pyramid, levels: tuple[Level, ...], partner: str, settings: dict[str, object]) -> Pyramid:
    """The pyramid with its new levels, a digest of its own, and a note of what was done."""
    note = {**settings, "with": partner}
    digest = hashlib.sha256(json.dumps([pyramid.digest, note], sort_keys=True).encode()).hexdigest()
    return replace(pyramid, levels=levels, digest=digest, provenance={**pyramid.provenance, "whitening": note})


def _statistics(
    pyramids: tuple[Pyramid, Pyramid], name: str, floor: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (C,) and symmetric inverse square root of the covariance (C, C) of one level of two scans."""
    channels = [pyramid.level(name).channels for pyramid in pyramids]
    if channels[0] != channels[1]:
        raise ModelError(f"level {name!r} has {channels[0]} channels in one scan and {channels[1]} in the other")
    masks, matrices = [], []
    for pyramid in pyramids:
        mask = pyramid.inside(name).reshape(-1)
        mask = mask if mask.any() else np.ones_like(mask)
        step = _odd(int(mask.sum()) // _ROWS)
        masks.append(mask[::step])
        matrices.append(pyramid.level(name).matrix[::step])
    count = sum(int(mask.sum()) for mask in masks)
    # One pass over the data: moments about a guess of the mean, from a few rows, lose no digits worth mentioning.
    some = np.flatnonzero(masks[0])[:: max(1, count // 5000)]
    guess = matrices[0][some].mean(axis=0, dtype=np.float64)
    total = np.zeros(channels[0])
    covariance = np.zeros((channels[0], channels[0]))
    for block in _blocks(matrices, masks):
        block -= guess
        total += block.sum(axis=0)
        covariance += block.T @ block
    offset = total / count
    mean = guess + offset
    covariance = covariance / count - np.outer(offset, offset)
    if not np.isfinite(covariance).all():
        raise ModelError(f"level {name!r} holds NaN or infinity and cannot be whitened")
    values, vectors = np.linalg.eigh(covariance)
    if values[-1] <= 0:  # a constant level tells nothing apart: it becomes zero
        return mean.astype(np.float32), np.eye(channels[0], dtype=np.float32)
    scale = 1 / np.sqrt(np.maximum(values, floor * values[-1]))
    return mean.astype(np.float32), ((vectors * scale) @ vectors.T).astype(np.float32)


def _blocks(matrices: list[NDArray[np.float32]], masks: list[NDArray[np.bool_]]) -> Iterator[NDArray[np.float64]]:
    """The rows that count, as float64 copies of bounded size."""
    for matrix, mask in zip(matrices, masks, strict=True):
        length = max(1, _BLOCK_NUMBERS // matrix.shape[1])
        for start in range(0, len(matrix), length):
            kept = mask[start : start + length]
            block = matrix[start : start + length]
            yield (block if kept.all() else block[kept]).astype(np.float64)


def _odd(step: int) -> int:
    """An odd step near this one: lines of a lattice are mostly even, and an even step would visit the same columns."""
    return max(1, step | 1)


def _mapped(level: Level, mean: NDArray[np.float32], matrix: NDArray[np.float32]) -> Level:
    """The level after `(features - mean) @ matrix`."""
    features = np.empty_like(level.features)
    rows, result = level.matrix, features.reshape(-1, level.channels)
    length = max(1, _BLOCK_NUMBERS // level.channels)
    shift = mean @ matrix
    for start in range(0, len(rows), length):
        block = result[start : start + length]
        np.matmul(rows[start : start + length], matrix, out=block)
        block -= shift
    return replace(level, features=features)
