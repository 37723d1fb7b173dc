"""The length of an interpolated descriptor, everywhere on a lattice, without building any descriptor there.

At a lattice point f = sum_i w_i f_i over the eight corners i of its cell, so |f|^2 = sum_ij w_i w_j <f_i, f_j>.
Along one axis the products of weights are (1-t)^2, 2 t (1-t) and t^2: those of "node with itself" and of "edge between
two nodes". Products over three axes give eight coarse scalar maps (node or edge along each axis), each read
separably with quadratic weights. Exact, and independent of the number of channels on the fine lattice.
"""

from __future__ import annotations

from itertools import product

import torch

from meddift.matching.axes import AxisReading

#: Coarse planes handled at a time: bounds the temporaries to some tens of MB.
_PLANES = 4


def gram_maps(
    features: torch.Tensor, edges_along: tuple[bool, bool, bool] = (True, True, True)
) -> dict[tuple[int, int, int], torch.Tensor]:
    """Mean dot products of neighbouring descriptors.

    Args:
        features: (X, Y, Z, C) float32.
        edges_along: Axes along which anything is read between voxels; along the others edges are left out.

    Returns:
        For each (a, b, c) in {0, 1}^3 a map (X - a, Y - b, Z - c) float32: 0 = node, 1 = edge along that axis.
        Where several pairs of corners share the same weights (diagonals), their mean.
    """
    shape = features.shape[:3]
    maps: dict[tuple[int, int, int], torch.Tensor] = {}
    for kind in ((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)):
        if any(k and not wanted for k, wanted in zip(kind, edges_along, strict=True)):
            continue
        size = [n - k for n, k in zip(shape, kind, strict=True)]
        edges = [axis for axis in range(3) if kind[axis]]
        total = features.new_zeros(size)
        # Fix the direction of the first edge axis: the other half of the pairs are the same pairs swapped.
        free = edges[1:]
        for signs in product((0, 1), repeat=len(free)):
            start_a, start_b = [0, 0, 0], [0, 0, 0]
            if edges:
                start_b[edges[0]] = 1
            for axis, sign in zip(free, signs, strict=True):
                start_a[axis], start_b[axis] = sign, 1 - sign
            for x in range(0, size[0], _PLANES):
                count = min(_PLANES, size[0] - x)
                cut = [slice(start_a[i], start_a[i] + size[i]) for i in (1, 2)]
                cut_b = [slice(start_b[i], start_b[i] + size[i]) for i in (1, 2)]
                a = features[start_a[0] + x : start_a[0] + x + count, cut[0], cut[1]]
                b = features[start_b[0] + x : start_b[0] + x + count, cut_b[0], cut_b[1]]
                total[x : x + count] += (a * b).sum(-1)
        maps[kind] = total / 2 ** len(free)
    return maps


def squared_norms(
    maps: dict[tuple[int, int, int], torch.Tensor], readings: tuple[AxisReading, AxisReading, AxisReading]
) -> torch.Tensor:
    """|f|^2 on the lattice.

    Args:
        maps: From `gram_maps`.
        readings: How the lattice reads the level.

    Returns:
        (n0, n1, n2) float32, not below 0.
    """
    tables = []
    for reading in readings:
        low = torch.from_numpy(reading.low)
        high = torch.from_numpy(reading.high)
        part = torch.from_numpy(reading.part)
        edge = low.clamp(max=max(reading.length - 2, 0))
        tables.append((low, high, edge, part))

    def along(values: torch.Tensor, axis: int, kind: int) -> torch.Tensor:
        low, high, edge, part = tables[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        weight = part.reshape(shape)
        if kind:
            return values.index_select(axis, edge) * (2 * weight * (1 - weight))
        result = values.index_select(axis, low) * (1 - weight).square()
        return result.addcmul_(values.index_select(axis, high), weight.square().expand_as(result))

    def usable(kind: tuple[int, int, int]) -> bool:
        return kind in maps and all(readings[axis].length > 1 or not kind[axis] for axis in range(3))

    total = None
    for c in (0, 1):
        inner = None
        for b in (0, 1):
            parts = [along(maps[(a, b, c)], 0, a) for a in (0, 1) if usable((a, b, c))]
            if parts:
                read = along(sum(parts[1:], parts[0]), 1, b)
                inner = read if inner is None else inner.add_(read)
        if inner is not None:
            read = along(inner, 2, c)
            total = read if total is None else total.add_(read)
    if total is None:  # not reachable: the all-node map always exists
        raise RuntimeError("no map to read")
    return total.clamp_(min=0)
