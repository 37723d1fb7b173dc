"""Lengths of interpolated descriptors on a grid, without computing the descriptors themselves.

At a grid point f = sum_i w_i f_i over the eight corners i of its cell, so |f|^2 = sum_ij w_i w_j <f_i, f_j>.
Along one axis the products of weights are (1-t)^2, 2 t (1-t) and t^2: those of a node with itself and of the edge
between two nodes. Products over three axes give eight coarse scalar maps (node or edge along each axis), which are
interleaved into one grid of twice the density and interpolated separably with these quadratic weights. The result is
exact, and the work on the fine grid does not depend on the number of channels.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import AxisReading

#: Coarse planes that are processed at a time, to limit temporary memory.
_PLANES = 4


def gram_lattice(patches: torch.Tensor, between: tuple[bool, bool, bool]) -> torch.Tensor:
    """Mean dot products of neighbouring descriptors.

    Args:
        patches: (n, k0, k1, k2, C) float32.
        between: For each axis, whether descriptors are interpolated along it.

    Returns:
        (n, m0, m1, m2) float32; m = 2 k - 1 along interpolated axes (even indices are samples, odd indices the edges
        between two), else k. Pairs of corners that share the same weights (diagonals) are averaged.
    """
    widths = patches.shape[1:4]
    size = [2 * k - 1 if b else k for k, b in zip(widths, between, strict=True)]
    gram = patches.new_empty((len(patches), *size))
    ones = patches.new_ones(patches.shape[4])
    for kind in product(*[(0, 1) if b and k > 1 else (0,) for k, b in zip(widths, between, strict=True)]):
        edges = [axis for axis in range(3) if kind[axis]]
        total: torch.Tensor | None = None
        # The direction along the first edge axis is fixed: the other half of the pairs are the same pairs exchanged.
        for signs in product((0, 1), repeat=max(0, len(edges) - 1)):
            here, there = [0, 0, 0], [0, 0, 0]
            for axis, sign in zip(edges, (0, *signs), strict=False):
                here[axis], there[axis] = sign, 1 - sign
            one, two = (
                patches[(slice(None), *(slice(s, s + k - e) for s, k, e in zip(shift, widths, kind, strict=True)))]
                for shift in (here, there)
            )
            dots = torch.matmul(one * two, ones)
            total = dots if total is None else total.add_(dots)
        if total is not None:
            places = tuple(slice(k, None, 2) if b else slice(None) for k, b in zip(kind, between, strict=True))
            gram[(slice(None), *places)] = total / 2 ** max(0, len(edges) - 1)
    return gram


def squared_weights(
    reading: AxisReading, positions: NDArray[np.int64], first: NDArray[np.int64], width: int
) -> NDArray[np.float32]:
    """Weights with which windows interpolate their `gram_lattice` along one axis.

    Args:
        reading: How the grid interpolates the level along this axis.
        positions: (N, n) int64, voxels of the windows on the grid.
        first: (N,) int64, first sample of each window.
        width: Number of samples of each window.

    Returns:
        (N, n, 2 * width - 1) float32.
    """
    low, high, part = (each[positions] for each in (reading.low, reading.high, reading.part))
    low, high = low - first[:, None], high - first[:, None]
    rows, columns = np.indices(positions.shape)
    weights = np.zeros((*positions.shape, 2 * width - 1), dtype=np.float32)
    weights[rows, columns, 2 * low] = (1 - part) ** 2
    weights[rows, columns, 2 * high] += part**2
    weights[rows, columns, low + high] += np.where(low < high, 2 * part * (1 - part), 0)
    return weights


def squared_norms(features: torch.Tensor, readings: tuple[AxisReading, AxisReading, AxisReading]) -> torch.Tensor:
    """Squared lengths |f|^2 of interpolated descriptors on the whole grid.

    Args:
        features: (X, Y, Z, C) float32 or float16.
        readings: How the grid interpolates the level along each axis.

    Returns:
        (n0, n1, n2) float32 on the same device, not below 0.
    """
    between = [reading.first_sample is None and reading.length > 1 for reading in readings]
    flags = (between[0], between[1], between[2])
    slabs = []
    for start in range(0, len(features), _PLANES):
        slab = gram_lattice(features[None, start : start + _PLANES + 1].float(), flags)[0]
        # The first plane of the next slab is included only for the edges towards it.
        slabs.append(slab if start + _PLANES + 1 > len(features) else slab[: _PLANES * (2 if flags[0] else 1)])
    gram = torch.cat(slabs)
    for axis, reading in enumerate(readings):
        gram = _read_squared(gram, axis, reading, between=flags[axis])
    return gram.clamp_(min=0)


def _read_squared(gram: torch.Tensor, axis: int, reading: AxisReading, *, between: bool) -> torch.Tensor:
    """Interpolate one axis of the interleaved grid with quadratic weights."""
    if not between:
        return reading.read(gram, axis)
    low, high, part = (torch.from_numpy(a).to(gram.device) for a in (reading.low, reading.high, reading.part))
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = part.reshape(shape)
    total = gram.index_select(axis, 2 * low).mul_((1 - weight).square())
    total.addcmul_(gram.index_select(axis, 2 * high), weight.square().expand_as(total))
    return total.addcmul_(gram.index_select(axis, low + high), (2 * weight * (1 - weight)).expand_as(total))
